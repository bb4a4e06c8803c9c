"""Publishing to Event Hubs: batches of a key or a partition, an answer for each event."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

import attrs

from eventflows.adapters._azure import WRITE, mend
from eventflows.adapters._eventhubs_errors import condition_of, translate
from eventflows.adapters._eventhubs_events import Event
from eventflows.adapters._eventhubs_place import connect, place_of
from eventflows.adapters._eventhubs_wire import outgoing
from eventflows.adapters._owner import Owner
from eventflows.errors import (
    BrokerError,
    ClosedError,
    ConnectionFailedError,
    InvalidMessageError,
    OutcomeUnknownError,
    TooLargeError,
)
from eventflows.message import Message
from eventflows.protocols import Capabilities, Finding, Location, Pending, PublishResult

DETACHED: Final = "amqp:link:detach-forced"
LONGEST_SEND: Final = 60.0
"""Seconds for a batch that was given to `send`."""


class EventHubsPublisher:
    """Writes to one hub.

    Args:
        location: The destination.
        options: `connection-string` or `credential`.
        capabilities: Of Event Hubs; the largest message is the link's own once it is open.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self._place = place_of(location)
        self._options = options
        self._lock = threading.Lock()
        self._owner: Owner | None = None
        self._client: Any = None
        self._closed = False

    def __repr__(self) -> str:
        """Show the URL."""
        return f"EventHubsPublisher({self._place.text!r})"

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and attach a link.

        Raises:
            NotFoundError: The hub is not there. Create it.
            AuthenticationError: Correct the credentials.
            ConnectionFailedError: It is worth trying again.
        """
        with self._lock:
            self._closed = False
            self._let_go()
            self._open(timeout)

    def _open(self, timeout: float) -> Owner:
        owner = self._owner = Owner("eventflows-eventhubs-publisher", self._place.text)
        try:
            most = owner.call(self._connect, timeout, "open")
        except OutcomeUnknownError as error:
            self._let_go()
            raise ConnectionFailedError(f"{self._place.text} did not answer within {timeout:g} s.") from error
        except BaseException:
            self._let_go()
            raise
        self.capabilities = attrs.evolve(self.capabilities, max_publish_bytes=most)
        return owner

    def _connect(self) -> int:
        from azure.eventhub import EventHubProducerClient

        # Retries are the core's.
        self._client = connect(EventHubProducerClient, self._place, self._options, retry_total=0)
        try:
            return int(self._client.create_batch().max_size_in_bytes)
        except Exception as error:
            raise translate(error, self._place.text, "open") from error

    def _let_go(self) -> Future[None] | None:
        owner, client = self._owner, self._client
        self._owner = self._client = None
        if owner is None:
            return None

        def close() -> None:
            if client is not None:
                with contextlib.suppress(Exception):  # it is thrown away, whatever state it is in
                    client.close()

        closing = owner.start(close)
        owner.end()
        return closing

    def send(self, batch: Sequence[Message]) -> Pending:
        """Start to publish."""
        return self._send(batch, LONGEST_SEND)

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish and wait for the answers."""
        return self._send(batch, timeout).results(timeout)

    def _send(self, batch: Sequence[Message], timeout: float) -> _Sent:
        deadline = time.monotonic() + timeout
        if self._owner is not None and self._owner.elsewhere:  # forked: the connection, and perhaps the lock, are
            self._lock = threading.Lock()  # the parent's
            self._owner = self._client = None
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._place.text} was closed; open it again, or make a new one.")
            if self._owner is not None and (self._owner.hangs or self._owner.overdue("publish")):
                self._let_go()
            owner = self._owner or self._open(timeout)
            work = _Work(batch, self._client, self._place.text, deadline)
            return _Sent(work, owner.start(work.run, by=deadline), self._place.text)

    def check(self) -> Sequence[Finding]:
        """Look whether it can be reached, and lets us send."""
        try:
            self.open()
        except BrokerError as error:
            fix = mend(error, missing="Create the hub, or correct the URL.", denied=WRITE)
            return [Finding("error", str(error), fix)]
        most = self.capabilities.max_publish_bytes
        self.close()
        return [Finding("ok", f"{self._place.text} can be written to; a publication has at most {most} bytes")]

    def close(self, *, timeout: float = 30.0) -> None:
        """Send what was given to `send`, then disconnect; the second call does nothing."""
        with self._lock:
            self._closed = True
            closing = self._let_go()
        if closing is not None:
            with contextlib.suppress(TimeoutError):  # a call that hangs is left behind
                closing.result(max(timeout, 0.0))

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class _Work:
    """One batch on its way: by key and partition, cut to what the link takes, an answer for each message."""

    def __init__(self, batch: Sequence[Message], client: Any, place: str, deadline: float) -> None:  # noqa: ANN401
        self._batch = batch
        self._client = client
        self._place = place
        self._deadline = deadline
        self.results: list[PublishResult | None] = [None] * len(batch)

    def run(self) -> None:
        """Send everything, group by group; a group that fails does not stop the others."""
        groups: dict[tuple[str | None, str | None], list[tuple[int, Event]]] = {}
        for index, message in enumerate(self._batch):
            try:
                event = outgoing(message)
            except InvalidMessageError as error:
                self.results[index] = PublishResult(None, error)
                continue
            partition = message.options.get("partition")
            where = message.key, None if partition is None else str(partition)
            groups.setdefault(where, []).append((index, event))
        for (key, partition), events in groups.items():
            where_to = {"partition_key": key} if key is not None else {"partition_id": partition} if partition else {}
            try:
                self._send_group(events, where_to)
            except Exception as error:  # noqa: BLE001 - each error of the client is the answer of what is not sent
                ours = error if isinstance(error, BrokerError) else translate(error, self._place, "publish")
                for index, _ in events:
                    self.results[index] = self.results[index] or PublishResult(None, ours)

    def _send_group(self, events: Sequence[tuple[int, Event]], where: Mapping[str, str]) -> None:
        envelope, pending = self._client.create_batch(**where), list[tuple[int, Event]]()
        for index, event in events:
            if not _added(envelope, event):
                if pending:
                    self._flush(envelope, pending, where)
                    envelope, pending = self._client.create_batch(**where), []
                if not _added(envelope, event):
                    self.results[index] = PublishResult(None, self._too_large(envelope))
                    continue
            pending.append((index, event))
        if pending:
            self._flush(envelope, pending, where)

    def _too_large(self, envelope: Any) -> TooLargeError:  # noqa: ANN401 - the client's batch
        return TooLargeError(f"{self._place}: this link takes {envelope.max_size_in_bytes} bytes in all.")

    def _flush(self, envelope: Any, pending: list[tuple[int, Event]], where: Mapping[str, str]) -> None:  # noqa: ANN401
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise OutcomeUnknownError(f"{self._place}: no time was left to send; nothing of it was sent.")
        error: BrokerError | None = None
        try:
            self._send(envelope, left)
        except Exception as native:  # noqa: BLE001 - the table knows it
            error = translate(native, self._place, "publish")
        alone = isinstance(error, (InvalidMessageError, TooLargeError))
        if alone and len(pending) > 1:  # one of them is at fault, and the service does not say which
            for one in pending:
                single = self._client.create_batch(**where)
                single.add(one[1])
                self._flush(single, [one], where)
            return
        if error is not None and not alone:
            raise error
        for index, _ in pending:
            self.results[index] = PublishResult(None, error) if error else PublishResult(self._batch[index].id, None)

    def _send(self, envelope: Any, left: float) -> None:  # noqa: ANN401 - the client's batch
        try:
            self._client.send_batch(envelope, timeout=left)
        except Exception as error:
            if condition_of(error) != DETACHED:
                raise
            # The service detaches links that were idle for some minutes, and the client says so at the next send.
            self._client.send_batch(envelope, timeout=left)


def _added(envelope: Any, event: Event) -> bool:  # noqa: ANN401 - the client's batch
    """Add an event to a batch; false: it does not fit."""
    try:
        envelope.add(event)
    except ValueError:
        return False
    return True


class _Sent:
    """A batch that was given to the thread of the client."""

    def __init__(self, work: _Work, future: Future[None], place: str) -> None:
        self._work = work
        self._future = future
        self._place = place

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the answers."""
        with contextlib.suppress(TimeoutError):
            self._future.result(max(timeout, 0.0))
        unknown = OutcomeUnknownError(f"{self._place} did not answer within {timeout:g} s; it may have the message.")
        return [PublishResult(None, unknown) if one is None else one for one in list(self._work.results)]
