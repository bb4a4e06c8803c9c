"""One thread that owns a client: calls are made on it one by one, and one that hangs is left behind."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

from eventflows.errors import ConnectionFailedError, OutcomeUnknownError

T = TypeVar("T")

MOMENT: Final = 2.0
"""Seconds by which a call of a client may pass the time that it was given."""


class Owner:
    """A thread that makes calls of a client that is not safe for threads.

    Calls come back in their time or not at all: after one that did not, the client is lost, and every later call
    says so. The thread is a daemon: what hangs in it holds nothing up.

    Args:
        name: Of the thread.
        place: What errors name.
    """

    def __init__(self, name: str, place: str) -> None:
        self._place = place
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._hangs = ""
        self._due: deque[tuple[Future[Any], float]] = deque()
        """Calls that must be over by a time of `time.monotonic()`, in order."""
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> str:
        """The call that never came back; empty: all did."""
        return self._hangs

    @property
    def elsewhere(self) -> bool:
        """Whether it belongs to the process that this one was forked from, and its thread is not here."""
        return self._process != os.getpid()

    def start(self, call: Callable[[], T], *, by: float | None = None) -> Future[T]:
        """Make a call after those before it, without waiting; with `by` it ends itself by then, unless it hangs."""
        future: Future[T] = Future()
        if by is not None:
            self._due.append((future, by))
        self._calls.put((future, call))
        return future

    def overdue(self, doing: str) -> bool:
        """Say whether a call that should have ended itself hangs; one whose time is just over has a moment more."""
        while self._due and self._due[0][0].done():
            self._due.popleft()
        if not self._due or time.monotonic() < self._due[0][1]:
            return False
        if not wait([self._due[0][0]], MOMENT).done:
            self._hangs = doing
        return bool(self._hangs)

    def call(self, call: Callable[[], T], timeout: float, doing: str) -> T:
        """Make a call and wait for it.

        Raises:
            ConnectionFailedError: An earlier call hangs. Nothing was attempted; open again.
            OutcomeUnknownError: This one did not come back in time; open again.
        """
        if self._hangs:
            raise ConnectionFailedError(f"{self._place}: the client hangs in {self._hangs}; it is opened again.")
        future = self.start(call)
        try:
            return future.result(max(timeout, 0.0))
        except TimeoutError as error:
            if future.done():  # it is the call's own error
                raise
            self._hangs = doing
            raise OutcomeUnknownError(
                f"{self._place}: {doing} did not come back within {timeout:g} s; it is opened again."
            ) from error

    def end(self) -> None:
        """Let the thread end after the calls before."""
        self._calls.put(None)

    def _run(self) -> None:
        while (work := self._calls.get()) is not None:
            future, call = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
                    future.set_exception(error)
            del work, future, call


def close_all(*handlers: Any) -> None:  # noqa: ANN401 - the client's own; None: there was none
    """Close parts of the client."""
    for one in handlers:
        if one is not None:
            with contextlib.suppress(Exception):  # it is thrown away, whatever state it is in
                one.close()
