"""A consumer of kafka-python that looks, and is no member."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from eventflows.adapters._kafka_clients import Options, Partition, Records
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_config import client_config
from eventflows.adapters._kafka_python_consumer import PythonConsumer, native_partitions
from eventflows.protocols import Location
from kafka import KafkaConsumer, TopicPartition


class PythonReader(PythonConsumer):
    """Reads partitions of its choice.

    Args:
        location: The source.
        options: Its options.
        timeout: Seconds for connecting.
    """

    def __init__(self, location: Location, options: Options, timeout: float) -> None:
        config = client_config(location, options) | {
            "group_id": options["group"],
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": options.get("isolation", "read_committed"),
            "request_timeout_ms": 10_000,
            "allow_auto_create_topics": False,
        }
        super().__init__(*build(KafkaConsumer, config, location.text, timeout), location.text)

    def assign(self, starts: Mapping[Partition, int]) -> None:
        """Read these from now on, from these offsets."""
        self._consumer.assign(native_partitions(starts))
        for one, offset in starts.items():
            self._consumer.seek(TopicPartition(*one), offset)

    def read(self, limit: int, timeout: float, full: Collection[Partition]) -> Mapping[Partition, Records]:
        """Give some records; of `full` partitions none are wanted."""
        self._consumer.pause(*native_partitions(full))
        found = self._ask(self._consumer.poll, timeout * 1000, limit)
        return {Partition(*one): records for one, records in found.items()}

    def position(self, partition: Partition) -> int:
        """Give the offset below which everything was read."""
        return self._ask(self._consumer.position, TopicPartition(*partition)) or 0

    def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(Exception):  # it only read, so there is nothing to save
            self._consumer.close(autocommit=False, timeout_ms=500)
        self._client.close()
