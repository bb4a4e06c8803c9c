"""The embedded broker's promises, one by one, in memory and in a file."""

from __future__ import annotations

import pathlib
import tracemalloc
from collections.abc import Iterator

import pytest

import eventflows
from eventflows import Message
from eventflows.adapters.local import LONGEST_DELAY, MAX_BYTES, MAX_HEADERS, LocalSubscriber
from eventflows.errors import (
    BrokerError,
    CapabilityError,
    ClosedError,
    ConfigError,
    ConnectionFailedError,
    InvalidMessageError,
    LeaseLostError,
    OutcomeUnknownError,
    TooLargeError,
)
from eventflows.message import Chunk
from eventflows.policy import Verdict
from eventflows.protocols import SettleFailure
from eventflows.testing.conditions import Background
from local_place import MUCH, Place, Storage, bodies, deliveries, say, take

ACK, RETRY, RELEASE, DEAD_LETTER = Verdict.ACK, Verdict.RETRY, Verdict.RELEASE, Verdict.DEAD_LETTER


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Each test runs over both."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def place(storage: Storage, tmp_path: pathlib.Path) -> Iterator[Place]:
    """A broker of its own."""
    made = Place(storage, tmp_path)
    yield made
    made.close()


def lost(failures: list[SettleFailure]) -> list[bool]:
    """Say of each failure whether it is a lost lease."""
    return [isinstance(failure.error, LeaseLostError) for failure in failures]


def take_all(subscriber: LocalSubscriber) -> list[Chunk]:
    """Receive until nothing comes."""
    found: list[Chunk] = []
    while chunks := take(subscriber):
        found += chunks
    return found


# Groups and competition


def test_groups_each_get_everything_when_there_are_two(place: Place) -> None:
    """A group is a subscription of its own."""
    place.publish(b"a", b"b", b"c")
    got = [sorted(bodies(take(place.subscriber(group=group)))) for group in ("one", "two")]
    assert got == [[b"a", b"b", b"c"]] * 2


def test_competing_consumers_get_each_message_once_when_they_share_a_group(place: Place) -> None:
    """What one holds, the other does not get."""
    place.publish(*[b"%d" % n for n in range(10)])
    first, second = place.subscriber(), place.subscriber()
    got = bodies(take(first, 4)) + bodies(take(second, 4)) + bodies(take(first, 4))
    assert sorted(got) == [b"%d" % n for n in range(10)]


def test_receive_returns_at_once_when_the_limit_is_met(place: Place) -> None:
    """A limit is a limit."""
    place.publish(*[b"x"] * 10)
    assert len(bodies(take(place.subscriber(), 3))) == 3


def test_new_group_gets_what_was_acknowledged_elsewhere_when_retain_keeps_it(place: Place) -> None:
    """Replay: a new group begins at the oldest message that is kept."""
    count = 3_000
    place.publish(*[b"%d" % n for n in range(count)])
    first = place.subscriber(retain=3600)
    say(first, ACK, take_all(first))
    assert len(bodies(take_all(place.subscriber(group="new", retain=3600)))) == count


def test_done_messages_are_removed_when_retain_is_over(place: Place) -> None:
    """Kept for as long as asked, and then no longer."""
    reader = place.subscriber(retain=0.000001)
    for _ in range(4):
        place.publish(*[b"x"] * 2_000)
        say(reader, ACK, take_all(reader))
        place.clock.advance(1)
    assert len(bodies(take_all(place.subscriber(group="new")))) < 8_000


def test_done_messages_are_removed_when_nothing_is_retained(place: Place) -> None:
    """A new group finds little of what every group is done with."""
    reader = place.subscriber()
    for _ in range(10):
        place.publish(*[b"x"] * 1_000)
        say(reader, ACK, take_all(reader))
    assert len(bodies(take_all(place.subscriber(group="new")))) <= 2_100


def test_waiting_messages_are_kept_when_one_group_is_done_with_them(place: Place) -> None:
    """The slowest group counts."""
    slow, quick = place.subscriber(group="slow"), place.subscriber(group="quick")
    place.publish(*[b"x"] * 5_000)
    say(quick, ACK, take_all(quick))
    assert len(bodies(take_all(slow))) == 5_000


