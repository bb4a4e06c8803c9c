"""What tests ask a real Kafka for as an administrator, and the clients that all of this is asked through."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    MetadataEmptyBrokerList,
    NotCoordinatorError,
)

from eventflows.locate import open_subscriber
from eventflows.testing import wait_until
from eventflows.testing.cases import PLENTY, spread
from kafka import KafkaAdminClient, KafkaConsumer, OffsetAndMetadata, TopicPartition

CLIENTS: Final[Mapping[str, Mapping[str, object]]] = {
    "kafka-python": {},
    "librdkafka": {"client": "librdkafka"},
}
"""Each client of the adapter, and the options that choose it."""


class Addressed(Protocol):
    """A broker, or several."""

    def address(self) -> str:
        """Give hosts and ports."""


@contextlib.contextmanager
def administrator(server: Addressed) -> Iterator[KafkaAdminClient]:
    """Give an administrator's client."""
    admin = KafkaAdminClient(bootstrap_servers=server.address())
    try:
        yield admin
    finally:
        admin.close()


def fresh_topic(server: Addressed, partitions: int = 1, **configs: str) -> str:
    """Make a topic that nobody has used, with the replicas that are the broker's default."""
    name = f"fault-{uuid.uuid4().hex[:12]}"
    with administrator(server) as admin:
        admin.create_topics({name: {"num_partitions": partitions, "configs": configs}}, wait_for_metadata=True)
    return name


def positions(server: Addressed, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """Ask the group's coordinator for its position on each partition, and the metadata of each.

    The first that asks a broker for a group has it make its coordinators, which takes a moment: it is asked until one
    is there.
    """

    def asked() -> dict[str, Any] | None:
        try:
            with administrator(server) as admin:
                return dict(admin.list_group_offsets({group: None}))
        except (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError):
            return None

    found = wait_until(lambda: None if (answer := asked()) is None else [answer], 30, what=f"coordinator of {group}",
                       every=0.2)[0]  # fmt: skip
    return {partition: place for partition, place in found.get(group, found).items() if place.offset >= 0}


def committed(server: Addressed, group: str) -> dict[TopicPartition, int]:
    """Ask the group's coordinator for its position on each partition."""
    return {partition: place.offset for partition, place in positions(server, group).items()}


def ends(server: Addressed, topic: str) -> dict[TopicPartition, int]:
    """Ask where each partition ends.

    A broker that did not answer for a while is not in its own list of brokers until the controller heard from it.
    """

    def asked() -> list[dict[TopicPartition, int]]:
        consumer = KafkaConsumer(bootstrap_servers=server.address())
        try:
            partitions = [TopicPartition(topic, one) for one in consumer.partitions_for_topic(topic) or ()]
            return [dict(consumer.end_offsets(partitions))]
        except MetadataEmptyBrokerList:
            return []
        finally:
            consumer.close()

    return wait_until(asked, 30, what="a broker that lists itself", every=0.2)[0]


def everything(server: Addressed, topic: str) -> list[tuple[str, bytes]]:
    """Read all that a topic holds now: position and body, in the order of each partition."""
    left = sum(ends(server, topic).values())
    found: list[tuple[str, bytes]] = []
    with open_subscriber(f"kafka://{server.address()}/{topic}", group=f"all-{uuid.uuid4().hex[:8]}") as reader:

        def enough() -> bool:
            some = spread(reader.receive(10_000, max_bytes=PLENTY, timeout=1.0))
            found.extend((one.delivery.position, one.body or b"") for one in some)
            return len(found) >= left

        wait_until(enough, 60, what=f"all {left} messages of {topic}")
    return found
