"""What both storage modes of the embedded broker can do: memory, and one SQLite file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import attrs

from eventflows.message import Message
from eventflows.policy import Verdict


class Grant:
    """Messages handed to one owner in one receive, in columns.

    Args:
        numbers: Their sequence numbers.
        bodies: One for each.
        keys: One for each; None when none has a key.
        content_types: One for each; None when none says one.
        headers: One mapping for each; None when none has any.
        attempts: By index, where it is not the first.
        until: When the lease ends, by the store's clock.
        message: Makes the message at an index.
        published: Gives when the message at an index was published, in seconds since 1970.
    """

    __slots__ = (
        "attempts",
        "bodies",
        "content_types",
        "headers",
        "keys",
        "later",
        "left",
        "low",
        "message",
        "numbers",
        "open",
        "owner",
        "published",
        "until",
    )

    def __init__(
        self,
        owner: object,
        numbers: Sequence[int],
        bodies: list[bytes | None],
        *,
        keys: Sequence[str | None] | None,
        content_types: Sequence[str | None] | None,
        headers: Sequence[Mapping[str, str]] | None,
        attempts: dict[int, int],
        until: float,
        message: Callable[[int], Message],
        published: Callable[[int], float],
    ) -> None:
        self.owner = owner
        self.numbers = numbers
        self.bodies = bodies
        self.keys = keys
        self.content_types = content_types
        self.headers = headers
        self.attempts = attempts
        self.until = until
        self.message = message
        self.published = published
        self.open = bytearray(b"\1") * len(numbers)
        """1 for each that is held: neither settled nor taken back."""
        self.left = len(numbers)
        self.low = min(numbers)
        self.later: dict[int, float] = {}
        """By index, leases that end later than `until`."""

    def attempt(self, index: int) -> int:
        """Give the delivery count of one message."""
        return self.attempts.get(index, 1)

    def lease(self, index: int) -> float:
        """Give when the lease of one message ends, by the store's clock."""
        return self.later.get(index, self.until)

    def held(self) -> list[int]:
        """Give the indices that are held."""
        return [index for index, held in enumerate(self.open) if held]

    def close(self, index: int) -> None:
        """Hold a message no more."""
        self.left -= self.open[index]
        self.open[index] = 0


@attrs.frozen
class Word:
    """One verdict on a stretch of a grant."""

    grant: Grant
    start: int
    stop: int
    verdict: Verdict
    delay: float = 0.0
    reason: str = ""
    detail: str = ""


@attrs.frozen
class Waiting:
    """One message that waits, as `peek` shows it."""

    number: int
    message: Message
    published: float
    attempt: int


class Store(Protocol):
    """One named place and its groups. Every method may be called from any thread."""

    clock: Callable[[], float]
    """Seconds; never steps, and in a file the same for all processes of the machine."""

    version: int
    """Grows whenever something may have become available, as far as this process knows."""

    def publish(self, batch: Sequence[Message]) -> list[str]:
        """Keep messages; returns their ids. When it returns, they are kept."""

    def join(self, group: str, retain: float) -> None:
        """Make a group, which begins at the oldest message, unless it is there."""

    def take(self, group: str, owner: object, limit: int, max_bytes: int, lease: float) -> Grant | None:
        """Hand out what waits, at once; None when nothing can be handed out now."""

    def settle(self, group: str, words: Sequence[Word]) -> list[tuple[Grant, int]]:
        """Carry out verdicts in order; returns what was not held any more."""

    def extend(self, group: str, held: Sequence[tuple[Grant, int]], seconds: float) -> list[float | None]:
        """Prolong leases: the new end by the store's clock, None for what was not held any more."""

    def release(self, group: str, owner: object) -> None:
        """Take back all that an owner holds; it costs no attempt."""

    def wait(self, group: str, timeout: float, woken: Callable[[], bool], seen: int) -> None:
        """Block until something may have come since `version` was `seen`, `woken` says so, or the time is over."""

    def wake(self) -> None:
        """Let every waiting thread look again."""

    def peek(self, group: str, limit: int, after: int | None) -> list[Waiting]:
        """Look at what waits, oldest first; makes no group."""

    def backlog(self, group: str) -> tuple[int, float | None]:
        """Count what waits, delayed ones included, and give when the oldest was published."""

    def expire(self, group: str | None = None) -> None:
        """End all leases now."""

    def dead(self, group: str) -> Store:
        """Give the store of a group's dead letters."""

    def close(self) -> None:
        """Give back what it holds of the system; memory keeps its messages."""
