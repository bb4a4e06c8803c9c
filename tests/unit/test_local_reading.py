"""The embedded broker's dead letters and its looks at what waits, in memory and in a file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from eventflows import Message
from eventflows.errors import (
    CapabilityError,
    ConfigError,
)
from eventflows.policy import Verdict
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
