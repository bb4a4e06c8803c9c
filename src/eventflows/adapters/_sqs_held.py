"""What was received and is not settled: one entry for each message id, with its newest receipt handle."""

from __future__ import annotations

import datetime
import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from eventflows.adapters._sqs_wire import read, read_body, read_headers, read_key, read_type
from eventflows.message import Chunk, Delivery, Lane

LONGEST_HOLD: Final = 43_200
"""Seconds that one delivery may be hidden in all, from its receipt. Source: Amazon SQS API reference,
ChangeMessageVisibility; more is refused, not shortened."""
MARGIN: Final = 0.05
"""Share of a lease that may be over when its message arrives."""
ON_ITS_WAY: Final = 15
"""Seconds that a message may have been on its way, at most: what an answer may take."""


class Entry:
    """One message in our hands."""

    __slots__ = ("body", "chunk", "copied", "group", "index", "lane", "native", "received", "until")

    def __init__(self, native: dict[str, Any], received: float, until: float, fifo: bool) -> None:
        self.native = native
        """As boto3 gave it."""
        self.body = read_body(native)
        self.group: str | None = native.get("Attributes", {}).get("MessageGroupId") if fifo else None
        self.received = received
        self.until = until
        self.lane: Lane | None = None
        self.chunk: SqsChunk | None = None
        """Where it was handed over; None: not yet."""
        self.index = 0
        self.copied = False
        """Whether its dead-letter copy was confirmed."""

    @property
    def id(self) -> str:
        """The service's message id."""
        return str(self.native["MessageId"])

    @property
    def handle(self) -> str:
        """The newest receipt handle."""
        return str(self.native["ReceiptHandle"])

    @property
    def sent(self) -> float | None:
        """When it was sent, as the service says, in seconds since 1970."""
        milliseconds = self.native.get("Attributes", {}).get("SentTimestamp")
        return None if milliseconds is None else int(milliseconds) / 1000

    def seconds(self, wanted: float, now: float) -> int:
        """Give the longest lease, up to what is wanted, that the service still grants; may be 0 or less."""
        return min(math.ceil(wanted), math.floor(LONGEST_HOLD - ON_ITS_WAY - (now - self.received)))

    def renew(self, until: float) -> None:
        """Note the new end of its lease."""
        self.until = until
        if self.chunk is not None:
            self.chunk[self.index].lease_until = until


class SqsChunk(Chunk):
    """A chunk that knows its entries."""

    __slots__ = ("entries",)

    def __init__(self, entries: list[Entry], build: Callable[[Entry], Delivery], fifo: bool) -> None:
        natives = [entry.native for entry in entries]
        keys: list[str | None] = []
        types: list[str | None] = []
        headers: list[dict[str, str]] = []
        if fifo or any("MessageAttributes" in native for native in natives):
            keys = [read_key(native, fifo=fifo) for native in natives]
            types = [read_type(native) for native in natives]
            headers = [read_headers(native) for native in natives]
        super().__init__(
            [entry.body for entry in entries],
            lambda index: build(entries[index]),
            lane=entries[0].lane,
            keys=keys if any(key is not None for key in keys) else None,
            content_types=types if any(types) else None,
            headers=headers if any(headers) else None,
            positions=[entry.id for entry in entries],
            attempt=max(attempt_of(native) for native in natives),
            lease_until=min(entry.until for entry in entries),
        )
        self.entries = entries
        for index, entry in enumerate(entries):
            entry.chunk, entry.index = self, index


def attempt_of(native: dict[str, Any]) -> int:
    """Give the service's receive count."""
    return int(native.get("Attributes", {}).get("ApproximateReceiveCount", 1))


