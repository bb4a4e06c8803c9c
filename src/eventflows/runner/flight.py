"""Batches on their way to a destination."""

from __future__ import annotations

from collections.abc import Callable

from eventflows.message import Batch, Message
from eventflows.protocols import Pending, PublishResult
from eventflows.runner.runs import Parcel


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
    """A batch on its way to the broker.

    What is pending may have a method `confirmed(timeout)` beside `results`: it waits likewise, and says whether the
    broker has every message, so that nobody makes a result for each.
    """

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
        confirmed: Callable[[float], bool] | None = getattr(self.pending, "confirmed", None)
        if confirmed is None:
            results = self.results(now)
        elif confirmed(max(self.deadline - now, 0.0)):
            return []
        else:
            results = self.pending.results(0.0)  # the time is up, or every answer is there
        return results if [result for result in results if result.error is not None] else []

    def entries(self) -> list[Entry]:
        """Give the messages one by one."""
        return [
            Entry(parcel, parcel.input_of(offset), message)
            for parcel in self.parcels
            for offset, message in enumerate(parcel.messages)
        ]