# Keys and order


def test_key_stays_with_its_owner_when_another_asks(place: Place) -> None:
    """A key is handed to one owner at a time."""
    place.publish(b"0", b"1", key="k")
    first, second = place.subscriber(), place.subscriber()
    take(first, 1)
    assert bodies(take(second)) == []


def test_key_goes_to_another_owner_when_it_is_settled(place: Place) -> None:
    """Once nothing of a key is held, anybody may have it."""
    place.publish(b"0", b"1", key="k")
    first, second = place.subscriber(), place.subscriber()
    say(first, ACK, take(first, 1))
    assert bodies(take(second)) == [b"1"]


def test_owner_gets_more_of_its_key_when_it_asks(place: Place) -> None:
    """The owner of a key is not kept from it."""
    place.publish(b"0", b"1", b"2", key="k")
    reader = place.subscriber()
    assert [bodies(take(reader, 1)) for _ in range(3)] == [[b"0"], [b"1"], [b"2"]]


def test_other_keys_come_at_once_when_the_first_messages_are_of_a_busy_key(place: Place) -> None:
    """A busy key holds up nobody else, however small the limit."""
    first, second = place.subscriber(), place.subscriber()
    place.publish(*[b"busy"] * 50, key="k")
    take(first, 1)
    place.publish(b"free", key="j")
    assert bodies(take(second, 1)) == [b"free"]


def test_retried_message_comes_before_later_ones_when_they_were_released(place: Place) -> None:
    """RETRY of the first with a delay, RELEASE of the rest: the first is the first again."""
    place.publish(b"0", b"1", b"2", key="k")
    reader = place.subscriber()
    held = take(reader)
    say(reader, RETRY, held, only=lambda d: d.message.body == b"0", delay=5)
    say(reader, RELEASE, held, only=lambda d: d.message.body != b"0")
    place.clock.advance(5)
    assert bodies(take(reader)) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("later", ["released", "never taken", "published after"])
def test_key_waits_when_its_first_message_is_delayed(place: Place, later: str) -> None:
    """Nothing of a key overtakes its delayed message."""
    place.publish(b"0", b"1", key="k")
    reader = place.subscriber()
    held = take(reader, 2 if later == "released" else 1)
    say(reader, RETRY, held, only=lambda d: d.message.body == b"0", delay=5)
    say(reader, RELEASE, held, only=lambda d: d.message.body == b"1")
    if later == "published after":
        place.publish(b"2", key="k")
    assert bodies(take(reader)) == []


def test_key_keeps_its_order_when_more_was_handed_back_than_is_looked_over(place: Place) -> None:
    """Behind 12,000 messages of a busy key, a later message of another key does not overtake an earlier one."""
    first, second = place.subscriber(), place.subscriber()
    place.publish(*[b"busy"] * 12_000, key="busy")
    place.publish(b"early", key="k")
    held = take_all(first)
    say(first, RELEASE, held, only=lambda d: d.position != deliveries(held[:1])[0].position)
    place.publish(b"late", key="k")
    assert bodies(take(second, 1)) != [b"late"]


def test_messages_without_a_key_are_shuffled_when_many_wait(place: Place) -> None:
    """Who relies on an order that is not promised finds out here."""
    place.publish(*[b"%03d" % n for n in range(100)])
    readers = [place.subscriber(group=f"group-{n}") for n in range(5)]
    assert any(bodies(take(reader)) != [b"%03d" % n for n in range(100)] for reader in readers)


def test_shuffle_is_the_same_when_the_seed_is(storage: Storage, tmp_path: pathlib.Path) -> None:
    """A seed repeats a run."""
    orders = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        place = Place(storage, tmp_path / str(number), seed=42)
        place.publish(*[b"%03d" % n for n in range(100)])
        orders.append(bodies(take(place.subscriber())))
        place.close()
    assert orders[0] == orders[1]


# Delays, leases and counts


