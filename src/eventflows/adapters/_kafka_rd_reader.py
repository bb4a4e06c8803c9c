"""A consumer of librdkafka that looks, and is no member."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from eventflows.adapters._kafka_clients import Options, Partition, Records
from eventflows.adapters._kafka_rd_client import abandon
from eventflows.adapters._kafka_rd_consumer import RdConsumer, consumer_config, native_offsets, native_partitions
from eventflows.adapters._kafka_rd_errors import name_it
from eventflows.protocols import Location

MANY: Final = 500


class RdReader(RdConsumer):
    """Reads partitions of its choice.

    Args:
        location: The source.
        options: Its options.
        timeout: Seconds for connecting.
    """

    def __init__(self, location: Location, options: Options, timeout: float) -> None:
        config = consumer_config(location, options) | {"auto.offset.reset": "earliest"}
        super().__init__(location, options, config, timeout)
        self._position: dict[Partition, int] = {}
        self._paused: set[Partition] = set()

    def assign(self, starts: Mapping[Partition, int]) -> None:
        """Read these from now on, from these offsets."""
        self._position = dict(starts)
        self._paused = set()
        self._ask(self.handle.assign, native_offsets(starts))

    def read(self, limit: int, timeout: float, full: Collection[Partition]) -> Mapping[Partition, Records]:
        """Give some records; of `full` partitions none are wanted."""
        new = [one for one in full if one not in self._paused]
        if new:
            self._paused.update(new)
            self._ask(self.handle.pause, native_partitions(new))
        found: dict[Partition, Records] = {}
        for message in self._take(min(limit, MANY), timeout):
            error = message.error()
            if error is not None and error.name() != "_PARTITION_EOF":
                raise name_it(error, self._where)
            partition = self.columns.partition(message)
            if error is None:
                found.setdefault(partition, []).append(message)
            self._position[partition] = message.offset() + (error is None)
        return found

    def position(self, partition: Partition) -> int:
        """Give the offset below which everything was read."""
        return self._position[partition]

    def close(self) -> None:
        """Disconnect."""
        abandon(self.handle.close, 1.0)
