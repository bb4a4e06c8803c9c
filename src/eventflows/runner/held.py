"""What is in our hands: chunks, and where each of their messages stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from eventflows.message import Chunk

WAITING: Final = 0
"""Not begun, or parked for a retry."""
SENDING: Final = 1
"""`apply` is done; its outputs, or its dead-letter copy, wait for confirmation."""
SETTLING: Final = 2
"""The last word is said, but the broker has not taken it yet."""
GONE: Final = 3
"""Settled, or lost: not ours any more."""


class Held:
    """One chunk in our hands. Only the pump changes it; workers read its chunk.

    Args:
        chunk: As received.
        number: Grows with every chunk of a run: what came first is less.
        now: When it came, by the runner's clock; None: now, by the machine's.
    """

    __slots__ = (
        "acked",
        "at",
        "chunk",
        "failures",
        "lease",
        "left",
        "lost",
        "number",
        "reader",
        "renew_at",
        "state",
        "whole",
    )

    def __init__(self, chunk: Chunk, number: int, now: float | None = None) -> None:
        size = len(chunk)
        self.chunk = chunk
        self.number = number
        self.state = bytearray(size)
        self.left = size
        self.lost = False
        self.failures: dict[int, int] = {}
        """Failed attempts in this process, by index."""
        self.whole = sum(chunk.sizes)
        self.at = time.monotonic() if now is None else now
        """When it came."""
        self.reader: Callable[[bytes | None], object] | None = None
        """What a worker reads its bodies with, once one of them did."""
        self.acked = False
        """Whether the broker has its acknowledgement already: at most once."""
        self.lease = 0.0
        self.renew_at = float("inf")
        if chunk.lease_until is not None:
            self.lease = max(chunk.lease_until - self.at, 0.0)
            self.renew_at = self.at + self.lease / 2

    def bytes(self, start: int, stop: int) -> int:
        """Give the bytes of a stretch."""
        return self.whole if stop - start == len(self.state) else sum(self.chunk.sizes[start:stop])

    def mark(self, start: int, stop: int, state: int) -> None:
        """Set where a stretch stands."""
        if stop - start == 1:
            self.state[start] = state
        else:
            self.state[start:stop] = bytes((state,)) * (stop - start)

    def stretches(self, state: int) -> Iterator[tuple[int, int]]:
        """Give the stretches of messages that stand here."""
        start = self.state.find(state)
        while start >= 0:
            stop = start + 1
            while stop < len(self.state) and self.state[stop] == state:
                stop += 1
            yield start, stop
            start = self.state.find(state, stop)

    def attempt(self, index: int) -> int:
        """Give the number of the attempt under way, or to come: the broker's count and our own failures."""
        first = self.chunk[index].attempt if self.chunk.attempt > 1 else 1
        return first + self.failures.get(index, 0)

    def __lt__(self, other: Held) -> bool:
        """Order by arrival."""
        return self.number < other.number


Span = tuple[Held, int, int]
"""A stretch of one chunk: from, to (exclusive)."""


def arrival(span: Span) -> tuple[int, int]:
    """Give what stretches are sorted by to be in the order of their arrival."""
    return span[0].number, span[1]


def join(spans: list[Span], held: Held, start: int, stop: int) -> None:
    """Append a stretch, as one with the last when they touch."""
    if spans and spans[-1][0] is held and spans[-1][2] == start:
        spans[-1] = (held, spans[-1][1], stop)
    else:
        spans.append((held, start, stop))
