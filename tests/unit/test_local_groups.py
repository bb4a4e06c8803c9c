"""The embedded broker's groups, keys and orders, in memory and in a file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from eventflows.adapters.local import LocalSubscriber
from eventflows.message import Chunk
from eventflows.policy import Verdict
from local_place import Place, Storage, bodies, deliveries, say, take

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
