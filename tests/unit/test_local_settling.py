"""The embedded broker's delays, leases, counts and settlements, in memory and in a file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from eventflows.adapters.local import LONGEST_DELAY
from eventflows.errors import (
    LeaseLostError,
)
from eventflows.policy import Verdict
from eventflows.protocols import SettleFailure
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


def lost(failures: list[SettleFailure]) -> list[bool]:
    """Say of each failure whether it is a lost lease."""
    return [isinstance(failure.error, LeaseLostError) for failure in failures]


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
