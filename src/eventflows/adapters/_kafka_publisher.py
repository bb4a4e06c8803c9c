"""Publishing to one topic."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Final

from eventflows.adapters._entered import Entered
from eventflows.adapters._kafka_check import check_destination
from eventflows.adapters._kafka_clients import Producer, Sent, client_of
from eventflows.adapters._kafka_records import columns_of, records_of
from eventflows.errors import BrokerError, ClosedError, ThrottledError
from eventflows.message import Batch, Message
from eventflows.protocols import Capabilities, Finding, Location, Pending, Publisher, PublishResult

MAX_UNCONFIRMED: Final = 64 * 1024 * 1024


_all: weakref.WeakSet[KafkaPublisher] = weakref.WeakSet()
_of_the_parent: list[object] = []


class KafkaPublisher(Entered):
    """Writes to one topic.

    Args:
        location: The destination.
        options: See `_kafka_options.DESTINATION`.
        capabilities: What is claimed.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.location = location
        self.options = options
        self._topic = location.path
        self._producer: Producer | None = None
        self._closed = False
        self._lock = threading.RLock()
        self._sent: deque[tuple[Sent, int]] = deque()
        self._unconfirmed = 0
        _all.add(self)

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect, and look whether the topic is there."""
        with self._lock:
            self._drop(1.0)
            self._producer = client_of(self.options).producer(self.location, self.options, timeout)
            self._closed = False
            try:
                self._producer.find(self._topic)
            except BrokerError:
                self._drop(0.0)
                raise

    @property
    def where(self) -> str:
        """The destination's URL, shown."""
        return self.location.text

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: not connected, or it does not say."""
        return None if self._producer is None else self._producer.cluster

    def transact(
        self, parts: Sequence[tuple[Publisher, Sequence[Message]]], position: object, *, timeout: float = 30.0
    ) -> list[PublishResult]:
        """Publish and commit as one."""
        from eventflows.adapters._kafka_transactions import Position

        assert isinstance(position, Position)  # noqa: S101 - for the type checker: as of claim_position
        records: list[tuple[str, dict[str, Any] | BrokerError]] = []
        for publisher, messages in parts:
            assert isinstance(publisher, KafkaPublisher)  # noqa: S101 - for the type checker: as share_transactions saw
            records += [(publisher._topic, record) for record in records_of(Batch.of(messages))]
        return position.transactor.transact(records, position, timeout)

    def send(self, batch: Sequence[Message]) -> Pending:
        """Start to publish; blocks while too much is unconfirmed."""
        with self._lock:
            return self._send(batch, 30.0)

    def _send(self, batch: Sequence[Message], timeout: float) -> Sent:
        if self._closed:
            raise ClosedError(f"{self.where} was closed; open it again, or make a new one.")
        batch = Batch.of(batch)
        columns, size = columns_of(batch), batch.size
        if columns is not None:
            sent = self._ready(size, timeout).send_columns(self._topic, columns)
        else:
            records, faults = records_of(batch), []
            for record in records:
                if not isinstance(record, BrokerError):
                    break
                faults.append(record)
            else:
                return _Faulty(faults)
            sent = self._ready(size, timeout).send(self._topic, chain(faults, [record], records))
        self._sent.append((sent, size))
        self._unconfirmed += size
        return sent

    def _ready(self, size: int, timeout: float) -> Producer:
        """Give a producer that knows the topic, once there is room for so many bytes."""
        if self._producer is None:
            self.open(timeout=timeout)
        assert self._producer is not None  # noqa: S101 - for the type checker: opened above
        if not self._producer.knows(self._topic):
            self._producer.find(self._topic)
        self._make_room(size, timeout)
        return self._producer

    def _make_room(self, size: int, timeout: float) -> None:
        while self._sent:
            oldest, freed = self._sent[0]
            if not oldest.done:
                if self._unconfirmed + size <= MAX_UNCONFIRMED:
                    return
                oldest.results(timeout)
                if not oldest.done:
                    raise ThrottledError(f"{self.where}: {self._unconfirmed} bytes are unconfirmed.")
            self._sent.popleft()
            self._unconfirmed -= freed

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish and wait for the answers."""
        deadline = time.monotonic() + timeout
        with self._lock:
            sent = self._send(batch, timeout)
        return sent.results(max(deadline - time.monotonic(), 0.0))

    def check(self) -> Sequence[Finding]:
        """Say whether brokers and topic can be used."""
        return check_destination(client_of(self.options), self.location, self.options)

    def close(self, *, timeout: float = 30.0) -> None:
        """Send what was given to `send`, then disconnect."""
        with self._lock:
            self._closed = True
            self._drop(timeout)

    def _drop(self, timeout: float) -> None:
        producer, self._producer = self._producer, None
        self._sent.clear()
        self._unconfirmed = 0
        if producer is not None:
            producer.close(timeout)


class _Faulty:
    """The answers for messages of which none can be sent."""

    done = True

    def __init__(self, faults: Sequence[BrokerError]) -> None:
        self._faults = faults

    def results(self, timeout: float) -> list[PublishResult]:
        """Give them."""
        return [PublishResult(None, fault) for fault in self._faults]


def _after_fork() -> None:
    for publisher in list(_all):
        publisher._lock = threading.RLock()
        if publisher._producer is not None:
            # The parent's sockets are not ours to close: kept, so that nothing is finalised.
            publisher._producer.leave()
            _of_the_parent.append(publisher._producer)
            publisher._producer = None
            publisher._sent, publisher._unconfirmed = deque(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