def test_retried_message_waits_when_it_has_a_delay(place: Place) -> None:
    """Not before its time."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, RETRY, take(reader), delay=5)
    place.clock.advance(4.9)
    assert bodies(take(reader)) == []


def test_retried_message_comes_when_its_delay_is_over(place: Place) -> None:
    """And at its time."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, RETRY, take(reader), delay=5)
    place.clock.advance(5)
    assert bodies(take(reader)) == [b"x"]


def test_delay_is_cut_when_it_is_longer_than_can_be_promised(place: Place) -> None:
    """The capabilities say how long a delay can be."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, RETRY, take(reader), delay=LONGEST_DELAY * 10)
    place.clock.advance(LONGEST_DELAY)
    assert bodies(take(reader)) == [b"x"]


def test_blocked_receive_returns_when_the_delay_is_over(place: Place) -> None:
    """Whoever waits is told that time has passed."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, RETRY, take(reader), delay=500)
    waiting = Background(lambda: bodies(take(reader, timeout=20)))
    place.clock.advance(500)
    assert waiting.result(10) == [b"x"]


def test_attempt_grows_when_a_message_is_retried(place: Place) -> None:
    """RETRY counts."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, RETRY, take(reader))
    assert [d.attempt for d in deliveries(take(reader))] == [2]


def test_attempt_grows_when_the_lease_ends(place: Place) -> None:
    """So does a lease that ends."""
    place.publish(b"x")
    reader, other = place.subscriber(), place.subscriber()
    take(reader)
    place.clock.advance(30)
    assert [d.attempt for d in deliveries(take(other))] == [2]


def test_attempt_stays_when_a_message_is_released(place: Place) -> None:
    """RELEASE is free."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, RELEASE, take(reader))
    assert [d.attempt for d in deliveries(take(reader))] == [1]


def test_attempt_stays_when_its_holder_closes(place: Place) -> None:
    """Close hands back, untouched."""
    place.publish(b"x")
    reader = place.subscriber()
    take(reader)
    reader.close()
    assert [d.attempt for d in deliveries(take(place.subscriber()))] == [1]


def test_lease_keeps_a_message_when_it_has_not_ended(place: Place) -> None:
    """Until the lease ends nobody else gets it."""
    place.publish(b"x")
    take(place.subscriber(lease=7))
    place.clock.advance(6.9)
    assert bodies(take(place.subscriber())) == []


def test_message_comes_back_when_its_lease_ends(place: Place) -> None:
    """And then somebody else does."""
    place.publish(b"x")
    take(place.subscriber(lease=7))
    place.clock.advance(7)
    assert bodies(take(place.subscriber())) == [b"x"]


def test_lease_is_longer_when_it_was_extended(place: Place) -> None:
    """The time runs from the extension."""
    place.publish(b"x")
    reader = place.subscriber()
    held = deliveries(take(reader))
    place.clock.advance(20)
    reader.extend(held, 30)
    place.clock.advance(29)
    assert bodies(take(place.subscriber())) == []


def test_only_the_extended_lease_is_longer_when_two_came_together(place: Place) -> None:
    """Each delivery has a lease of its own."""
    place.publish(b"a", b"b")
    reader = place.subscriber()
    held = deliveries(take(reader))
    reader.extend([d for d in held if d.message.body == b"a"], 60)
    place.clock.advance(30)
    assert bodies(take(place.subscriber())) == [b"b"]


def test_extension_is_refused_when_the_lease_was_lost(place: Place) -> None:
    """What others may have cannot be kept."""
    place.publish(b"x")
    reader = place.subscriber()
    held = deliveries(take(reader))
    place.clock.advance(30)
    [result] = reader.extend(held, 30)
    assert isinstance(result.error, LeaseLostError)


def test_message_keeps_its_handle_when_its_holder_receives_it_again(place: Place) -> None:
    """Received again while still held: nothing new, and the old delivery can be settled."""
    place.publish(b"x")
    reader = place.subscriber()
    held = take(reader)
    place.clock.advance(30)
    again = take(reader)
    assert (again, say(reader, ACK, held)) == ([], [])


# Settling


