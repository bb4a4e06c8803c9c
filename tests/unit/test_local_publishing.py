"""What the embedded broker takes and hands out, in memory and in a file."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from eventflows import Message
from eventflows.adapters.local import MAX_BYTES, MAX_HEADERS
from eventflows.errors import (
    BrokerError,
    ClosedError,
    InvalidMessageError,
    TooLargeError,
)
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
