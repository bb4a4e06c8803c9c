"""Long polls: on threads of their own, because nothing interrupts one, and with room reserved before each."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final

from eventflows.adapters._sqs_errors import translate
from eventflows.adapters._sqs_held import Entry, Holding
from eventflows.adapters._sqs_threads import Threads
from eventflows.errors import ClosedError
from eventflows.message import Lane

MOST: Final = 10
"""Messages of one ReceiveMessage. Source: Amazon SQS API reference."""
LONGEST_POLL: Final = 5
"""Seconds. The service allows 20; but a stop waits for the poll that is out, since a message that comes to a poll
nobody reads is hidden until its lease ends. A poll is as long as the queue has been silent, 1 second at least, and
no longer while something is held: what a stop releases waits for the poll that is out, which would receive it again."""
NO_ROOM: Final = 1.0
"""Seconds that a message waits here while the core takes nothing, as it does when it drains; then it is handed back."""
SHARE: Final = 4
"""A message that waits here for a quarter of its lease, because the core has no room for it, is handed back."""


class Polls:
    """Receives: as many polls as there is work for, never more messages than were asked for.

    Args:
        call: Makes one ReceiveMessage, of so many messages and seconds; gives boto3's messages.
        hand_back: Takes entries that nobody will work on; returns at once.
        give_up: The same of what comes after the end; returns when they are back.
        holding: Where arrivals are noted.
        most: Polls at once.
        visibility: Seconds of the lease.
        place: The queue, as shown.
    """

    def __init__(
        self,
        call: Callable[[int, int], list[dict[str, Any]]],
        hand_back: Callable[[list[Entry]], None],
        give_up: Callable[[list[Entry]], None],
        holding: Holding,
        *,
        most: int,
        visibility: float,
        place: str,
    ) -> None:
        self._call = call
        self._hand_back = hand_back
        self._give_up = give_up
        self._holding = holding
        self._most = most
        self._visibility = visibility
        self._place = place
        self._changed = threading.Condition()
        self._threads = Threads(most, "eventflows sqs poll")
        self._out = 0
        self._reserved = 0
        self._buffer: deque[Entry] = deque()
        self._late: list[dict[str, Any]] = []
        self._error: BaseException | None = None
        self._busy = False
        self._seen = time.monotonic()
        self._woken = False
        self._closed = False

    def receive(self, limit: int, max_bytes: int, timeout: float, skip: Collection[Lane]) -> list[Entry]:
        """Wait for messages; gives them as soon as there are some.

        Raises:
            BrokerError: A poll failed; each failure is raised once.
            ClosedError: It was closed meanwhile.
        """
        deadline = time.monotonic() + timeout
        while True:
            stale = self._stale(limit)
            if stale:
                self._hand_back(stale)
            with self._changed:
                if self._closed:
                    raise ClosedError(f"{self._place} was closed; open it again, or make a new one.")
                error, self._error = self._error, None
                if error is not None:
                    raise translate(error, self._place, "ReceiveMessage")
                taken = self._take(limit, max_bytes, skip)
                self._poll(limit - len(taken))
                if taken:
                    return taken
                left = deadline - time.monotonic()
                if self._woken or left <= 0:
                    self._woken = False
                    return []
                self._changed.wait(left)

    def _stale(self, limit: int) -> list[Entry]:
        longest = self._visibility / SHARE
        oldest = time.monotonic() - (longest if limit > 0 else min(longest, NO_ROOM))
        with self._changed:
            stale = []
            while self._buffer and self._buffer[0].received < oldest:
                stale.append(self._buffer.popleft())
            return stale

    def _take(self, limit: int, max_bytes: int, skip: Collection[Lane]) -> list[Entry]:
        if limit <= 0 or not self._buffer:
            return []
        taken: list[Entry] = []
        kept: list[Entry] = []
        size = 0
        while self._buffer and len(taken) < limit:
            entry = self._buffer[0]
            if skip and self._holding.lane_of(entry.group) in skip:
                kept.append(self._buffer.popleft())
                continue
            size += len(entry.body)
            if taken and size > max_bytes:
                break
            taken.append(self._buffer.popleft())
        self._buffer.extendleft(reversed(kept))
        return taken

    def _poll(self, room: int) -> None:
        """Start polls for the room that nothing is reserved for: one while the queue is silent, else up to `most`."""
        room -= self._reserved + len(self._buffer)
        while room > 0 and self._out < (self._most if self._busy else 1):
            count = min(room, MOST)
            room -= count
            self._out += 1
            self._reserved += count
            silent = int(time.monotonic() - self._seen)
            seconds = 1 if len(self._holding) else min(max(silent, 1), LONGEST_POLL)
            self._threads.start(functools.partial(self._run, count, seconds))

    def _run(self, count: int, seconds: int) -> None:
        natives: list[dict[str, Any]] = []
        error: BaseException | None = None
        try:
            natives = self._call(count, seconds)
        except Exception as failure:  # noqa: BLE001 - raised to whoever receives next
            error = failure
        with self._changed:
            if self._closed:
                self._late += natives
            # The last one out gives all of it back: before, another poll would receive it, at an attempt each time.
            if not self._closed or self._out > 1 or not self._late:
                self._arrived(count, [] if self._closed else natives, error)
                return
            late, self._late = self._late, []
        now = time.monotonic()
        try:
            self._give_up([Entry(native, now, now, False) for native in late])
        finally:
            with self._changed:  # only now: whoever closes waits until they are back
                self._arrived(count, [], None)

    def _arrived(self, count: int, natives: list[dict[str, Any]], error: BaseException | None) -> None:
        self._out -= 1
        self._reserved -= count
        if natives:
            self._buffer.extend(self._holding.arrived(natives, self._visibility))
            self._seen = time.monotonic()
        self._busy = bool(natives)
        if error is not None and not self._closed:
            self._error = error
        self._changed.notify_all()

    def settle_down(self, timeout: float) -> None:
        """Wait until no poll is out; none begins while nobody receives."""
        with self._changed:
            self._changed.wait_for(lambda: not self._out, timeout)

    def wake(self) -> None:
        """Let a receive that waits, or the next one, return early."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self, deadline: float) -> None:
        """Take no more, and wait for the polls that are out; what arrives later is handed back."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._out, max(deadline - time.monotonic(), 0.0))
        self._threads.close()
