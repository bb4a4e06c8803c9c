"""Batches on their way to a destination."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from eventflows.message import Batch, Message
from eventflows.protocols import Pending, PublishResult
from eventflows.runner.runs import Parcel


@runtime_checkable
class Counting(Protocol):
    """What is pending, where it can say that all went well without a result for each message."""

    def confirmed(self, timeout: float) -> bool:
        """Wait as for `results`, and say whether the broker has every message."""


class Entry:
    """One message on its way, and the input it was made from."""

    __slots__ = ("index", "message", "parcel")

    def __init__(self, parcel: Parcel, index: int, message: Message) -> None:
        self.parcel = parcel
        self.index = index
        self.message = message


class Known:
    """Results that are there already."""

    def __init__(self, results: list[PublishResult]) -> None:
        self._results = results

    def results(self, timeout: float) -> list[PublishResult]:
        """Give them."""
        return self._results


class Sent:
    """A batch on its way to the broker."""

    __slots__ = ("batch", "deadline", "parcels", "pending")

    def __init__(self, parcels: list[Parcel], batch: Batch, pending: Pending, deadline: float) -> None:
        self.parcels = parcels
        self.batch = batch
        self.pending = pending
        self.deadline = deadline

    def results(self, now: float) -> list[PublishResult]:
        """Wait for the broker's answers until its deadline."""
        return self.pending.results(max(self.deadline - now, 0.0))

    def faulty(self, now: float) -> list[PublishResult]:
        """Wait likewise; gives nothing when all of it is confirmed, else the results."""
        if isinstance(self.pending, Counting) and self.pending.confirmed(max(self.deadline - now, 0.0)):
            return []
        results = self.results(now)
        return results if [result for result in results if result.error is not None] else []

    def entries(self) -> list[Entry]:
        """Give the messages one by one."""
        return [
            Entry(parcel, parcel.input_of(offset), message)
            for parcel in self.parcels
            for offset, message in enumerate(parcel.messages)
        ]
