"""Calls of a client that cannot be interrupted, on threads that can be left behind."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

T = TypeVar("T")

IDLE: Final = 5.0
"""Seconds after which a thread without work ends."""

# The pool of `concurrent.futures` joins its threads when the interpreter ends: a call that hangs would hold it up.


class Threads:
    """A few daemon threads that make calls.

    Args:
        most: Threads at once.
        name: Of each.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._ready = threading.Condition()
        self._work: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._count = 0
        self._free = 0
        self._closed = False

    def start(self, call: Callable[[], T]) -> Future[T]:
        """Make a call as soon as a thread is free; at once while there are fewer than `most`."""
        future: Future[T] = Future()
        with self._ready:
            self._work.append((future, call))
            if self._free >= len(self._work):
                self._ready.notify()
            elif self._count < self._most:
                self._count += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end once their calls have."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._free += 1
                try:
                    if not self._work and not self._closed:
                        self._ready.wait_for(lambda: self._work or self._closed, IDLE)
                    if not self._work:
                        self._count -= 1
                        return
                    future, call = self._work.popleft()
                finally:
                    self._free -= 1
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
                    future.set_exception(error)
            del future, call


def until(futures: Sequence[Future[T]], deadline: float) -> list[T | BaseException | None]:
    """Wait for calls until a time of `time.monotonic()`; gives results, errors, and None for what is not back.

    What has not begun by then is never made.
    """
    results: list[T | BaseException | None] = []
    for future in futures:
        try:
            error = future.exception(max(deadline - time.monotonic(), 0.0))
            results.append(future.result() if error is None else error)
        except TimeoutError:
            future.cancel()
            results.append(None)
    return results
