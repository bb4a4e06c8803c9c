"""Leases: renewed from receipt until settlement, for everything held."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

from eventflows.errors import LeaseLostError
from eventflows.message import Delivery, Lane
from eventflows.protocols import Subscriber
from eventflows.runner.clock import Clock
from eventflows.runner.held import GONE, Held


class Leases:
    """What must be renewed, and when: at half of each lease.

    Args:
        lost: Told of each delivery that the broker took back.
        clock: What the ends of leases are measured with.
    """

    def __init__(self, lost: Callable[[Held, int], None], clock: Clock | None = None) -> None:
        self._lost = lost
        self._clock = clock or Clock()
        self._due: list[tuple[float, int, Held]] = []
        self._ticket = itertools.count()

    def add(self, held: Held) -> None:
        """Watch a chunk's leases; one without a lease is left alone."""
        if held.renew_at < math.inf:
            heapq.heappush(self._due, (held.renew_at, next(self._ticket), held))

    def next_due(self) -> float:
        """Give when the next renewal is due, in `time.monotonic()` seconds; infinity when none is."""
        while self._due and (self._due[0][2].lost or not self._due[0][2].left):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else math.inf

    def renew(self, subscriber: Subscriber, now: float) -> None:
        """Renew what is due.

        Raises:
            BrokerError: Nothing was attempted; what was due is due again after a tenth of its lease.
        """
        due: list[Held] = []
        while self.next_due() <= now:
            due.append(heapq.heappop(self._due)[2])
        for seconds, group in _by_length(due):
            try:
                self._extend(subscriber, group, seconds)
            finally:
                for held in group:
                    if held.left and not held.lost:
                        held.renew_at = max(held.renew_at, self._clock.now() + seconds / 10)
                        self.add(held)

    def _extend(self, subscriber: Subscriber, group: list[Held], seconds: float) -> None:
        whose: list[tuple[Held, int]] = []
        wanted: list[Delivery | Lane] = []
        for held in group:
            lane = held.chunk.lane
            if subscriber.capabilities.lease == "lane" and lane is not None:
                whose.append((held, -1))
                wanted.append(lane)
                continue
            for index, state in enumerate(held.state):
                if state != GONE:
                    whose.append((held, index))
                    wanted.append(held.chunk[index])
        for (held, index), result in zip(whose, subscriber.extend(wanted, seconds), strict=True):
            if result.until is not None:
                held.renew_at = result.until - seconds / 2
            elif isinstance(result.error, LeaseLostError):
                for lost in range(len(held.state)) if index < 0 else (index,):
                    self._lost(held, lost)

    def forget(self) -> None:
        """Forget all of them."""
        self._due.clear()


def _by_length(due: list[Held]) -> list[tuple[float, list[Held]]]:
    groups: dict[float, list[Held]] = {}
    for held in due:
        groups.setdefault(max(round(held.lease, 1), 0.1), []).append(held)
    return list(groups.items())
