"""A producer of kafka-python. It is not idempotent: kafka-python's is stuck for good after one expired batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, Final

from eventflows.adapters._kafka_clients import Options
from eventflows.adapters._kafka_errors import missing
from eventflows.adapters._kafka_python_batches import Batches, Sent
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_config import client_config
from eventflows.adapters._kafka_python_errors import translate
from eventflows.adapters._kafka_python_gone import GoneTopics
from eventflows.adapters._kafka_records import MAX_BYTES, Outgoing
from eventflows.errors import BrokerError, OutcomeUnknownError
from eventflows.protocols import Location
from kafka import KafkaProducer

METADATA_SECONDS: Final = 5.0


def producer_config(location: Location, options: Options, timeout: float) -> dict[str, Any]:
    """Give what every producer of ours is told; reads secrets and files.

    Raises:
        ConfigError: A secret, a CA or a certificate cannot be read.
    """
    compression = options.get("compression", "none")
    return client_config(location, options) | {
        "acks": "all",
        "compression_type": None if compression == "none" else compression,
        "linger_ms": int(float(str(options.get("linger", 0))) * 1000),
        "batch_size": 131_072,
        "max_request_size": MAX_BYTES + 48_000,
        "max_block_ms": int(min(METADATA_SECONDS, timeout) * 1000),
        "allow_auto_create_topics": False,
    }


class PythonProducer:
    """A connected producer.

    Args:
        location: The destination.
        options: Its options.
        timeout: Seconds for connecting.
    """

    def __init__(self, location: Location, options: Options, timeout: float) -> None:
        self._where = location.text
        config = producer_config(location, options, timeout) | {
            "enable_idempotence": False,
            "max_in_flight_requests_per_connection": 1,  # more would let a retried batch overtake: order per key
            "request_timeout_ms": 10_000,
            "delivery_timeout_ms": 30_000,
        }
        self._producer, _ = build(KafkaProducer, config, self._where, timeout)
        GoneTopics(self._producer)
        self._batches = Batches(self._producer, self._where)

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: it does not say."""
        found: str | None = self._producer._metadata.cluster_id
        return found

    def knows(self, topic: str) -> bool:
        """Whether it knows a topic without asking."""
        return self._producer._metadata.partitions_for_topic(topic) is not None

    def find(self, topic: str) -> None:
        """See that a topic is there, and may be used."""
        try:
            self._producer.partitions_for(topic)
        except Exception as error:
            ours = translate(error, self._where)
            raise (missing(self._where, topic) if isinstance(ours, OutcomeUnknownError) else ours) from error

    def send(self, topic: str, records: Iterable[dict[str, Any] | BrokerError]) -> Sent:
        """Start to publish; what is an error already is its own answer."""
        return self._batches.send(topic, list(records))

    def send_columns(self, topic: str, columns: Outgoing) -> Sent:
        """Start to publish what needs no look."""
        return self._batches.send(topic, columns.records())

    def close(self, timeout: float) -> None:
        """Send what was given, then disconnect; always disconnects."""
        with contextlib.suppress(Exception):  # a time-out of its flush, before it has closed anything
            self._producer.close(timeout)
        if not self._producer._closed:
            self._producer._sender.force_close()
            self._producer._sender.join(1.0)
            self._producer._closed = True

    def leave(self) -> None:
        """Touch nothing of it any more: it is the parent's, from before a fork."""
        self._producer._unregister_cleanup()