class Holding:
    """The table of everything that this subscriber holds; safe from any thread.

    Args:
        source: The URL, as shown.
        queue: What identities begin with.
        fifo: Whether message groups are lanes.
    """

    def __init__(self, source: str, queue: str, fifo: bool) -> None:
        self._source = source
        self._queue = queue
        self._fifo = fifo
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._lanes: dict[str, tuple[Lane, set[str]]] = {}

    def __len__(self) -> int:
        """Count what is held."""
        return len(self._entries)

    @property
    def handed_over(self) -> int:
        """Count what is held and was handed over; the rest has arrived, and waits to be asked for."""
        with self._lock:
            return sum(entry.chunk is not None for entry in self._entries.values())

    def oldest_age(self) -> float | None:
        """Give the age in seconds of the oldest message that is held; None: nothing is."""
        with self._lock:
            sent = [entry.sent for entry in self._entries.values() if entry.sent is not None]
        return max(time.time() - min(sent), 0.0) if sent else None

    def arrived(self, natives: Iterable[dict[str, Any]], visibility: float) -> list[Entry]:
        """Note what was received; gives what is new. What is still held gets its newest handle and lease."""
        now = time.monotonic()
        until = now + visibility * (1 - MARGIN)
        fresh = []
        with self._lock:
            for native in natives:
                known = self._entries.get(native["MessageId"])
                if known is None:
                    entry = Entry(native, now, until, self._fifo)
                    self._entries[entry.id] = entry
                    fresh.append(entry)
                    continue
                known.received = now
                known.native["ReceiptHandle"] = native["ReceiptHandle"]
                known.renew(until)
        return fresh

    def chunks(self, entries: Sequence[Entry]) -> list[Chunk]:
        """Make chunks of entries that are handed over: each one lane, or no lane."""
        parts: list[list[Entry]] = []
        with self._lock:
            for entry in entries:
                if entry.group is not None:
                    lane, members = self._lanes.setdefault(
                        entry.group, (Lane(f"{self._source.partition('?')[0]}/{entry.group}"), set())
                    )
                    members.add(entry.id)
                    entry.lane = lane
                if parts and parts[-1][0].lane is entry.lane:
                    parts[-1].append(entry)
                else:
                    parts.append([entry])
        return [SqsChunk(part, self._build, self._fifo) for part in parts]

    def lane_of(self, group: str | None) -> Lane | None:
        """Give the lane of a group of which something is held."""
        found = None if group is None else self._lanes.get(group)
        return None if found is None else found[0]

    def _build(self, entry: Entry) -> Delivery:
        return Delivery(
            message=read(entry.native, entry.body, fifo=self._fifo),
            source=self._source,
            position=entry.id,
            identity=f"{self._queue}/{entry.id}",
            lane=entry.lane,
            attempt=attempt_of(entry.native),
            lease_until=entry.until,
            enqueued_at=None if entry.sent is None else datetime.datetime.fromtimestamp(entry.sent, datetime.UTC),
            native=entry.native,
        )

    def ours(self, entry: Entry) -> bool:
        """Say whether an entry is held, and its lease has not ended."""
        return (
            self._entries.get(entry.id) is entry
            and time.monotonic() < entry.until
            and not (entry.lane is not None and entry.lane.lost)
        )

    def entry(self, delivery: Delivery) -> Entry | None:
        """Find the entry of a delivery; None: it is not held any more."""
        entry = self._entries.get(delivery.position)
        return entry if entry is not None and entry.native is delivery.native else None

    def drop(self, entries: Iterable[Entry]) -> None:
        """Forget entries: before they are settled, so that nothing renews them and a new receipt is a new delivery."""
        with self._lock:
            for entry in entries:
                if self._entries.get(entry.id) is entry:
                    del self._entries[entry.id]
                self._leave(entry)

    def _leave(self, entry: Entry) -> None:
        found = None if entry.group is None else self._lanes.get(entry.group)
        if found is not None and found[0] is entry.lane:
            found[1].discard(entry.id)
            if not found[1]:
                del self._lanes[entry.group or ""]

    def keep(self, entries: Iterable[Entry]) -> None:
        """Hold entries again: what was to be done with them was not done."""
        with self._lock:
            for entry in entries:
                self._entries.setdefault(entry.id, entry)
                if entry.group is not None and entry.lane is not None and not entry.lane.lost:
                    self._lanes.setdefault(entry.group, (entry.lane, set()))[1].add(entry.id)

    def lose(self, entry: Entry) -> list[Entry]:
        """End an entry's claim: its lease is gone. In a group, everything behind it must come again, too.

        Returns:
            What else is lost with it, to be given back.
        """
        with self._lock:
            if self._entries.get(entry.id) is entry:  # else it was received anew, and that one is held
                del self._entries[entry.id]
            found = None if entry.group is None else self._lanes.get(entry.group)
            if found is None or found[0] is not entry.lane:
                return []
            lane, members = found
            del self._lanes[entry.group or ""]
            with lane.lock:
                lane.lose()
            return [self._entries.pop(id) for id in members if id in self._entries]

    def clear(self) -> list[Entry]:
        """Forget everything, every lane lost; gives what was held, oldest first."""
        with self._lock:
            held = list(self._entries.values())
            for lane, _ in self._lanes.values():
                with lane.lock:
                    lane.lose()
            self._entries, self._lanes = {}, {}
            return held
