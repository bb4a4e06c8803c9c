"""Publishing to Service Bus: batches to the link's own limit, an answer for each message."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

import attrs

from eventflows.adapters._azure import WRITE, mend
from eventflows.adapters._owner import Owner
from eventflows.adapters._servicebus_errors import OPEN, PUBLISH, translate
from eventflows.adapters._servicebus_link import close_all
from eventflows.adapters._servicebus_place import client_of, place_of
from eventflows.adapters._servicebus_types import Client, Outgoing, Sender
from eventflows.adapters._servicebus_wire import outgoing
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

LONGEST_SEND: Final = 60.0
"""Seconds for a batch that was given to `send`; without a time the client would wait for ever for an answer."""


class ServiceBusPublisher:
    """Writes to one queue or topic.

    Args:
        location: The destination.
        options: `connection-string` or `credential`.
        capabilities: Of Service Bus; the largest message is the link's own once it is open.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self._place = place_of(location, options)
        self._options = options
        self._lock = threading.Lock()
        self._owner: Owner | None = None
        self._client: Client | None = None
        self._sender: Sender | None = None
        self._closed = False

    def __repr__(self) -> str:
        """Show the URL."""
        return f"ServiceBusPublisher({self._place.text!r})"

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and attach the link.

        Raises:
            NotFoundError: The queue or topic is not there. Create it.
            AuthenticationError: Correct the credentials.
            PermissionDeniedError: Allow it to send.
            ConnectionFailedError: It is worth trying again.
        """
        with self._lock:
            self._closed = False
            self._let_go()
            self._open(timeout)

    def _open(self, timeout: float) -> Owner:
        owner = self._owner = Owner("eventflows-servicebus-publisher", self._place.text)
        try:
            most = owner.call(lambda: self._connect(timeout), timeout, OPEN)
        except OutcomeUnknownError as error:
            self._let_go()
            raise ConnectionFailedError(f"{self._place.text} did not answer within {timeout:g} s.") from error
        except BaseException:
            self._let_go()
            raise
        self.capabilities = attrs.evolve(self.capabilities, max_publish_bytes=most)
        return owner

    def _connect(self, timeout: float) -> int:
        client = client_of(self._place, self._options, retry_total=0, try_timeout=max(timeout, 0.1))
        # A topic and a queue are written to alike; the client's two methods differ in name only.
        sender = client.get_queue_sender(self._place.entity)
        self._client, self._sender = client, sender
        try:
            sender.__enter__()
            return int(sender.create_message_batch().max_size_in_bytes)
        except Exception as error:
            raise translate(error, self._place.text, OPEN) from error

    def _let_go(self) -> Future[None] | None:
        """Close the client on its own thread, where what hangs is left behind; gives the end of what was to be sent.

        Everything is confirmed by then. The client's own end takes it up to a second, in which it waits for a thread
        of its own that sleeps.
        """
        owner, client, sender = self._owner, self._client, self._sender
        self._owner = self._client = self._sender = None
        if owner is None:
            return None
        sent = owner.start(lambda: None)
        owner.start(functools.partial(close_all, sender, client))
        owner.end()
        return sent

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
            self._owner = self._client = self._sender = None
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._place.text} was closed; open it again, or make a new one.")
            if self._owner is not None and (self._owner.hangs or self._owner.overdue("publish")):
                self._let_go()
            owner = self._owner or self._open(timeout)
            sender = self._sender
        work = _Batch(batch, sender, self._place.text, deadline)
        return _Sent(work, owner.start(work.run, by=deadline), self._place.text)

    def check(self) -> Sequence[Finding]:
        """Look whether it can be reached, and lets us send."""
        try:
            self.open()
        except BrokerError as error:
            fix = mend(error, missing="Create the queue or topic, or correct the URL.", denied=WRITE)
            return [Finding("error", str(error), fix)]
        most = self.capabilities.max_publish_bytes
        self.close()
        return [Finding("ok", f"{self._place.text} can be written to; a message has at most {most} bytes")]

    def close(self, *, timeout: float = 30.0) -> None:
        """Send what was given to `send`, then disconnect; the second call does nothing."""
        with self._lock:
            self._closed = True
            sent = self._let_go()
        if sent is not None:
            with contextlib.suppress(TimeoutError):  # a call that hangs is left behind
                sent.result(max(timeout, 0.0))

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class _Batch:
    """One batch on its way: cut to what the link takes, in order, an answer for each message."""

    def __init__(self, batch: Sequence[Message], sender: Any, place: str, deadline: float) -> None:  # noqa: ANN401
        self._batch = batch
        self._sender = sender
        self._place = place
        self._deadline = deadline
        self.results: list[PublishResult | None] = [None] * len(batch)

    def run(self) -> None:
        """Send everything; after a failure that is not one message's own, nothing more is sent."""
        pending: list[tuple[int, Outgoing]] = []
        envelope = None
        try:
            for index, message in enumerate(self._batch):
                try:
                    native = outgoing(message)
                except InvalidMessageError as error:
                    self.results[index] = PublishResult(None, error)
                    continue
                if envelope is None:
                    envelope = self._sender.create_message_batch()
                if not _added(envelope, native) and pending:
                    self._flush(envelope, pending)
                    envelope, pending = self._sender.create_message_batch(), []
                    if not _added(envelope, native):
                        self.results[index] = PublishResult(None, self._too_large(message, envelope))
                        continue
                elif len(envelope) == len(pending):
                    self.results[index] = PublishResult(None, self._too_large(message, envelope))
                    continue
                pending.append((index, native))
            if pending:
                self._flush(envelope, pending)
        except Exception as error:  # noqa: BLE001 - each error of the client becomes the answer of what is not sent
            ours = error if isinstance(error, BrokerError) else translate(error, self._place, PUBLISH)
            self.results = [PublishResult(None, ours) if one is None else one for one in self.results]

    def _too_large(self, message: Message, envelope: Any) -> TooLargeError:  # noqa: ANN401
        return TooLargeError(
            f"{self._place}: a message of {len(message.body or b'')} bytes and its headers; this link takes "
            f"{envelope.max_size_in_bytes} bytes in all."
        )

    def _flush(self, envelope: Any, pending: list[tuple[int, Outgoing]]) -> None:  # noqa: ANN401
        error = self._try(envelope if len(pending) > 1 else pending[0][1])
        alone = isinstance(error, (InvalidMessageError, TooLargeError))
        if alone and len(pending) > 1:  # one of them is at fault, and the service does not say which
            for one in pending:
                self._flush(None, [one])
            return
        if error is not None and not alone:
            raise error
        for index, _ in pending:
            self.results[index] = PublishResult(None if error else self._batch[index].id, error)

    def _try(self, what: Any) -> BrokerError | None:  # noqa: ANN401
        left = self._deadline - time.monotonic()
        if left <= 0:
            return OutcomeUnknownError(f"{self._place}: no time was left to send; nothing of it was sent.")
        try:
            self._sender.send_messages(what, timeout=left)
        except Exception as error:  # noqa: BLE001 - the table knows it
            return translate(error, self._place, PUBLISH)
        return None


def _added(envelope: Any, native: Outgoing) -> bool:  # noqa: ANN401 - the client's batch
    """Add a message to a batch; false: it does not fit."""
    try:
        envelope.add_message(native)
    except Exception as error:
        if type(error).__name__ != "MessageSizeExceededError":
            raise
        return False
    return True


class _Sent:
    """A batch that was given to the thread of the client."""

    def __init__(self, work: _Batch, future: Future[None], place: str) -> None:
        self._work = work
        self._future = future
        self._place = place

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the answers."""
        with contextlib.suppress(TimeoutError):
            self._future.result(max(timeout, 0.0))
        unknown = OutcomeUnknownError(f"{self._place} did not answer within {timeout:g} s; it may have the message.")
        return [PublishResult(None, unknown) if one is None else one for one in list(self._work.results)]
