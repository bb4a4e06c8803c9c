"""Stretches whose messages are told apart by key only where one of them has failed: what a single worker needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from typing import Final

from eventflows.runner.held import Held, Span, arrival, join
from eventflows.runner.runs import BY_KEY, Unit, unit_of

_NOTHING: Final = frozenset[Unit]()


class Strips:
    """What waits in the order of its arrival, whatever its keys.

    One worker that takes all of it keeps the order of every key without anybody looking at keys. They matter once a
    message has failed: the later ones of its key are then held up behind it, and the others go on.
    """

    __slots__ = ("spans",)

    def __init__(self) -> None:
        self.spans: deque[Span] = deque()

    def __bool__(self) -> bool:
        return bool(self.spans)

    def add(self, span: Span) -> None:
        """Take a stretch; what came first is added first."""
        self.spans.append(span)

    def put_back(self, spans: list[Span]) -> None:
        """Put earlier messages where they were."""
        if spans:
            self.spans = deque(sorted([*spans, *self.spans], key=arrival))

    def cut(self, room: int, held_up: Collection[Unit] = _NOTHING) -> tuple[list[Span], list[tuple[Unit, Span]]]:
        """Cut off what goes on, at most `room` messages.

        Args:
            room: At least 1.
            held_up: Units of which nothing goes on.

        Returns:
            What goes on, and what was met of units held up, each message by itself; both in order.
        """
        going: list[Span] = []
        stopped: list[tuple[Unit, Span]] = []
        while room > 0 and self.spans:
            held, start, stop = self.spans.popleft()
            if not held_up:
                end = min(stop, start + room)
                going.append((held, start, end))
                room -= end - start
            else:
                end, room = _sift(held, range(start, stop), room, held_up, going, stopped)
            if end < stop:
                self.spans.appendleft((held, end, stop))
        return going, stopped

    def take_out(self, unit: Unit) -> list[Span]:
        """Take out every message of a unit, in order."""
        kept: list[Span] = []
        found: list[Span] = []
        for held, start, stop in self.spans:
            for index in range(start, stop):
                join(found if unit_of(held, index, BY_KEY) == unit else kept, held, index, index + 1)
        self.spans = deque(kept)
        return found

    def forget_lost(self) -> None:
        """Forget what is of chunks that are not ours any more."""
        self.spans = deque(span for span in self.spans if not span[0].lost)

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)


def _sift(
    held: Held,
    indices: range,
    room: int,
    held_up: Collection[Unit],
    going: list[Span],
    stopped: list[tuple[Unit, Span]],
) -> tuple[int, int]:
    """Sort messages into those that go on and those that do not; give where it ended, and the room left."""
    for index in indices:
        if room <= 0:
            return index, room
        unit = unit_of(held, index, BY_KEY)
        if unit is not None and unit in held_up:
            stopped.append((unit, (held, index, index + 1)))
        else:
            join(going, held, index, index + 1)
            room -= 1
    return indices.stop, room
