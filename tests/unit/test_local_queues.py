"""The embedded broker as a queue of another: what it refuses, counts and limits, by a clock of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventflows import Message, open_publisher, open_subscriber
from eventflows.adapters._local_faults import FakeClock
from eventflows.adapters.local import forget, local_broker
from eventflows.errors import BrokerError, CapabilityError, ConfigError, InvalidMessageError, TooLargeError
from eventflows.message import Chunk
from eventflows.policy import Settlement, Verdict

Make = Callable[..., Any]


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the broker."""
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> Iterator[Make]:
    """Make an open subscriber of a queue with messages in it."""
    names: list[str] = []

    def make(emulate: str, *messages: Message, suffix: str = "") -> Any:
        name = f"queue-{uuid.uuid4().hex}{suffix}"
        names.append(name)
        url = f"local://{name}?emulate={emulate}"
        local_broker(url, clock=clock)
        with open_publisher(url) as sender:
            assert [result.error for result in sender.publish(messages)] == [None] * len(messages)
        subscriber = open_subscriber(url)
        subscriber.open()
        return subscriber

    yield make
    for name in names:
        forget(name)


def take(subscriber: Any, limit: int = 1000) -> list[Chunk]:
    """Take what is there."""
    return list(subscriber.receive(limit, max_bytes=1 << 30, timeout=0))


def settle(subscriber: Any, verdict: Verdict, chunk: Chunk, **more: Any) -> None:
    """Settle a whole chunk."""
    failures = subscriber.settle([Settlement(verdict=verdict, spans=[(chunk, slice(0, len(chunk)))], **more)])
    assert list(failures) == []


def test_sqs_hands_out_ten_at_most(queue: Make) -> None:
    """One receive is one call of the service."""
    assert [len(chunk) for chunk in take(queue("sqs", *[Message(b"x")] * 25))] == [10]


def test_sqs_message_comes_again_after_its_visibility(queue: Make, clock: FakeClock) -> None:
    """Thirty seconds after it was handed out, it is there for others, as the second delivery."""
    [chunk] = take(queue("sqs", Message(b"x")))
    other = open_subscriber(chunk[0].source)
    clock.advance(29)
    before = take(other)
    clock.advance(2)
    assert (before, take(other)[0][0].attempt) == ([], 2)


def test_sqs_holds_nothing_longer_than_twelve_hours(queue: Make, clock: FakeClock) -> None:
    """An extension beyond twelve hours since it was handed out is refused; the lease runs on."""
    subscriber = queue("sqs", Message(b"x"))
    [chunk] = take(subscriber)
    allowed = subscriber.extend([chunk[0]], 43_000)
    clock.advance(42_000)
    [refused] = subscriber.extend([chunk[0]], 2_000)
    assert (allowed[0].error, type(refused.error), refused.until) == (None, BrokerError, None)
    settle(subscriber, Verdict.ACK, chunk)


@pytest.mark.parametrize("emulate", ["sqs", "servicebus"])
def test_handing_back_counts(queue: Make, emulate: str) -> None:
    """RELEASE, and closing with something held, count as a delivery."""
    subscriber = queue(emulate, Message(b"x"))
    settle(subscriber, Verdict.RELEASE, take(subscriber)[0])
    take(subscriber)
    subscriber.close()
    subscriber.open()
    assert take(subscriber)[0][0].attempt == 3


def test_servicebus_makes_a_dead_letter_of_the_eleventh_delivery(queue: Make) -> None:
    """After ten deliveries the broker itself gives a message up, and says why."""
    subscriber = queue("servicebus", Message(b"x", key="k"))
    for _ in range(10):
        settle(subscriber, Verdict.RETRY, take(subscriber)[0])
    nothing = take(subscriber)
    dead = subscriber.dead_letters()
    with dead:
        [chunk] = take(dead)
        message = chunk[0].message
    assert (nothing, message.headers["ef-reason"], message.key) == ([], "MaxDeliveryCountExceeded", "k")


def test_servicebus_refuses_a_delay(queue: Make) -> None:
    """It redelivers at once only."""
    subscriber = queue("servicebus", Message(b"x"))
    [chunk] = take(subscriber)
    with pytest.raises(CapabilityError, match="at once only"):
        settle(subscriber, Verdict.RETRY, chunk, delay=1)


def test_servicebus_renews_for_its_own_time(queue: Make) -> None:
    """Whatever is asked for, a lock is renewed for a minute."""
    subscriber = queue("servicebus", Message(b"x"))
    [chunk] = take(subscriber)
    before = chunk[0].lease_until or 0.0
    [result] = subscriber.extend([chunk[0]], 3600)
    assert 0 <= (result.until or 0.0) - before < 10


def test_fifo_group_is_blocked_while_something_of_it_is_held(queue: Make) -> None:
    """Not even its holder gets more of a group; other groups go on, each in a lane of its own."""
    messages = [Message(b"a0", key="a"), Message(b"b0", key="b"), Message(b"a1", key="a")]
    subscriber = queue("sqs", *messages, suffix=".fifo")
    first = take(subscriber, 2)
    blocked = take(subscriber)
    settle(subscriber, Verdict.ACK, first[0])
    assert ([chunk.bodies for chunk in first], blocked) == ([[b"a0"], [b"b0"]], [])
    assert [chunk.bodies for chunk in take(subscriber)] == [[b"a1"]]


def test_fifo_group_waits_for_its_failed_message(queue: Make, clock: FakeClock) -> None:
    """While one of a group waits for its retry, those behind it wait, too."""
    subscriber = queue("sqs", Message(b"a0", key="a"), Message(b"a1", key="a"), suffix=".fifo")
    [chunk] = take(subscriber, 1)
    settle(subscriber, Verdict.RETRY, chunk, delay=60)
    nothing = take(subscriber)
    clock.advance(61)
    assert (nothing, [chunk.bodies for chunk in take(subscriber)]) == ([], [[b"a0", b"a1"]])


def test_fifo_queue_needs_a_key() -> None:
    """A message without a group is refused alone."""
    with open_publisher(f"local://{uuid.uuid4().hex}.fifo?emulate=sqs") as sender:
        results = sender.publish([Message(b"x"), Message(b"y", key="k")])
    assert [type(result.error) for result in results] == [InvalidMessageError, type(None)]


@pytest.mark.parametrize(
    ("emulate", "limit"), [("sqs", 1024 * 1024), ("servicebus", 256 * 1024), ("kafka", 1024 * 1024)]
)
def test_message_over_the_limit_is_refused(emulate: str, limit: int) -> None:
    """The limit is that of the real broker, headers and key included."""
    with open_publisher(f"local://{uuid.uuid4().hex}?emulate={emulate}") as sender:
        results = sender.publish([Message(bytes(limit)), Message(bytes(limit), headers={"a": "b"})])
    assert [type(result.error) for result in results] == [type(None), TooLargeError]


@pytest.mark.parametrize(
    "options", ["emulate=sqs&group=g", "emulate=sqs&dead-letter", "emulate=servicebus&partitions=2"]
)
def test_option_without_a_meaning_is_refused(options: str) -> None:
    """What the real broker does not have is not accepted and ignored."""
    with pytest.raises(ConfigError, match="has no meaning with emulate="):
        open_subscriber(f"local://orders?{options}")


def test_unknown_broker_is_refused() -> None:
    """The text says which there are."""
    with pytest.raises(ConfigError, match="expected kafka, eventhubs, sqs or servicebus"):
        open_subscriber("local://orders?emulate=rabbit")
