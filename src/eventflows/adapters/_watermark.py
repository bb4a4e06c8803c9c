"""Where a log may be committed to, though work on it finishes out of order.

Shared by the adapters of logs; it knows offsets only, no client and no message.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

LIMIT: Final = 100_000
"""Messages that may wait behind an unfinished one before its lane takes no more."""
_SPARE: Final = 4096  # finished entries kept before they are cut off, so that cutting costs little for each message


class RewoundError(Exception):
    """An offset came that is not above the last one received: the topic was made anew, or the client was set back.

    Nothing of it was tracked. End the claim: a new `Lane` and a new `Watermark`, from the offset that came.
    """

    def __init__(self, offset: int, after: int) -> None:
        super().__init__(f"offset {offset} came after everything below {after} was received")
        self.offset = offset
        self.after = after


class Watermark:
    """The end of the unbroken finished prefix of one claim of a partition.

    What was received is tracked in spans, what is done is resolved in spans, in any order; `position` is the offset
    up to which all of it is done, so the next one to read after a restart. Offsets that never come (compaction,
    transaction markers) are no messages: they neither stall the position nor count as waiting. A span costs a few
    operations however long it is; a waiting message costs one byte, and two integers where a gap is before it.

    It has no lock of its own. Every call is made with the `lock` of the claim's `Lane` held, the one under which the
    adapter looks at `lost` and commits; so nothing can slip between looking, resolving and committing.

    Args:
        position: The offset that the claim reads first: the committed one, or where it starts.
        limit: Messages that may wait; see `room`.
    """

    __slots__ = (
        "_base",
        "_done",
        "_firsts",
        "_head",
        "_limit",
        "_next",
        "_numbers",
        "_position",
        "_read",
        "_unresolved",
    )

    def __init__(self, position: int, *, limit: int = LIMIT) -> None:
        self._limit = limit
        self._position = self._read = position
        # Messages are numbered as they are received, so that gaps between offsets are none between numbers.
        self._next = 0  # the number of the next message to be received
        self._head = 0  # the number of the first that is not done
        self._done = bytearray()  # 1 for each that is done, from number `_base`
        self._base = 0
        self._unresolved = 0
        # Stretches of offsets without a gap: the offset and the number that each begins with.
        self._firsts: list[int] = []
        self._numbers: list[int] = []

    @property
    def position(self) -> int:
        """What may be committed: the offset below which everything that was received is done."""
        return self._position

    @property
    def read(self) -> int:
        """The offset below which nothing more comes: one past the last received, or further; see `pass_over`."""
        return self._read

    @property
    def unresolved(self) -> int:
        """How many messages were received and are not done."""
        return self._unresolved

    @property
    def waiting(self) -> int:
        """How many messages were received from the first unfinished one on, finished or not."""
        return self._next - self._head

    @property
    def room(self) -> int:
        """How many more to receive. At 0 take none from this lane: its head is stuck, and a crash would repeat all."""
        return max(self._limit - self.waiting, 0)

    def track(self, first: int, stop: int) -> None:
        """Note that every offset from `first` to `stop - 1` was received. They may pass `room`: they are here.

        Raises:
            RewoundError: `first` was passed already. Nothing was tracked.
            ValueError: The span is empty.
        """
        if first >= stop:
            raise ValueError(f"a span from {first} to {stop} holds no message")
        if first < self._read:
            raise RewoundError(first, self._read)
        self._append(first, stop)

    def track_offsets(self, offsets: Sequence[int]) -> None:
        """Note that these offsets were received, in this order, with gaps between them or none.

        Raises:
            RewoundError: One is not above the one before it. Nothing was tracked.
        """
        if not offsets:
            return
        first, stop = offsets[0], offsets[-1] + 1
        if stop - first == len(offsets) and list(offsets) == list(range(first, stop)):
            self.track(first, stop)
            return
        if first < self._read:
            raise RewoundError(first, self._read)
        breaks = []
        for index, (before, offset) in enumerate(pairwise(offsets), 1):
            if offset <= before:
                raise RewoundError(offset, before + 1)
            if offset != before + 1:
                breaks.append(index)
        for start, end in pairwise((0, *breaks, len(offsets))):
            self._append(offsets[start], offsets[end - 1] + 1)

    def pass_over(self, stop: int) -> None:
        """Note that no message will come from below `stop`: the client has read on without finding one.

        So the position reaches the end of a log whose last entries are markers. A `stop` already passed does nothing.
        """
        self._read = max(self._read, stop)
        if self._head == self._next:
            self._position = self._read

    def resolve(self, first: int, stop: int) -> Sequence[int]:
        """Note that whatever was received from offset `first` to `stop - 1` is done.

        Returns:
            The offsets among them that were done before, usually none; all those below `position` are.

        Raises:
            ValueError: `stop` is beyond what was received. Nothing was resolved.
        """
        if stop > self._read:
            raise ValueError(f"offset {stop - 1} cannot be done: only those below {self._read} were received")
        start = max(self._number(first), self._base) - self._base
        end = max(self._number(stop), self._base) - self._base
        fresh = self._done.count(0, start, end)
        repeated = self._repeated(first, stop) if fresh != end - start or first < self._position else ()
        self._done[start:end] = b"\1" * (end - start)
        self._unresolved -= fresh
        if start <= self._head - self._base < end:
            self._advance()
        return repeated

    def _append(self, first: int, stop: int) -> None:
        if not self._firsts or first != self._firsts[-1] + self._next - self._numbers[-1]:
            self._firsts.append(first)
            self._numbers.append(self._next)
        self._next += stop - first
        self._done.extend(bytes(stop - first))
        self._unresolved += stop - first
        self._read = stop

    def _number(self, offset: int) -> int:
        """Give the number of the first message at this offset or above."""
        place = bisect_right(self._firsts, offset) - 1
        if place < 0:
            return self._numbers[0] if self._numbers else self._next
        end = self._numbers[place + 1] if place + 1 < len(self._numbers) else self._next
        return min(self._numbers[place] + offset - self._firsts[place], end)

    def _offset(self, number: int) -> int:
        """Give the offset of a message that is still known."""
        place = bisect_right(self._numbers, number) - 1
        return self._firsts[place] + number - self._numbers[place]

    def _repeated(self, first: int, stop: int) -> list[int]:
        numbers = range(max(self._number(first), self._head), self._number(stop))
        later = [self._offset(number) for number in numbers if self._done[number - self._base]]
        return [*range(first, min(stop, self._position)), *later]

    def _advance(self) -> None:
        found = self._done.find(0, self._head - self._base)
        self._head = self._next if found < 0 else found + self._base
        # One past the last that is done: the gap behind it, if any, is passed together with the message after it.
        self._position = self._read if found < 0 else self._offset(self._head - 1) + 1
        if self._head - self._base >= max(_SPARE, len(self._done) // 2):
            del self._done[: self._head - self._base]
            self._base = self._head
            place = bisect_right(self._numbers, self._head) - 1
            del self._firsts[:place], self._numbers[:place]
