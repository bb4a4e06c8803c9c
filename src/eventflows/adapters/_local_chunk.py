"""Chunks of the embedded broker, and the right to settle what is in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from eventflows.adapters._local_store import Grant
from eventflows.message import Chunk, Delivery

_T = TypeVar("_T")


class Receipt(NamedTuple):
    """Where a delivery came from; the right to settle it."""

    grant: Grant
    place: int
    """Its index in the grant."""


class LocalChunk(Chunk):
    """A chunk that knows its grant, and what became of each message since.

    Args:
        grant: What was handed out.
        build: Makes the delivery at an index of the chunk.
        lease_until: When its lease ends.
        only: The indices of the grant that are new; None: all.
    """

    __slots__ = ("grant", "numbers", "renewed", "said")

    def __init__(
        self, grant: Grant, build: Callable[[int], Delivery], lease_until: float, only: list[int] | None = None
    ) -> None:
        def column(values: Sequence[_T] | None) -> Sequence[_T] | None:
            return values if only is None or values is None else [values[index] for index in only]

        super().__init__(
            grant.bodies if only is None else [grant.bodies[index] for index in only],
            build,
            keys=column(grant.keys),
            content_types=column(grant.content_types),
            headers=column(grant.headers),
            attempt=max(grant.attempts.values(), default=1),
            lease_until=lease_until,
        )
        self.grant = grant
        self.numbers = grant.numbers if only is None else [grant.numbers[index] for index in only]
        self.said = bytearray(len(self.numbers))
        """1 for each that was settled, or lost, by whoever had it."""
        self.renewed = {} if only is None else {i: Receipt(grant, index) for i, index in enumerate(only)}
        """By index: the newest receipt of a message, where it is not in its own place in the grant."""

    def receipt(self, index: int) -> Receipt:
        """Give the newest receipt of a message."""
        return self.renewed.get(index, Receipt(self.grant, index))

    def parts(self, start: int, stop: int) -> list[tuple[Grant, int, int]]:
        """Give the stretch as stretches of the grants that hold it now."""
        if not self.renewed:
            return [(self.grant, start, stop)]
        receipts = [self.receipt(index) for index in range(start, stop)]
        return [(grant, index, index + 1) for grant, index in receipts]

    def renew(self, index: int, receipt: Receipt, until: float) -> None:
        """Replace the handle of a message that was received again."""
        self.renewed[index] = receipt
        delivery = self[index]
        delivery.native, delivery.lease_until = receipt, until

    def position(self, index: int) -> str:
        """Give the sequence number."""
        return str(self.numbers[index])

    def positions_of(self, start: int, stop: int) -> list[str]:
        """Give the sequence numbers of a stretch."""
        return list(map(str, self.numbers[start:stop]))