def test_second_settlement_is_a_lost_lease_when_the_first_was_carried_out(place: Place) -> None:
    """One last word each."""
    place.publish(b"x")
    reader = place.subscriber()
    held = take(reader)
    say(reader, ACK, held)
    assert lost(say(reader, ACK, held)) == [True]


def test_second_settlement_is_a_lost_lease_when_it_is_in_the_same_call(place: Place) -> None:
    """Also within one call."""
    place.publish(b"x")
    reader = place.subscriber()
    [chunk] = take(reader)
    assert lost(say(reader, ACK, [chunk, chunk])) == [True]


def test_settlement_is_a_lost_lease_when_the_lease_ended(place: Place) -> None:
    """What was taken back cannot be settled."""
    place.publish(b"x")
    reader = place.subscriber()
    held = take(reader)
    place.clock.advance(30)
    assert lost(say(reader, ACK, held)) == [True]


def test_settlement_is_a_lost_lease_when_another_has_the_message(place: Place) -> None:
    """And who has it now keeps it."""
    place.publish(b"x")
    reader, other = place.subscriber(), place.subscriber()
    held = take(reader)
    place.clock.advance(30)
    take(other)
    assert lost(say(reader, ACK, held)) == [True]


def test_rest_is_settled_when_one_lease_was_lost(place: Place) -> None:
    """Everything is attempted."""
    place.publish(b"a", b"b")
    reader = place.subscriber()
    held = take(reader)
    say(reader, ACK, held, only=lambda d: d.message.body == b"a")
    assert [f.delivery.message.body for f in say(reader, ACK, held)] == [b"a"]


def test_old_chunk_is_a_lost_lease_when_its_subscriber_was_opened_again(place: Place) -> None:
    """Opening an open one loses every lease."""
    place.publish(b"x")
    reader = place.subscriber()
    held = take(reader)
    reader.open()
    assert lost(say(reader, ACK, held)) == [True]


def test_message_comes_again_when_its_subscriber_was_opened_again(place: Place) -> None:
    """And what it held comes to whoever asks."""
    place.publish(b"x")
    reader = place.subscriber()
    take(reader)
    reader.open()
    assert bodies(take(place.subscriber())) == [b"x"]


def test_message_comes_again_when_a_stranger_settled_it(place: Place) -> None:
    """A subscriber that settles another's delivery loses nothing of it."""
    place.publish(b"x")
    reader, stranger = place.subscriber(), place.subscriber()
    held = take(reader)
    say(stranger, ACK, held)
    place.clock.advance(30)
    assert bodies(take(place.subscriber())) == [b"x"]


def test_settlement_by_a_stranger_is_a_lost_lease_when_the_holder_has_it_still(place: Place) -> None:
    """It is told so."""
    place.publish(b"x")
    reader, stranger = place.subscriber(), place.subscriber()
    assert lost(say(stranger, ACK, take(reader))) == [True]


# Dead letters


def test_dead_letter_is_as_it_was_when_it_is_read(place: Place) -> None:
    """Body, key and headers, and the reason added."""
    place.publisher().publish([Message(b"x", key="k", headers={"h": "1"}, id="i", content_type="text/plain")])
    reader = place.subscriber()
    say(reader, DEAD_LETTER, take(reader), reason="because", detail="of that")
    [found] = deliveries(take(place.subscriber(dead=True)))
    headers = {"h": "1", "ef-reason": "because", "ef-error": "of that"}
    assert found.message == Message(b"x", key="k", headers=headers, id="i", content_type="text/plain")


def test_dead_letter_keeps_its_id_when_the_broker_gave_it(place: Place) -> None:
    """The id that a message was delivered with is the id of its dead letter."""
    place.publish(b"a", b"b", b"x")
    reader = place.subscriber()
    held = take(reader)
    [bad] = [d.message.id for d in deliveries(held) if d.message.body == b"x"]
    say(reader, DEAD_LETTER, held, only=lambda d: d.message.body == b"x")
    assert [d.message.id for d in deliveries(take(place.subscriber(dead=True)))] == [bad]


