"""What can be asked of a consumer of librdkafka, whether it is a member or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaException,
    Message,
)
from confluent_kafka import TopicPartition as Native

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_chunks import Committed
from eventflows.adapters._kafka_clients import NO_PARTITION, Options, Partition, Records
from eventflows.adapters._kafka_rd_client import Handled, abandon, connect, insist
from eventflows.adapters._kafka_rd_config import client_config
from eventflows.adapters._kafka_rd_errors import name_it, translate
from eventflows.errors import BrokerError, NotFoundError, PermissionDeniedError
from eventflows.protocols import Location

T = TypeVar("T")
TIMESTAMP_NOT_AVAILABLE: Final = 0
LOOK_SECONDS: Final = 0.3


class RdColumns:
    """Reads `Message`s. The maps run in C, which a loop over messages does not."""

    def bodies(self, records: Records) -> list[bytes | None]:
        """Give the body of each."""
        return list(map(Message.value, records))

    def keys(self, records: Records) -> list[bytes | None]:
        """Give the key of each."""
        return list(map(Message.key, records))

    def headers(self, records: Records) -> list[list[tuple[str, bytes | None]] | None] | None:
        """Give the headers of each; None: none has any."""
        found: list[Any] = list(map(Message.headers, records))
        return found if any(found) else None

    def partition(self, record: Any) -> Partition:  # noqa: ANN401 - the client's own
        """Say where it is from."""
        return Partition(record.topic(), record.partition())

    def offset(self, record: Any) -> int:  # noqa: ANN401 - the client's own
        """Give its offset."""
        offset: int = record.offset()
        return offset

    def timestamp(self, record: Any) -> int:  # noqa: ANN401 - the client's own
        """Give when it was published, in milliseconds; below 0: nobody says."""
        kind, when = record.timestamp()
        return -1 if kind == TIMESTAMP_NOT_AVAILABLE else int(when)


COLUMNS: Final = RdColumns()


def consumer_config(location: Location, options: Options) -> dict[str, Any]:
    """Give what every consumer of ours is told; reads secrets and files.

    Raises:
        ConfigError: A secret, a CA or a certificate cannot be read.
    """
    return client_config(location, options) | {
        "group.id": options["group"],
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": options.get("isolation", "read_committed"),
        "enable.partition.eof": True,  # tells where the log ends, past entries that hold no message
        "check.crcs": True,
        "fetch.wait.max.ms": 100,  # a partition that comes, or is asked for again, waits for the fetch before
        "fetch.queue.backoff.ms": 10,
    }


def native_partitions(partitions: Iterable[Partition], offset: int | None = None) -> list[Native]:
    """Give what the client takes."""
    if offset is None:
        return [Native(*one) for one in partitions]
    return [Native(*one, offset) for one in partitions]


def native_offsets(offsets: Mapping[Partition, int]) -> list[Native]:
    """Give what the client takes."""
    return [Native(*one, offset) for one, offset in offsets.items()]


class RdConsumer(Handled):
    """Asks a consumer.

    Args:
        location: The source.
        options: Its options.
        config: Of the consumer.
        timeout: Seconds for connecting.
    """

    columns = COLUMNS

    def __init__(self, location: Location, options: Options, config: dict[str, Any], timeout: float) -> None:
        self._location = location
        self._options = options
        self._where = location.text
        topic = "eventflows" if options.get("pattern") else given.topics(location)[0]
        handle, self.causes = connect(Consumer, config, topic, location.text, timeout)
        super().__init__(handle)
        self._known: dict[str, Sequence[int]] = {}
        self._denied: set[str] = set()

    def _ask(self, call: Callable[..., T], *args: Any, **more: Any) -> T:  # noqa: ANN401 - as of the call
        try:
            found = call(*args, **more)
        except KafkaException as error:
            raise translate(error, self._where) from error
        return found

    def _insist(self, call: Callable[..., T], asked: list[Native], timeout: float) -> T:
        return insist(lambda left: self._ask(call, asked, left), timeout)

    def _take(self, limit: int, timeout: float) -> Records:
        """Take what is there; when nothing is, wait for the first."""
        found: Records = self._ask(self.handle.consume, limit, 0)
        if not found and timeout > 0:
            first = self._ask(self.handle.poll, timeout)
            if first is not None:
                found = [first]
                if limit > 1:
                    found += self._ask(self.handle.consume, limit - 1, 0)
        return found

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: it does not say."""
        found: str | None = self._ask(self.handle.cluster_id, 5.0)
        return found

    def look(self, topics: Sequence[str], timeout: float) -> None:
        """Ask for topics by name."""
        for topic in topics:
            found = self._ask(self.handle.list_topics, topic, timeout).topics[topic]
            ours = None if found.error is None else name_it(found.error, self._where)
            if isinstance(ours, PermissionDeniedError):
                self._denied.add(topic)
            elif ours is not None and not isinstance(ours, NotFoundError):
                raise ours
            else:
                self._denied.discard(topic)
            self._known[topic] = sorted(found.partitions)

    def topics(self) -> Collection[str]:
        """Give the names of all topics that we may see."""
        return set(self._ask(self.handle.list_topics, timeout=10.0).topics)

    def partitions(self, topic: str) -> Sequence[int]:
        """Give its partitions as far as known; empty: it is not there."""
        return self._known.get(topic, ())

    def denied(self, topic: str) -> bool:
        """Say whether it is known that the topic may not be used."""
        return topic in self._denied

    def find_group(self, timeout: float) -> None:
        """See that the group may be used."""
        # Of a partition that there is not: for one that is, it may wait for the end of a dead member's transaction.
        asked = [Native(next(iter(self._known), "eventflows"), NO_PARTITION)]
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._ask(self.handle.committed, asked, LOOK_SECONDS)
            except BrokerError as error:
                # That it may not be used is told by a message only; the question gets no answer.
                self.causes.serve(self.handle)
                told = None if self.causes.noticed is None else name_it(self.causes.noticed, self._where)
                if told is not None and not told.retryable:
                    raise told from error
                if not error.retryable or time.monotonic() >= deadline:
                    raise
            else:
                return

    def committed(
        self, partitions: Collection[Partition], timeout: float, *, stable: bool = True
    ) -> dict[Partition, Committed]:
        """Give what the group has committed; partitions of which it has nothing are left out."""
        if not partitions:
            return {}
        asked = native_partitions(partitions)
        found = self._insist(self.handle.committed, asked, timeout) if stable else self._unstable(asked, timeout)
        return {
            Partition(one.topic, one.partition): Committed.read(one.offset, one.metadata)
            for one in self._sound(found)
            if one.offset >= 0
        }

    def _unstable(self, asked: list[Native], timeout: float) -> list[Native]:
        # A consumer that reads what is not committed is told positions that are not stable. An administrator would be,
        # too, but librdkafka aborts the process when its connection to a coordinator breaks meanwhile (its #4605).
        deadline = time.monotonic() + timeout
        config = client_config(self._location, self._options) | {
            "group.id": str(self._options["group"]),
            "isolation.level": "read_uncommitted",
            "enable.auto.commit": False,
        }
        handle, _ = connect(Consumer, config, asked[0].topic, self._where, timeout)
        try:
            return self._insist(handle.committed, asked, deadline - time.monotonic())
        finally:
            abandon(handle.close, 1.0)

    def _sound(self, found: list[Native]) -> list[Native]:
        for one in found:
            if one.error is not None:
                raise name_it(one.error, f"{self._where}: {one.topic}/{one.partition}")
        return found

    def firsts(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, int]:
        """Give the oldest offset of each."""
        return self._offsets(native_partitions(partitions, OFFSET_BEGINNING), timeout)

    def ends(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, int]:
        """Give one past the newest offset of each that may be read."""
        return self._offsets(native_partitions(partitions, OFFSET_END), timeout)

    def at_time(self, partitions: Collection[Partition], time: int, timeout: float) -> dict[Partition, int]:
        """Give the offset of the first message at or after a time, in milliseconds; without one, left out."""
        found = self._offsets(native_partitions(partitions, time), timeout)
        return {one: offset for one, offset in found.items() if offset >= 0}

    def _offsets(self, asked: list[Native], timeout: float) -> dict[Partition, int]:
        if not asked:
            return {}
        found = self._sound(self._insist(self.handle.offsets_for_times, asked, timeout))
        return {Partition(one.topic, one.partition): one.offset for one in found}
