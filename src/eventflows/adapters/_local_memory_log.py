"""The messages of one memory broker in columns, and one group's place in them."""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from eventflows.adapters._local_store import Grant
from eventflows.message import Batch, Message


class Group:
    """What one group has of a log: a cursor, and what is between the cursor and done."""

    __slots__ = ("delayed", "grants", "keyed", "keys", "later", "lows", "next", "pending", "returned")

    def __init__(self, start: int) -> None:
        self.next = start
        """The first message that was never handed out."""
        self.grants: dict[int, Grant] = {}
        self.pending: dict[int, int] = {}
        """Seen, waiting again, by number: its next attempt."""
        self.returned: list[int] = []
        """Heap of those without a key that may go out now."""
        self.delayed: list[tuple[float, int]] = []
        """Heap of all that wait for a time."""
        self.later: dict[int, str] = {}
        """The keys of those that wait for a time, by number."""
        self.keyed: list[int] = []
        """Sorted: those with a key that may go out when their key's turn comes."""
        self.keys: dict[str, tuple[object, int]] = {}
        """Who holds messages of a key, and how many."""
        self.lows: deque[tuple[float, int]] = deque()


class Log:
    """What was published and is kept, in columns."""

    __slots__ = ("bodies", "content_types", "headers", "ids", "keys", "options", "times")

    def __init__(self) -> None:
        self.bodies: list[bytes | None] = []
        self.headers: list[Mapping[str, str]] = []
        self.keys: list[str | None] = []
        self.ids: list[str | None] = []
        self.content_types: list[str | None] = []
        self.options: list[Mapping[str, object]] = []
        self.times: list[float] = []

    def __len__(self) -> int:
        return len(self.bodies)

    def extend(self, batch: Batch) -> None:
        self.bodies.extend(batch.bodies)
        self.headers.extend(batch.headers)
        self.keys.extend(batch.keys)
        self.ids.extend(batch.ids)
        self.content_types.extend(batch.content_types)
        self.options.extend(batch.options)
        self.times.extend([time.time()] * len(batch))

    def cut(self, count: int) -> None:
        columns: tuple[list[Any], ...] = (
            self.bodies, self.headers, self.keys, self.ids, self.content_types, self.options, self.times,
        )  # fmt: skip
        for column in columns:
            del column[:count]

    def size(self, place: int) -> int:
        return len(self.bodies[place] or b"")

    def pick(self, places: Sequence[int]) -> tuple[Batch, list[float]]:
        """Give messages by their places, and when each was published."""
        pick = operator.itemgetter(*places) if len(places) > 1 else lambda column: (column[places[0]],)
        batch = Batch(
            pick(self.bodies),
            headers=pick(self.headers),
            keys=pick(self.keys),
            ids=pick(self.ids),
            content_types=pick(self.content_types),
            options=pick(self.options),
        )
        return batch, list(pick(self.times))

    def at(self, place: int) -> tuple[Message, float]:
        """Give one message, and when it was published."""
        batch, times = self.pick([place])
        return batch[0], times[0]
