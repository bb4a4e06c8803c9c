"""A producer of kafka-python. It is not idempotent: kafka-python's is stuck for good after one expired batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, Final

import kafka.errors as native

from eventflows.adapters._kafka_clients import Options
from eventflows.adapters._kafka_errors import beside, missing
from eventflows.adapters._kafka_publisher import MAX_BYTES
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_config import client_config
from eventflows.adapters._kafka_python_errors import translate
from eventflows.errors import BrokerError, InvalidMessageError, OutcomeUnknownError
from eventflows.protocols import Location, PublishResult
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


class _Sent:
    """Records on their way, one future or one error for each message."""

    def __init__(self, futures: list[Any], where: str) -> None:
        self._futures = futures
        self._where = where

    @property
    def done(self) -> bool:
        return all(isinstance(one, BrokerError) or one.is_done for one in self._futures)

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the broker's answers."""
        deadline = time.monotonic() + timeout
        return [self._result(one, deadline) for one in self._futures]

    def _result(self, future: Any, deadline: float) -> PublishResult:  # noqa: ANN401 - the client's own
        if isinstance(future, BrokerError):
            return PublishResult(None, future)
        try:
            told = future.get(max(deadline - time.monotonic(), 0.0))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer for this message
            if not future.is_done:
                late = OutcomeUnknownError(
                    f"{self._where}: no answer in time; the message may be there, or come later."
                )
                late.__cause__ = error
                return PublishResult(None, late)
            if type(error) is native.KafkaError:  # the broker names those that it refuses; this is not one of them
                return PublishResult(None, beside(self._where, error))
            return PublishResult(None, translate(error, self._where))
        return PublishResult(f"{told.partition}:{told.offset}", None)


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

    def send(self, topic: str, records: Sequence[dict[str, Any] | BrokerError]) -> _Sent:
        """Start to publish; what is an error already is its own answer."""
        return _Sent([self._start(topic, record) for record in records], self._where)

    def _start(self, topic: str, record: dict[str, Any] | BrokerError) -> Any:  # noqa: ANN401 - the client's own
        if isinstance(record, BrokerError):
            return record
        try:
            return self._producer.send(topic, **record)
        except (ValueError, TypeError, AssertionError) as error:
            ours = InvalidMessageError(f"{self._where}: {error}")
            ours.__cause__ = error
            return ours
        except Exception as error:  # noqa: BLE001 - the answer for this message
            return translate(error, self._where)

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
