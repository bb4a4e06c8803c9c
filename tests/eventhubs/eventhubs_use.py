"""What the tests of Event Hubs do again and again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from eventflows import Message, open_publisher, open_subscriber
from eventflows.adapters._eventhubs_subscriber import EventHubsSubscriber
from eventflows.errors import BrokerError
from eventflows.policy import Settlement, Verdict
from eventflows.testing.cases import PLENTY, Taken, spread
from eventflows.testing.conditions import wait_until
from eventhubs_harness import EventHubsHarness

UP_TO = 30.0


def hub(broker: EventHubsHarness) -> str:
    """Make a hub of a new name, with three partitions."""
    name = broker.fresh()
    broker.create(name)
    return name


def publish(broker: EventHubsHarness, name: str, *messages: Message) -> None:
    """Publish, every message confirmed."""
    with open_publisher(broker.source_url(name)) as made:
        assert [one.error for one in made.publish(list(messages), timeout=UP_TO)] == [None] * len(messages)


def to(partition: int, *bodies: bytes) -> list[Message]:
    """Make messages for one partition."""
    return [Message(body, options={"partition": str(partition)}) for body in bodies]


@contextlib.contextmanager
def reading(broker: EventHubsHarness, name: str, **options: object) -> Iterator[EventHubsSubscriber]:
    """Open a subscriber."""
    made = open_subscriber(broker.source_url(name), **{**broker.source_options, **options})
    assert isinstance(made, EventHubsSubscriber)
    with made:
        yield made


def take(subscriber: EventHubsSubscriber, count: int, *, skip: Sequence[object] = ()) -> list[Taken]:
    """Receive until so many events are there."""
    taken: list[Taken] = []

    def enough() -> bool:
        left = count - len(taken)
        taken.extend(spread(subscriber.receive(left, max_bytes=PLENTY, timeout=0.5, skip=skip)))  # type: ignore[arg-type]
        return len(taken) >= count

    wait_until(enough, UP_TO, what=f"{count} events")
    return taken


def bodies(taken: Sequence[Taken]) -> list[bytes]:
    """The bodies, sorted."""
    return sorted(one.delivery.message.body or b"" for one in taken)


def ack(subscriber: EventHubsSubscriber, taken: Sequence[Taken]) -> list[type[BrokerError]]:
    """Acknowledge, confirmed; gives the classes of the errors."""
    said = Settlement(verdict=Verdict.ACK, spans=[one.span for one in taken])
    return [type(one.error) for one in subscriber.settle([said], durable=True)]
