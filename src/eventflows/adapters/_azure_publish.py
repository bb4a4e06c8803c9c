"""What the publishers of both brokers share: a client on a thread of its own, and answers that come in time."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import ClassVar, Final, Protocol

import attrs

from eventflows.adapters._azure import OPEN, PUBLISH, WRITE, mend
from eventflows.adapters._entered import Entered
from eventflows.adapters._owner import Owner
from eventflows.errors import BrokerError, ClosedError, ConnectionFailedError, OutcomeUnknownError
from eventflows.message import Message
from eventflows.protocols import Capabilities, Finding, Pending, PublishResult

LONGEST_SEND: Final = 60.0
"""Seconds for a batch that was given to `send`; without a time a client would wait for ever for an answer."""


class Work(Protocol):
    """One batch on its way."""

    results: list[PublishResult | None]
    """One for each message; None: there is no answer yet."""

    def run(self) -> None:
        """Send everything, on the client's thread; ends by its deadline, and raises nothing."""


class AzurePublisher(Entered):
    """Writes to one place through a client.

    Args:
        place: The destination's URL, shown.
        options: `connection-string` or `credential`.
        capabilities: Of the broker; the largest message is the link's own once it is open.
    """

    broker: ClassVar[str]
    """In the name of the thread."""
    missing: ClassVar[str]
    """What to do where the place is not there."""
    unit: ClassVar[str]
    """What the link bounds the bytes of."""

    def __init__(self, place: str, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self._shown = place
        self._options = options
        self._lock = threading.Lock()
        self._owner: Owner | None = None
        self._closed = False

    def __repr__(self) -> str:
        """Show the URL."""
        return f"{type(self).__name__}({self._shown!r})"

    @abstractmethod
    def _connect(self, timeout: float) -> int:
        """Make a client and attach its link, on the client's thread; gives the bytes that the link takes."""

    @abstractmethod
    def _forget(self) -> Callable[[], None]:
        """Give the client out of hand; gives what closes it, which raises nothing."""

    @abstractmethod
    def _work(self, batch: Sequence[Message], deadline: float) -> Work:
        """Make what sends a batch through the client, by a time of `time.monotonic()`."""

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and attach the link.

        Raises:
            NotFoundError: What is to be written to is not there. Create it.
            AuthenticationError: Correct the credentials.
            PermissionDeniedError: Allow it to send.
            ConnectionFailedError: It is worth trying again.
        """
        with self._lock:
            self._closed = False
            self._let_go()
            self._open(timeout)

    def _open(self, timeout: float) -> Owner:
        owner = self._owner = Owner(f"eventflows-{self.broker}-publisher", self._shown)
        try:
            most = owner.call(lambda: self._connect(timeout), timeout, OPEN)
        except OutcomeUnknownError as error:
            self._let_go()
            raise ConnectionFailedError(f"{self._shown} did not answer within {timeout:g} s.") from error
        except BaseException:
            self._let_go()
            raise
        self.capabilities = attrs.evolve(self.capabilities, max_publish_bytes=most)
        return owner

    def _let_go(self) -> Future[None] | None:
        """Close the client on its own thread, where what hangs is left behind; gives the end of what was to be sent.

        Everything is confirmed by then. A client's own end may take up to a second, in which it waits for a thread
        of its own that sleeps.
        """
        owner, close = self._owner, self._forget()
        self._owner = None
        if owner is None:
            return None
        sent = owner.start(lambda: None)
        owner.start(close)
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
            self._owner = None
            self._forget()
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._shown} was closed; open it again, or make a new one.")
            if self._owner is not None and (self._owner.hangs or self._owner.overdue(PUBLISH)):
                self._let_go()
            owner = self._owner or self._open(timeout)
            work = self._work(batch, deadline)
            return _Sent(work, owner.start(work.run, by=deadline), self._shown)

    def check(self) -> Sequence[Finding]:
        """Look whether it can be reached, and lets us send."""
        try:
            self.open()
        except BrokerError as error:
            return [Finding("error", str(error), mend(error, missing=self.missing, denied=WRITE))]
        most = self.capabilities.max_publish_bytes
        self.close()
        return [Finding("ok", f"{self._shown} can be written to; {self.unit} has at most {most} bytes")]

    def close(self, *, timeout: float = 30.0) -> None:
        """Send what was given to `send`, then disconnect; the second call does nothing."""
        with self._lock:
            self._closed = True
            sent = self._let_go()
        if sent is not None:
            with contextlib.suppress(TimeoutError):  # a call that hangs is left behind
                sent.result(max(timeout, 0.0))


class _Sent:
    """A batch that was given to the thread of the client."""

    def __init__(self, work: Work, future: Future[None], place: str) -> None:
        self._work = work
        self._future = future
        self._place = place

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the answers."""
        with contextlib.suppress(TimeoutError):
            self._future.result(max(timeout, 0.0))
        unknown = OutcomeUnknownError(f"{self._place} did not answer within {timeout:g} s; it may have the message.")
        return [PublishResult(None, unknown) if one is None else one for one in list(self._work.results)]
