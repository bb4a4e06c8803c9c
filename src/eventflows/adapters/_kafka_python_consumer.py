"""What can be asked of a consumer of kafka-python, whether it is a member or not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final, TypeVar

import kafka.errors as native
from kafka.protocol.consumer import IsolationLevel

from eventflows.adapters._kafka_chunks import Committed
from eventflows.adapters._kafka_clients import Partition, Records
from eventflows.adapters._kafka_python_client import Client
from eventflows.adapters._kafka_python_errors import translate
from kafka import KafkaConsumer, TopicPartition

T = TypeVar("T")


class PythonColumns:
    """Reads `ConsumerRecord`s."""

    def bodies(self, records: Records) -> list[bytes | None]:
        """Give the body of each."""
        return [record.value for record in records]

    def keys(self, records: Records) -> list[bytes | None]:
        """Give the key of each."""
        return [record.key for record in records]

    def headers(self, records: Records) -> list[list[tuple[str, bytes | None]] | None] | None:
        """Give the headers of each; None: none has any."""
        found = [record.headers for record in records]
        return found if any(found) else None

    def partition(self, record: Any) -> Partition:  # noqa: ANN401 - the client's own
        """Say where it is from."""
        return Partition(record.topic, record.partition)

    def offset(self, record: Any) -> int:  # noqa: ANN401 - the client's own
        """Give its offset."""
        offset: int = record.offset
        return offset

    def timestamp(self, record: Any) -> int:  # noqa: ANN401 - the client's own
        """Give when it was published, in milliseconds; below 0: nobody says."""
        return -1 if record.timestamp is None else int(record.timestamp)


COLUMNS: Final = PythonColumns()


def native_partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
    """Give what the client takes."""
    return [TopicPartition(*one) for one in partitions]


class PythonConsumer:
    """Asks a consumer.

    Args:
        consumer: Of kafka-python.
        client: Its network client.
        where: The source's URL, shown.
    """

    columns = COLUMNS

    def __init__(self, consumer: KafkaConsumer, client: Client, where: str) -> None:
        self._consumer = consumer
        self._client = client
        self._where = where

    def _ask(self, call: Callable[..., T], *args: Any, **more: Any) -> T:  # noqa: ANN401 - as of the call
        try:
            return call(*args, **more)
        except native.KafkaError as error:
            raise translate(error, self._where) from error

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: it does not say."""
        found: str | None = self._consumer._cluster.cluster_id
        return found

    def look(self, topics: Sequence[str], timeout: float) -> None:
        """Ask for topics by name: only so does the broker say which of them may not be read."""

        def ask() -> None:
            self._consumer._cluster.set_topics(list(topics))
            future = self._consumer._cluster.request_update()
            self._consumer._net.run(self._consumer._manager.wait_for, future, timeout * 1000)

        self._ask(ask)

    def topics(self) -> Collection[str]:
        """Give the names of all topics that we may see."""
        return set(self._ask(self._consumer.topics))

    def partitions(self, topic: str) -> Sequence[int]:
        """Give its partitions as far as known; empty: it is not there."""
        return sorted(self._consumer._cluster.partitions_for_topic(topic) or ())

    def denied(self, topic: str) -> bool:
        """Say whether it is known that the topic may not be used."""
        return topic in self._consumer._cluster.unauthorized_topics

    def find_group(self, timeout: float) -> None:
        """See that the group may be used."""
        self._ask(self._consumer._coordinator.ensure_coordinator_ready, timeout_ms=timeout * 1000)

    def committed(
        self, partitions: Collection[Partition], timeout: float, *, stable: bool = True
    ) -> dict[Partition, Committed]:
        """Give what the group has committed; partitions of which it has nothing are left out."""
        coordinator = self._consumer._coordinator
        level = coordinator._isolation_level
        if not stable:
            coordinator._isolation_level = IsolationLevel.READ_UNCOMMITTED
        try:
            found = self._ask(
                coordinator.fetch_committed_offsets, native_partitions(partitions), timeout_ms=timeout * 1000
            )
        finally:
            coordinator._isolation_level = level
        return {
            Partition(*one): Committed.read(at.offset, at.metadata)
            for one, at in found.items()
            if at is not None and at.offset >= 0
        }

    def firsts(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, int]:
        """Give the oldest offset of each."""
        found = self._ask(self._consumer.beginning_offsets, native_partitions(partitions), timeout * 1000)
        return {Partition(*one): offset for one, offset in found.items()}

    def ends(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, int]:
        """Give one past the newest offset of each that may be read."""
        found = self._ask(self._consumer.end_offsets, native_partitions(partitions), timeout * 1000)
        return {Partition(*one): offset for one, offset in found.items()}

    def at_time(self, partitions: Collection[Partition], time: int, timeout: float) -> dict[Partition, int]:
        """Give the offset of the first message at or after a time, in milliseconds; without one, left out."""
        asked = dict.fromkeys(native_partitions(partitions), time)
        found = self._ask(self._consumer.offsets_for_times, asked, timeout * 1000)
        return {Partition(*one): at.offset for one, at in found.items() if at is not None}
