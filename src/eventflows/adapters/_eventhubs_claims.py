"""Claims of partitions: what came, what was handed out, how far it is done."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from eventflows.adapters._eventhubs_events import OFFSET, Event, made, sections
from eventflows.adapters._eventhubs_wire import KEY, NUMBER, content_type_of, incoming, text_of
from eventflows.adapters._watermark import Watermark
from eventflows.message import Chunk, Delivery, Lane

AHEAD: Final = 300
"""Events of one partition that wait here before its reader is made to wait."""


class Claim:
    """One claim of a partition, from its beginning to its end.

    Args:
        source: The URL, as shown.
        key: What the store knows it by: namespace, hub, group and partition.
        checkpoint: What the store keeps for it; None: nothing.
        owner: The name under which the store knows the claim; None: it did not say.
        attempt: How many claims began at this position and did not end well, this one included. It is that of the
            first event only: the others may never have been handed out by the claims before.
    """

    def __init__(
        self, source: str, key: dict[str, str], checkpoint: dict[str, Any] | None, owner: str | None, attempt: int = 1
    ) -> None:
        self.source = source
        self.key = key
        self.partition = key["partition_id"]
        self.checkpoint = checkpoint
        self.owner = owner
        self.attempt = attempt
        self.heard: int | None = None
        """The last number that came; at first, the one before the first that must come; None: not known yet."""
        self.heard_before: int | None = None
        """The same, at the last turn of the watch."""
        self.owed: int | None = None
        """The last number that the partition had at the last turn of the watch; None: it was not asked."""
        self.linked = False
        """Whether its reader's link is open: an event that is published from now on will come."""
        self.lane = Lane(f"{key['eventhub_name']}/{self.partition}")
        self.waiting: deque[tuple[Event, bytes]] = deque()
        self.space = asyncio.Event()
        self.full = False
        """Whether its reader waits for space."""
        self.saving = asyncio.Lock()
        self.watermark: Watermark | None = None
        self.saved = -1
        """The sequence number that was saved last; -1: none by this claim."""
        self.finished = 0
        """How many were finished since then."""
        self.saved_at = time.monotonic()
        self._offsets: deque[tuple[int, object]] = deque()
        """Of what was handed out and not saved: numbers, and offsets as the client has them."""

    def take(self, limit: int, max_bytes: int) -> EventHubsChunk | None:
        """Hand out what waits.

        Raises:
            RewoundError: The log begins again: it was made anew. End this claim.
        """
        with self.lane.lock:
            if self.lane.lost or not self.waiting:
                return None
            if self.watermark is not None:
                limit = min(limit, self.watermark.room)
            taken = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
            room = max_bytes
            for index, (_, body) in enumerate(taken):
                room -= len(body)
                if room < 0 and index:
                    self.waiting.extendleft(reversed(taken[index:]))
                    del taken[index:]
                    break
            if not taken:
                return None
            chunk = EventHubsChunk(taken, self, 1 if self.watermark is not None else self.attempt)
            if self.watermark is None:
                self.watermark = Watermark(chunk.numbers[0])
            self.watermark.track_offsets(chunk.numbers)
            self._offsets.extend(zip(chunk.numbers, chunk.offsets, strict=True))
            return chunk

    def resolve(self, first: int, stop: int) -> Sequence[int]:
        """Note what is done, with the lane's lock held; gives what was done before."""
        assert self.watermark is not None  # noqa: S101 - it was handed out
        again = self.watermark.resolve(first, stop)
        self.finished += stop - first
        return again

    def to_save(self) -> tuple[int, str] | None:
        """Give the last event of the finished prefix, number and offset; None: nothing new, or not ours any more."""
        with self.lane.lock:
            if self.lane.lost or self.watermark is None:
                return None
            last: tuple[int, object] | None = None
            for one in self._offsets:
                if one[0] >= self.watermark.position:
                    break
                last = one
            return None if last is None or last[0] <= self.saved else (last[0], str(text_of(last[1])))

    def note_saved(self, number: int) -> None:
        """Note what was saved."""
        with self.lane.lock:
            self.saved, self.saved_at, self.finished = number, time.monotonic(), 0
            while self._offsets and self._offsets[0][0] <= number:
                self._offsets.popleft()

    def end(self) -> None:
        """End it: nothing of it can be settled any more."""
        with self.lane.lock:
            self.lane.lose()
        self.waiting.clear()


class EventHubsChunk(Chunk):
    """A chunk that keeps the client's own events.

    Args:
        taken: Events and their bodies.
        claim: Theirs.
        attempt: Of the first.
    """

    __slots__ = ("claim", "events", "numbers", "offsets")

    def __init__(self, taken: Sequence[tuple[Event, bytes]], claim: Claim, attempt: int = 1) -> None:
        self.claim = claim
        self.events = [event for event, _ in taken]
        notes, properties = sections(self.events)
        self.numbers: list[int] = [note[NUMBER] for note in notes]
        self.offsets: list[object] = [note[OFFSET] for note in notes]
        keys = [text_of(note.get(KEY)) for note in notes]
        types = [content_type_of(one) for one in properties]
        super().__init__(
            [body for _, body in taken],
            self._delivery,
            lane=claim.lane,
            keys=keys if keys.count(None) < len(keys) else None,
            content_types=types if types.count(None) < len(types) else None,
            attempt=attempt,
        )

    def position(self, index: int) -> str:
        """Give partition and sequence number."""
        return f"{self.claim.partition}:{self.numbers[index]}"

    def _delivery(self, index: int) -> Delivery:
        event, position = made(self.events[index]), self.position(index)
        return Delivery(
            message=incoming(event, self.bodies[index] or b""),
            source=self.claim.source,
            position=position,
            identity=f"{self.claim.source}#{position}",
            lane=self.claim.lane,
            attempt=self.attempt if index == 0 else 1,
            enqueued_at=event.enqueued_time,
            native=event,
        )
