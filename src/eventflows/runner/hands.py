"""All that is in our hands, in count and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from eventflows.message import Chunk, Delivery, Lane
from eventflows.observe import Observers
from eventflows.runner.held import GONE, Held


class Hands:
    """The chunks that were received and are not settled yet. Only the pump uses it.

    Args:
        lane_lost: Told of each lane, the first time that it is found lost.
    """

    def __init__(self, lane_lost: Callable[[Lane], None]) -> None:
        self._held: dict[int, Held] = {}
        self._number = 0
        self._lane_lost = lane_lost
        self._lost_lanes: set[Lane] = set()
        self.count = 0
        """Messages."""
        self.bytes = 0
        """Of their bodies."""

    def __iter__(self) -> Iterator[Held]:
        """Give every chunk of which something is left."""
        return iter(list(self._held.values()))

    def take(self, chunk: Chunk, now: float | None = None) -> Held:
        """Take a chunk that came at `now`."""
        held = Held(chunk, self._number, now)
        self._number += 1
        self._held[held.number] = held
        self.count += held.left
        self.bytes += held.whole
        return held

    def leave(self, held: Held, start: int, stop: int) -> None:
        """Let a stretch go: it is settled, or not ours any more."""
        held.mark(start, stop, GONE)
        held.left -= stop - start
        self.count -= stop - start
        self.bytes -= held.bytes(start, stop)
        if not held.left:
            self._held.pop(held.number, None)

    def fenced(self, held: Held) -> bool:
        """Say whether a chunk is not ours any more, because its lane is lost; let it go the first time."""
        lane = held.chunk.lane
        if lane is not None and lane.lost and not held.lost and not held.acked:
            if lane not in self._lost_lanes:
                self._lost_lanes.add(lane)
                self._lane_lost(lane)
            self.drop(held)
        return held.lost

    def drop(self, held: Held) -> None:
        """Let a chunk go, whatever its messages stand at."""
        for index, state in enumerate(held.state):
            if state != GONE:
                self.leave(held, index, index + 1)
        held.lost = True

    def drop_all(self) -> None:
        """Let everything go that the broker can hand out again."""
        for held in self:
            if not held.acked:
                self.drop(held)


class TakenBack:
    """Deliveries that the broker took back: they leave the hands at once, and are told of together.

    Args:
        hands: That they leave.
        observers: Told.
    """

    def __init__(self, hands: Hands, observers: Observers) -> None:
        self._hands = hands
        self._observers = observers
        self._untold: list[Delivery] = []

    def add(self, held: Held, index: int) -> None:
        """Let one go."""
        if not held.lost and held.state[index] != GONE:
            self._hands.leave(held, index, index + 1)
            self._untold.append(held.chunk[index])

    def tell(self) -> None:
        """Tell of those that left since the last time."""
        if self._untold:
            untold, self._untold = self._untold, []
            self._observers.tell("lease_lost", deliveries=untold)
