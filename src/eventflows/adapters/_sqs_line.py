"""Calls that several senders share: what waits while others are out goes together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final

import attrs

from eventflows.adapters._sqs_threads import Threads
from eventflows.adapters._sqs_wire import MAX_BYTES, Written
from eventflows.protocols import PublishResult

BATCH: Final = 10
"""Entries of one batch. Source: Amazon SQS API reference, SendMessageBatch."""


@attrs.define(eq=False)
class Part:
    """What one sender wants sent together."""

    messages: Sequence[tuple[int, Written]]
    """Each with its place in what it was sent with."""
    answer: Callable[[int, PublishResult], None]
    """Takes what became of each, by its place."""
    done: Future[None] = attrs.field(factory=Future)
    """Ends when each is answered; cancelled before it began, none of it is sent."""

    @property
    def size(self) -> int:
        """Bytes, as the service counts them."""
        return sum(written.size for _, written in self.messages)


class Line:
    """Parts that wait for a call. One that comes while a thread is free goes at once, alone.

    Args:
        threads: Make the calls.
        send: Sends parts, in as many calls as they need; it answers each, and raises nothing.
    """

    def __init__(self, threads: Threads, send: Callable[[list[Part]], None]) -> None:
        self._threads = threads
        self._send = send
        self._waiting: deque[Part] = deque()
        self._lock = threading.Lock()

    def put(self, part: Part) -> None:
        """Have a part sent."""
        with self._lock:
            self._waiting.append(part)
        self._threads.start(self._next)  # a turn for each; where its part went with another's, the turn finds less

    def close(self) -> None:
        """Let the threads end once everything that waits is sent."""
        self._threads.close()

    def _next(self) -> None:
        parts = self._take()
        if parts:
            self._send(parts)
            for part in parts:
                part.done.set_result(None)

    def _take(self) -> list[Part]:
        """Take the first that waits, and those behind it that fit into one call with it."""
        parts: list[Part] = []
        count = size = 0
        with self._lock:
            while self._waiting:
                part = self._waiting[0]
                if parts and (count + len(part.messages) > BATCH or size + part.size > MAX_BYTES):
                    break
                self._waiting.popleft()
                if part.done.set_running_or_notify_cancel():
                    parts.append(part)
                    count, size = count + len(part.messages), size + part.size
        return parts
