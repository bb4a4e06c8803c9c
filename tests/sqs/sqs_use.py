"""Publishing and receiving in a line, for the tests of SQS."""

from __future__ import annotations

import json
from typing import Any

from eventflows import Message, open_publisher, open_subscriber
from eventflows.message import Delivery
from eventflows.policy import Settlement, Verdict
from eventflows.testing import wait_until
from eventflows.testing.cases import PLENTY, Taken, spread
from servers.elasticmq import ACCOUNT, REGION
from sqs_harness import SqsHarness


def publish(broker: SqsHarness, name: str, *messages: Message) -> None:
    """Publish, everything confirmed."""
    with open_publisher(broker.source_url(name)) as made:
        assert [one.error for one in made.publish(messages)] == [None] * len(messages)


def receive(adapter: Any, count: int = 1) -> list[Taken]:
    """Receive so many messages."""
    taken: list[Taken] = []
    for _ in range(20):
        taken += spread(adapter.receive(count - len(taken), max_bytes=PLENTY, timeout=1.0))
        if len(taken) >= count:
            break
    return taken


def read(url: str, count: int = 1) -> list[Delivery]:
    """Read messages and acknowledge them."""
    with open_subscriber(url) as reader:
        taken = receive(reader, count)
        reader.settle([Settlement(verdict=Verdict.ACK, spans=[one.span for one in taken])], durable=True)
        return [one.delivery for one in taken]


def read_until(url: str, wanted: set[bytes], up_to: float = 60.0) -> list[bytes]:
    """Read and acknowledge until every wanted body has come; gives all that came, repetitions included."""
    found: list[bytes] = []

    def is_complete() -> bool:
        taken = spread(reader.receive(100, max_bytes=PLENTY, timeout=1.0))
        reader.settle([Settlement(verdict=Verdict.ACK, spans=[one.span for one in taken])] if taken else [])
        found.extend(one.delivery.message.body or b"" for one in taken)
        return wanted <= set(found)

    with open_subscriber(url) as reader:
        wait_until(is_complete, up_to, what=f"all {len(wanted)} messages")
    return found


def redriven(broker: SqsHarness, receives: int = 10) -> tuple[str, str]:
    """Make a queue with a redrive policy; gives its name and that of its dead letters."""
    dead, name = broker.fresh(), broker.fresh()
    broker.create(dead)
    broker.create(name)
    policy = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{dead}", "maxReceiveCount": receives}
    broker._direct.set_queue_attributes(
        QueueUrl=broker.direct_url(name), Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    return name, dead


def counts(broker: SqsHarness, name: str) -> tuple[int, int]:
    """What waits, and what is hidden, as the service says."""
    found = broker._direct.get_queue_attributes(QueueUrl=broker.direct_url(name), AttributeNames=["All"])["Attributes"]
    return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])
