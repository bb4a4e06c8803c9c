"""Waiting for something to become true, and calls that may hang, without blind sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def pass_time(seconds: float) -> None:
    """Let real time pass, where passing time is the subject itself: a lease, a delay, long work.

    Args:
        seconds: How long.
    """
    threading.Event().wait(seconds)


def wait_until(
    condition: Callable[[], T], timeout: float = 10.0, *, what: str = "the condition", every: float = 0.01
) -> T:
    """Wait until a condition holds, and give what it gave.

    Args:
        condition: Called again and again; anything true ends the wait.
        timeout: Seconds, at most.
        what: What is waited for, for the failure's text.
        every: Seconds between two calls.

    Raises:
        AssertionError: It did not hold in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s (last seen: {value!r})")
        pass_time(every)


class Background(Generic[T]):
    """A call on a daemon thread: one that hangs fails its test and nothing else.

    Args:
        call: Started at once.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="conformance-call")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            self._error = error

    @property
    def running(self) -> bool:
        """Whether the call has not returned yet."""
        return self._thread.is_alive()

    def result(self, timeout: float, what: str = "the call") -> T:
        """Wait for the call and give what it gave, or raise what it raised.

        Args:
            timeout: Seconds, at most.
            what: What is waited for, for the failure's text.

        Raises:
            AssertionError: It is still running.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise AssertionError(f"{what}: still not back after {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._value[0]
