"""A broker of its own for each test, in memory or in a file, whose clock stands still."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable
from typing import Literal

import eventflows
from eventflows import Message
from eventflows.adapters.local import FakeClock, LocalBroker, LocalPublisher, LocalSubscriber, forget, local_broker
from eventflows.message import Chunk, Delivery
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import PublishResult, SettleFailure

Storage = Literal["memory", "file"]
MUCH = 10**9
_names = itertools.count()


class Place:
    """One name in one storage.

    Args:
        storage: Where its messages are.
        folder: For the file.
        seed: Of the shuffle.
    """

    def __init__(self, storage: Storage, folder: pathlib.Path, *, seed: int | None = None) -> None:
        self.name = f"place-{next(_names)}"
        self.file = folder / "flows.db"
        self.url = f"local://{self.name}" + (f"?file={self.file}" if storage == "file" else "")
        self.clock = FakeClock()
        self.broker: LocalBroker = local_broker(self.url, clock=self.clock, seed=seed)
        self._open: list[LocalSubscriber | LocalPublisher] = []

    def subscriber(self, *, dead: bool = False, **options: object) -> LocalSubscriber:
        """Open a subscriber."""
        mark = "&" if "?" in self.url else "?"
        made = eventflows.open_subscriber(f"{self.url}{mark}dead-letter" if dead else self.url, **options)
        assert isinstance(made, LocalSubscriber)
        made.open()
        self._open.append(made)
        return made

    def publisher(self) -> LocalPublisher:
        """Open a publisher."""
        made = eventflows.open_publisher(self.url)
        assert isinstance(made, LocalPublisher)
        made.open()
        self._open.append(made)
        return made

    def publish(self, *bodies: bytes, key: str | None = None) -> list[PublishResult]:
        """Publish bodies under one key."""
        return self.publisher().publish([Message(body, key=key) for body in bodies])

    def close(self) -> None:
        """Close everything, and forget the messages."""
        for one in self._open:
            one.close()
        self.broker.store.close()
        forget(self.name)


def take(subscriber: LocalSubscriber, limit: int = 1000, *, max_bytes: int = MUCH, timeout: float = 0) -> list[Chunk]:
    """Receive what is there, without waiting."""
    return list(subscriber.receive(limit, max_bytes=max_bytes, timeout=timeout))


def bodies(chunks: list[Chunk]) -> list[bytes | None]:
    """Give the bodies in the order in which they came."""
    return [body for chunk in chunks for body in chunk.bodies]


def deliveries(chunks: list[Chunk]) -> list[Delivery]:
    """Give the deliveries in the order in which they came."""
    return [delivery for chunk in chunks for delivery in chunk]


def say(
    subscriber: LocalSubscriber,
    verdict: Verdict,
    chunks: list[Chunk],
    *,
    only: Callable[[Delivery], bool] = lambda _: True,
    delay: float = 0.0,
    reason: str = "",
    detail: str = "",
) -> list[SettleFailure]:
    """Settle what `only` picks."""
    spans = [(chunk, slice(i, i + 1)) for chunk in chunks for i, delivery in enumerate(chunk) if only(delivery)]
    settlement = Settlement(verdict=verdict, spans=spans, delay=delay, reason=reason, detail=detail)
    return list(subscriber.settle([settlement]))
