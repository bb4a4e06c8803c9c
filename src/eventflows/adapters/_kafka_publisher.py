"""Publishing to one topic. The producer is not idempotent: kafka-python's is stuck for good after one expired batch."""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_errors import translate
from eventflows.errors import (
    BrokerError,
    ClosedError,
    InvalidMessageError,
    NotFoundError,
    OutcomeUnknownError,
    ThrottledError,
    TooLargeError,
)
from eventflows.message import Message
from eventflows.protocols import Capabilities, Location, Pending, Publisher, PublishResult

MAX_BYTES: Final = 1_000_000
"""Body, key and headers; a topic takes batches of 1,048,588 bytes by default (its config `max.message.bytes`)."""
MAX_UNCONFIRMED: Final = 64 * 1024 * 1024
METADATA_SECONDS: Final = 5.0
ID_HEADER: Final = "ef-id"
TYPE_HEADER: Final = "content-type"
_OPTIONS: Final = {"partition", "timestamp"}


class _Sent:
    """Records on their way, one future or one error for each message."""

    def __init__(self, futures: list[Any], where: str, size: int) -> None:
        self._futures = futures
        self._where = where
        self.size = size

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
            return PublishResult(None, translate(error, self._where))
        return PublishResult(f"{told.partition}:{told.offset}", None)


_all: weakref.WeakSet[KafkaPublisher] = weakref.WeakSet()
_of_the_parent: list[object] = []


class KafkaPublisher:
    """Writes to one topic.

    Args:
        location: The destination.
        options: See `_kafka_options.DESTINATION`.
        capabilities: What is claimed.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self._location = location
        self._options = options
        self._topic = location.path
        self._producer: Any = None  # a KafkaProducer
        self._closed = False
        self._lock = threading.RLock()
        self._sent: deque[_Sent] = deque()
        self._unconfirmed = 0
        _all.add(self)

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect, and look whether the topic is there."""
        from eventflows.adapters._kafka_client import build
        from kafka import KafkaProducer

        with self._lock:
            self._drop(1.0)
            config = self.config(timeout) | {
                "enable_idempotence": False,
                "max_in_flight_requests_per_connection": 1,  # more would let a retried batch overtake: order per key
                "request_timeout_ms": 10_000,
                "delivery_timeout_ms": 30_000,
            }
            self._producer, _ = build(KafkaProducer, config, self._location.text, timeout)
            self._closed = False
            try:
                self._find_topic(self._producer)
            except BrokerError:
                self._drop(0.0)
                raise

    def config(self, timeout: float) -> dict[str, Any]:
        """Give what every producer of ours is told; reads secrets and files.

        Raises:
            ConfigError: A secret, a CA or a certificate cannot be read.
        """
        compression = self._options.get("compression", "none")
        return given.client_config(self._location, self._options) | {
            "acks": "all",
            "compression_type": None if compression == "none" else compression,
            "linger_ms": int(float(str(self._options.get("linger", 0))) * 1000),
            "batch_size": 131_072,
            "max_request_size": MAX_BYTES + 48_000,
            "max_block_ms": int(min(METADATA_SECONDS, timeout) * 1000),
            "allow_auto_create_topics": False,
        }

    @property
    def where(self) -> str:
        """The destination's URL, shown."""
        return self._location.text

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: not connected, or it does not say."""
        found: str | None = None if self._producer is None else self._producer._metadata.cluster_id
        return found

    def transact(
        self, parts: Sequence[tuple[Publisher, Sequence[Message]]], position: object, *, timeout: float = 30.0
    ) -> list[PublishResult]:
        """Publish and commit as one."""
        from eventflows.adapters._kafka_transactions import Position

        assert isinstance(position, Position)  # noqa: S101 - for the type checker: as of claim_position
        records: list[tuple[str, dict[str, Any] | BrokerError]] = []
        for publisher, messages in parts:
            assert isinstance(publisher, KafkaPublisher)  # noqa: S101 - for the type checker: as share_transactions saw
            records += [(publisher._topic, _record(message)) for message in messages]
        return position.transactor.transact(records, position, timeout)

    def _find_topic(self, producer: Any) -> None:  # noqa: ANN401 - the client's own
        try:
            producer.partitions_for(self._topic)
        except Exception as error:
            ours = translate(error, self._location.text)
            if isinstance(ours, OutcomeUnknownError):
                text = f"{self._location.text}: there is no topic {self._topic!r}. Create it, or correct the URL."
                ours = NotFoundError(text)
            raise ours from error

    def send(self, batch: Sequence[Message]) -> Pending:
        """Start to publish; blocks while too much is unconfirmed."""
        with self._lock:
            return self._send(batch, 30.0)

    def _send(self, batch: Sequence[Message], timeout: float) -> _Sent:
        if self._closed:
            raise ClosedError(f"{self._location.text} was closed; open it again, or make a new one.")
        records = [_record(message) for message in batch]
        if all(isinstance(record, BrokerError) for record in records):
            return _Sent(list(records), self._location.text, 0)
        if self._producer is None:
            self.open(timeout=timeout)
        producer = self._producer
        if producer._metadata.partitions_for_topic(self._topic) is None:
            self._find_topic(producer)
        size = sum(len(message.body or b"") for message in batch)
        self._make_room(size, timeout)
        sent = _Sent([self._start(producer, record) for record in records], self._location.text, size)
        self._sent.append(sent)
        self._unconfirmed += size
        return sent

    def _start(self, producer: Any, record: dict[str, Any] | BrokerError) -> Any:  # noqa: ANN401
        if isinstance(record, BrokerError):
            return record
        try:
            return producer.send(self._topic, **record)
        except (ValueError, TypeError, AssertionError) as error:
            return translate_as(InvalidMessageError, error, self._location.text)
        except Exception as error:  # noqa: BLE001 - the answer for this message
            return translate(error, self._location.text)

    def _make_room(self, size: int, timeout: float) -> None:
        while self._sent and (self._sent[0].done or self._unconfirmed + size > MAX_UNCONFIRMED):
            oldest = self._sent[0]
            if not oldest.done:
                oldest.results(timeout)
                if not oldest.done:
                    raise ThrottledError(f"{self._location.text}: {self._unconfirmed} bytes are unconfirmed.")
            self._sent.popleft()
            self._unconfirmed -= oldest.size

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish and wait for the answers."""
        deadline = time.monotonic() + timeout
        with self._lock:
            sent = self._send(batch, timeout)
        return sent.results(max(deadline - time.monotonic(), 0.0))

    def close(self, *, timeout: float = 30.0) -> None:
        """Send what was given to `send`, then disconnect."""
        with self._lock:
            self._closed = True
            self._drop(timeout)

    def _drop(self, timeout: float) -> None:
        producer, self._producer = self._producer, None
        self._sent.clear()
        self._unconfirmed = 0
        if producer is None:
            return
        with contextlib.suppress(Exception):  # a time-out of its flush, before it has closed anything
            producer.close(timeout)
        if not producer._closed:
            producer._sender.force_close()
            producer._sender.join(1.0)
            producer._closed = True

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def translate_as(kind: type[BrokerError], error: BaseException, where: str) -> BrokerError:
    """Give an error of a kind, with its cause."""
    ours = kind(f"{where}: {error}")
    ours.__cause__ = error
    return ours