def test_dead_letters_are_the_groups_own_when_there_are_two(place: Place) -> None:
    """Each group has its own."""
    place.publish(b"x")
    reader = place.subscriber(group="one")
    say(reader, DEAD_LETTER, take(reader))
    assert bodies(take(place.subscriber(group="two", dead=True))) == []


def test_blocked_receive_returns_when_a_dead_letter_comes(place: Place) -> None:
    """Whoever waits for dead letters is told."""
    place.publish(b"x")
    reader, dead = place.subscriber(), place.subscriber(dead=True)
    waiting = Background(lambda: bodies(take(dead, timeout=20)))
    say(reader, DEAD_LETTER, take(reader))
    assert waiting.result(5) == [b"x"]


def test_dead_letter_of_a_dead_letter_is_refused_when_asked_for(place: Place) -> None:
    """The capability says so, and the broker means it."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, DEAD_LETTER, take(reader))
    dead = place.subscriber(dead=True)
    held = take(dead)
    with pytest.raises(CapabilityError):
        say(dead, DEAD_LETTER, held)


def test_dead_letters_are_the_same_when_reached_from_the_subscriber(place: Place) -> None:
    """`dead_letters()` and the URL lead to one place."""
    place.publish(b"x")
    reader = place.subscriber(group="g")
    say(reader, DEAD_LETTER, take(reader))
    with reader.dead_letters() as dead:
        assert bodies(list(dead.receive(10, max_bytes=MUCH, timeout=0))) == [b"x"]


# Peek and backlog


def test_peek_takes_nothing_when_messages_wait(place: Place) -> None:
    """What was looked at is there still."""
    place.publish(b"x")
    reader = place.subscriber()
    reader.peek(10, timeout=1)
    assert bodies(take(reader)) == [b"x"]


def test_peek_makes_no_group_when_there_is_none(place: Place) -> None:
    """Done messages are not kept for somebody who only looked."""
    reader = place.subscriber()
    looker = place.subscriber(group="looker")
    looker.close()
    place.publish(b"x")
    assert [d.message.body for d in reader.peek(10, timeout=1)] == [b"x"]


def test_peek_begins_after_a_position_when_it_is_given(place: Place) -> None:
    """Page by page."""
    place.publish(b"a", b"b", b"c")
    reader = place.subscriber()
    first = reader.peek(1, timeout=1)[0]
    assert [d.message.body for d in reader.peek(10, start=first.position, timeout=1)] == [b"b", b"c"]


@pytest.mark.parametrize(("limit", "start"), [(10, "9" * 40), (0, None), (10**30, "9" * 40), (-1, None)])
def test_peek_finds_nothing_when_the_numbers_are_odd(place: Place, limit: int, start: str | None) -> None:
    """Neither more than SQLite can count nor less than nothing is an error."""
    place.publish(b"a")
    assert place.subscriber().peek(limit, start=start, timeout=1) == []


def test_peek_is_refused_when_the_position_is_not_a_number(place: Place) -> None:
    """The text says what a position is."""
    with pytest.raises(ConfigError, match="sequence number"):
        place.subscriber().peek(1, start="x", timeout=1)


def test_peek_leaves_out_what_is_held_when_somebody_has_it(place: Place) -> None:
    """It shows what waits."""
    place.publish(b"a", key="k")
    reader = place.subscriber()
    take(reader)
    assert reader.peek(10, timeout=1) == []


def test_backlog_counts_delayed_ones_when_nothing_else_waits(place: Place) -> None:
    """Delayed messages wait, held ones do not."""
    place.publish(b"a", b"b", b"c")
    reader = place.subscriber()
    held = take(reader)
    say(reader, RETRY, held, only=lambda d: d.message.body == b"a", delay=60)
    backlog = reader.backlog()
    assert backlog is not None
    assert backlog.waiting == 1


# Publishing


BAD_MESSAGES: dict[str, tuple[Message, type[BrokerError]]] = {
    "too large": (Message(b"x" * (MAX_BYTES + 1)), TooLargeError),
    "too large with its headers": (Message(b"x" * MAX_BYTES, headers={"a": "b"}), TooLargeError),
    "too many headers": (Message(b"x", headers={str(n): "" for n in range(MAX_HEADERS + 1)}), InvalidMessageError),
    "header is no text": (Message(b"x", headers={"a": 1}), InvalidMessageError),  # type: ignore[dict-item]
    "header cannot be written": (Message(b"x", headers={"a": "\ud800"}), InvalidMessageError),
    "key cannot be written": (Message(b"x", key="\ud800"), InvalidMessageError),
    "id cannot be written": (Message(b"x", id="\ud800"), InvalidMessageError),
    "content type cannot be written": (Message(b"x", content_type="\ud800"), InvalidMessageError),
    "body is text": (Message("text"), InvalidMessageError),  # type: ignore[arg-type]
    "tombstone": (Message(None), InvalidMessageError),
    "unknown option": (Message(b"x", options={"partition": 1}), InvalidMessageError),
}


@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_bad_message_fails_alone_when_its_batch_is_good(place: Place, case: str) -> None:
    """One result for each, in order."""
    message, kind = BAD_MESSAGES[case]
    results = place.publisher().publish([Message(b"before"), message, Message(b"after")])
    assert [type(result.error) for result in results] == [type(None), kind, type(None)]


@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_good_messages_are_published_when_one_of_their_batch_is_bad(place: Place, case: str) -> None:
    """And nothing else is."""
    place.publisher().publish([Message(b"before"), BAD_MESSAGES[case][0], Message(b"after")])
    assert sorted(bodies(take(place.subscriber())), key=str) == [b"after", b"before"]


def test_message_is_as_it_was_when_it_has_everything(place: Place) -> None:
    """Bytes, headers, key, id and content type come out as they went in."""
    message = Message(bytes(range(256)), headers={"ä": "☃", "": ""}, key="ключ", id="id-1", content_type="text/plain")
    place.publisher().publish([message])
    assert [d.message for d in deliveries(take(place.subscriber()))] == [message]


@pytest.mark.parametrize("body", [b"", b"x" * (MAX_BYTES - 100)], ids=["empty", "largest"])
def test_body_is_whole_when_its_size_is_extreme(place: Place, body: bytes) -> None:
    """From nothing to the limit."""
    place.publish(body)
    assert bodies(take(place.subscriber())) == [body]


def test_results_are_none_when_the_batch_is_empty(place: Place) -> None:
    """Nothing in, nothing out."""
    assert place.publisher().publish([]) == []


def test_id_of_the_result_is_that_of_the_delivery_when_the_broker_gave_it(place: Place) -> None:
    """An id can be followed."""
    [result] = place.publish(b"x")
    assert [d.message.id for d in deliveries(take(place.subscriber()))] == [result.id]


def test_messages_say_when_they_were_published_when_they_come_together(place: Place) -> None:
    """Each has its own time, also when they were received at once."""
    for _ in range(3):
        place.publish(b"x", key="k")
    moments = [d.enqueued_at for d in deliveries(take(place.subscriber()))]
    assert len(set(moments)) == 3


# Receiving


def test_receive_stops_before_max_bytes_is_passed_when_several_wait(place: Place) -> None:
    """What does not fit waits."""
    place.publish(*[b"x" * 100] * 5, key="k")
    assert len(bodies(take(place.subscriber(), max_bytes=250))) == 2


def test_large_message_is_delivered_alone_when_nothing_fits(place: Place) -> None:
    """One message larger than `max_bytes` comes all the same."""
    place.publish(b"x" * 1000, b"y", key="k")
    assert [len(body or b"") for body in bodies(take(place.subscriber(), max_bytes=10))] == [1000]


def test_large_message_waits_when_a_smaller_one_comes_again(place: Place) -> None:
    """It is not added to what was taken already."""
    place.publish(b"small")
    reader = place.subscriber()
    say(reader, RELEASE, take(reader))
    place.publish(b"x" * 1000)
    assert bodies(take(reader, max_bytes=10)) == [b"small"]


def test_wake_ends_a_blocked_receive_when_nothing_comes(place: Place) -> None:
    """From another thread."""
    reader = place.subscriber()
    waiting = Background(lambda: take(reader, timeout=60))
    reader.wake()
    assert waiting.result(5) == []


def test_wake_ends_the_next_receive_when_none_is_blocked(place: Place) -> None:
    """A wake before the call counts."""
    reader = place.subscriber()
    reader.wake()
    assert Background(lambda: take(reader, timeout=60)).result(5) == []


def test_blocked_receive_returns_when_a_message_comes(place: Place) -> None:
    """Long before its time is over."""
    reader = place.subscriber()
    waiting = Background(lambda: bodies(take(reader, timeout=60)))
    place.publish(b"x")
    assert waiting.result(5) == [b"x"]


def test_limit_of_nothing_delivers_nothing_when_messages_wait(place: Place) -> None:
    """It keeps the connection alive, and that is all."""
    place.publish(b"x")
    assert take(place.subscriber(), 0, timeout=0.01) == []


# Closing


def test_receive_is_refused_when_it_was_closed(place: Place) -> None:
    """You closed it."""
    reader = place.subscriber()
    reader.close()
    with pytest.raises(ClosedError):
        take(reader)


def test_publish_is_refused_when_it_was_closed(place: Place) -> None:
    """You closed it."""
    writer = place.publisher()
    writer.close()
    with pytest.raises(ClosedError):
        writer.publish([Message(b"x")])


def test_settle_is_refused_when_it_was_closed(place: Place) -> None:
    """What it held was handed back."""
    place.publish(b"x")
    reader = place.subscriber()
    held = take(reader)
    reader.close()
    with pytest.raises(ClosedError):
        say(reader, ACK, held)


def test_close_does_nothing_when_it_was_closed_before(place: Place) -> None:
    """Twice is as once."""
    reader = place.subscriber()
    reader.close()
    reader.close()
    assert not reader.ready


def test_delayed_message_stays_delayed_when_its_subscriber_closes(place: Place) -> None:
    """What was settled is not handed back."""
    place.publish(b"x")
    reader = place.subscriber()
    say(reader, RETRY, take(reader), delay=60)
    reader.close()
    assert bodies(take(place.subscriber())) == []


# Faults


def test_next_call_raises_when_it_was_asked_to_fail(place: Place) -> None:
    """Once, as asked."""
    place.broker.faults.fail("publish", ConnectionFailedError("down"))
    with pytest.raises(ConnectionFailedError, match="down"):
        place.publish(b"x")


def test_call_after_the_failing_one_works_when_one_failure_was_asked_for(place: Place) -> None:
    """And no more."""
    place.broker.faults.fail("publish", ConnectionFailedError("down"))
    with pytest.raises(ConnectionFailedError):
        place.publish(b"x")
    assert place.publish(b"y")[0].error is None


def test_message_fails_alone_when_its_failure_was_asked_for(place: Place) -> None:
    """The rest of its batch is published."""
    place.broker.faults.fail_message(lambda message: message.body == b"b", BrokerError("no"))
    assert [result.error is None for result in place.publish(b"a", b"b", b"c")] == [True, False, True]


def test_settlement_fails_alone_when_its_refusal_was_asked_for(place: Place) -> None:
    """The rest is settled."""
    place.publish(b"a", b"b")
    reader = place.subscriber()
    held = take(reader)
    place.broker.faults.refuse_settlement(lambda d: d.message.body == b"a", BrokerError("no"))
    assert [f.delivery.message.body for f in say(reader, ACK, held)] == [b"a"]


def test_lease_ends_as_before_when_its_extension_was_refused(place: Place) -> None:
    """A refused extension extends nothing."""
    place.publish(b"x")
    reader = place.subscriber()
    held = deliveries(take(reader))
    place.broker.faults.refuse_extension(BrokerError("no"))
    reader.extend(held, 600)
    place.clock.advance(30)
    assert bodies(take(place.subscriber())) == [b"x"]


def test_publish_has_an_unknown_outcome_when_it_is_frozen(place: Place) -> None:
    """It blocks for its time, and then nobody knows."""
    place.broker.faults.freeze("publish")
    writer = place.publisher()
    [result] = writer.publish([Message(b"x")], timeout=0.01)
    assert isinstance(result.error, OutcomeUnknownError)


def test_frozen_publish_goes_on_when_it_is_thawed(place: Place) -> None:
    """Within its time."""
    place.broker.faults.freeze("publish")
    waiting = Background(lambda: place.publish(b"x"))
    place.broker.faults.thaw("publish")
    assert waiting.result(5)[0].error is None


def test_receive_raises_when_the_connection_was_cut(place: Place) -> None:
    """Until it is opened again."""
    reader = place.subscriber()
    place.broker.faults.disconnect()
    with pytest.raises(ConnectionFailedError):
        take(reader)


def test_blocked_receive_raises_when_the_connection_is_cut(place: Place) -> None:
    """At once."""
    reader = place.subscriber()
    waiting = Background(lambda: take(reader, timeout=60))
    place.broker.faults.disconnect()
    with pytest.raises(ConnectionFailedError):
        waiting.result(5)


def test_receive_works_when_it_is_opened_after_a_cut(place: Place) -> None:
    """Opening again mends it."""
    place.publish(b"x")
    reader = place.subscriber()
    place.broker.faults.disconnect()
    reader.open()
    assert bodies(take(reader)) == [b"x"]


def test_leases_end_when_asked_to(place: Place) -> None:
    """All of them, now."""
    place.publish(b"x")
    take(place.subscriber())
    place.broker.faults.expire_leases()
    assert bodies(take(place.subscriber())) == [b"x"]


# Sizes


def test_file_does_not_grow_when_what_is_done_is_removed(tmp_path: pathlib.Path) -> None:
    """After 40,000 messages the file and its log are little larger than after 20,000."""
    place = Place("file", tmp_path)
    reader = place.subscriber()
    sizes = []
    for _ in range(20):
        place.publish(*[b"x" * 200] * 2_000)
        say(reader, ACK, take_all(reader))
        sizes.append(sum(file.stat().st_size for file in tmp_path.glob("flows.db*") if file.is_file()))
    place.close()
    assert sizes[19] < sizes[9] * 1.3


def test_memory_does_not_grow_when_what_is_done_is_removed(tmp_path: pathlib.Path) -> None:
    """After 40,000 messages it holds little more than after 4,000."""
    place = Place("memory", tmp_path)
    reader = place.subscriber()
    sizes = []
    tracemalloc.start()
    for _ in range(20):
        place.publish(*[bytes(1_000)] * 2_000)
        say(reader, ACK, take_all(reader))
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    place.close()
    assert sizes[19] < sizes[1] * 1.5


def test_file_is_emptied_when_each_subscriber_settles_only_a_few(tmp_path: pathlib.Path) -> None:
    """Short runs clean up, too."""
    place = Place("file", tmp_path)
    for _ in range(20):
        place.publish(*[b"x"] * 10)
        reader = place.subscriber()
        say(reader, ACK, take_all(reader))
        reader.close()
    left = bodies(take_all(place.subscriber(group="new")))
    place.close()
    assert left == []


def test_file_is_made_again_when_it_was_removed(tmp_path: pathlib.Path) -> None:
    """What is published after somebody removed the file is in the new one, not in the void."""
    place = Place("file", tmp_path)
    place.publish(b"old")
    place.file.unlink()
    place.publish(b"new")
    found = bodies(take_all(place.subscriber()))
    place.close()
    assert (found, place.file.exists()) == ([b"new"], True)


def test_check_makes_no_file_when_there_is_none(tmp_path: pathlib.Path) -> None:
    """It changes nothing."""
    place = Place("file", tmp_path)
    subscriber = eventflows.open_subscriber(place.url)
    assert isinstance(subscriber, LocalSubscriber)
    assert ([finding.level for finding in subscriber.check()], place.file.exists()) == (["ok"], False)


def test_peek_makes_no_file_when_there_is_none(tmp_path: pathlib.Path) -> None:
    """It changes nothing."""
    place = Place("file", tmp_path)
    subscriber = eventflows.open_subscriber(place.url)
    assert isinstance(subscriber, LocalSubscriber)
    assert (subscriber.peek(10, timeout=1), place.file.exists()) == ([], False)
