"""What was handed out and is not settled, in columns."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence

from eventflows.adapters._servicebus_types import Native
from eventflows.adapters._servicebus_wire import incoming, key_of
from eventflows.errors import LeaseLostError
from eventflows.message import Chunk, Delivery, Lane

_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)


def lease_of(native: Native) -> float:
    """Give the end of a lock in `time.monotonic()` seconds; the client, too, compares it with this machine's clock."""
    until = native.locked_until_utc
    left = 0.0 if until is None else (until - datetime.datetime.now(datetime.UTC)).total_seconds()
    return time.monotonic() + left


def first_lease(natives: Sequence[Native]) -> float:
    """Give the end of the lock that ends first."""
    first = min(natives, key=lambda native: native.locked_until_utc or _NEVER)
    return lease_of(first)


class ServiceBusChunk(Chunk):
    """A chunk that keeps the client's own messages.

    Args:
        natives: As they were received.
        bodies: Theirs.
        source: The source's URL.
        lane: The session; None: no sessions.
        until: The end of the session's lock; None: each message has a lock of its own.
    """

    __slots__ = ("natives", "numbers", "source", "until")

    def __init__(
        self,
        natives: Sequence[Native],
        bodies: Sequence[bytes],
        source: str,
        lane: Lane | None = None,
        until: float | None = None,
    ) -> None:
        keys, types = [key_of(one) for one in natives], [incoming_type(one) for one in natives]
        self.natives = list(natives)
        self.numbers = [int(one.sequence_number or 0) for one in natives]
        self.source = source
        self.until = until
        super().__init__(
            list(bodies),
            self._delivery,
            lane=lane,
            keys=keys if any(key is not None for key in keys) else None,
            content_types=types if types.count(None) < len(types) else None,
            attempt=max(attempt_of(one) for one in natives),
            lease_until=first_lease(natives) if until is None else until,
        )

    def position(self, index: int) -> str:
        """Give the sequence number."""
        return str(self.numbers[index])

    def _delivery(self, index: int) -> Delivery:
        native = self.natives[index]
        return Delivery(
            message=incoming(native, self.bodies[index] or b""),
            source=self.source,
            position=self.position(index),
            identity=f"{self.source}#{self.numbers[index]}",
            lane=self.lane,
            attempt=attempt_of(native),
            lease_until=lease_of(native) if self.until is None else self.until,
            enqueued_at=native.enqueued_time_utc,
            native=native,
        )

    def renew(self, index: int, native: Native) -> None:
        """Replace the handle of a message that was received again."""
        self.natives[index] = native
        delivery = self[index]
        delivery.native, delivery.lease_until = native, lease_of(native)


def incoming_type(native: Native) -> str | None:
    """Give the content type."""
    found = native.content_type
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else found


def attempt_of(native: Native) -> int:
    """Give the attempt: the service counts the deliveries before this one."""
    return int(native.delivery_count or 0) + 1


class Held:
    """What is held, by sequence number."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[ServiceBusChunk, int]] = {}

    def __len__(self) -> int:
        """Count the messages."""
        return len(self._held)

    def fresh(self, natives: Sequence[Native]) -> list[Native]:
        """Give those that are not held; of the others the handle is replaced where it is."""
        new = []
        for native in natives:
            found = self._held.get(int(native.sequence_number or 0))
            if found is None:
                new.append(native)
            else:
                found[0].renew(found[1], native)
        return new

    def add(self, chunk: ServiceBusChunk) -> None:
        """Hold a chunk."""
        for index, number in enumerate(chunk.numbers):
            self._held[number] = chunk, index

    def native(self, chunk: Chunk, index: int) -> Native | None:
        """Give the handle of a message; None: it is not held any more."""
        if not isinstance(chunk, ServiceBusChunk):
            return None
        found = self._held.get(chunk.numbers[index])
        return None if found is None or found[0] is not chunk else chunk.natives[index]

    def find(self, delivery: Delivery) -> Native | None:
        """Give the handle of a delivery; None: it is not held any more."""
        found = self._held.get(int(delivery.position))
        if found is None or found[0][found[1]] is not delivery:
            return None
        return found[0].natives[found[1]]

    def drop(self, native: Native) -> None:
        """Hold a message no more."""
        self._held.pop(int(native.sequence_number or 0), None)

    def everything(self) -> list[Native]:
        """Give every handle, oldest first."""
        return [chunk.natives[index] for _, (chunk, index) in sorted(self._held.items())]


def lease_lost(source: str, position: str) -> LeaseLostError:
    """Say that a delivery is no longer ours."""
    return LeaseLostError(f"{source} has taken {position} back: its lock ended, or it was settled before.")