def _record(message: Message) -> dict[str, Any] | BrokerError:
    """Give what the client's `send` takes, or the message's own fault."""
    try:
        return _checked(message)
    except BrokerError as error:
        return error
    except (UnicodeEncodeError, AttributeError, TypeError):
        return InvalidMessageError("headers, key, id and content type are text; one of them is not.")


def _checked(message: Message) -> dict[str, Any]:
    body, key = message.body, message.key
    if not (body is None or isinstance(body, bytes)):
        raise InvalidMessageError(f"a body is bytes; this one is {type(body).__name__}.")
    if body is None and key is None:
        raise InvalidMessageError("a tombstone (a body of None) needs a key.")
    headers = [(name, _bytes(value)) for name, value in message.headers.items()]
    if message.id is not None:
        headers.append((ID_HEADER, _bytes(message.id)))
    if message.content_type is not None:
        headers.append((TYPE_HEADER, _bytes(message.content_type)))
    record: dict[str, Any] = {"value": body, "key": None if key is None else _bytes(key), "headers": headers}
    size = len(body or b"") + len(record["key"] or b"")
    if headers:
        size += sum([len(name.encode("utf-8")) + len(value) + 10 for name, value in headers])
    if size > MAX_BYTES:
        raise TooLargeError(f"a message of {size} bytes, body, key and headers together; Kafka takes {MAX_BYTES}.")
    if message.options:
        record |= _options(message.options)
    return record


def _options(options: Mapping[str, object]) -> dict[str, Any]:
    unknown = sorted(set(options) - _OPTIONS)
    if unknown:
        raise InvalidMessageError(f"kafka has no message option {unknown[0]!r}; it has partition and timestamp.")
    found: dict[str, Any] = {}
    if "partition" in options:
        found["partition"] = options["partition"]
        if not isinstance(found["partition"], int):
            raise InvalidMessageError("partition is a whole number.")
    if "timestamp" in options:
        when = options["timestamp"]
        if not isinstance(when, datetime.datetime) or when.tzinfo is None:
            raise InvalidMessageError("timestamp is a datetime with a time zone.")
        found["timestamp_ms"] = int(when.timestamp() * 1000)
    return found


def _bytes(text: str) -> bytes:
    # What was no UTF-8 when it was received goes back to the same bytes.
    return text.encode("utf-8", "surrogateescape")


def _after_fork() -> None:
    for publisher in list(_all):
        publisher._lock = threading.RLock()
        if publisher._producer is not None:
            # The parent's sockets are not ours to close: kept, so that nothing is finalised.
            publisher._producer._unregister_cleanup()
            _of_the_parent.append(publisher._producer)
            publisher._producer = None
            publisher._sent, publisher._unconfirmed = deque(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
