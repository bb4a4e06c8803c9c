"""The embedded broker's faults on request, and what it leaves behind, in memory and in a file."""

from __future__ import annotations

import pathlib
import tracemalloc
from collections.abc import Iterator

import pytest

import eventflows
from eventflows import Message
from eventflows.adapters.local import LocalSubscriber
from eventflows.errors import (
    BrokerError,
    ConnectionFailedError,
    OutcomeUnknownError,
)
from eventflows.message import Chunk
from eventflows.policy import Verdict
from eventflows.testing.conditions import Background
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
