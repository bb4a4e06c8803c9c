"""The subscriber of the embedded broker's queues."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import attrs

from eventflows.adapters._local_able import LONGEST_DELAY, capabilities
from eventflows.adapters._local_broker import LocalBroker
from eventflows.adapters._local_chunk import LocalChunk, Receipt
from eventflows.adapters._local_side import Adapter
from eventflows.adapters._local_store import Grant, Store, Word
from eventflows.errors import (
    CapabilityError,
    ConfigError,
    LeaseLostError,
)
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import (
    Backlog,
    ExtendResult,
    Location,
    SettleFailure,
    Subscriber,
)

LEASE: Final = 30.0


class LocalSubscriber(Adapter):
    """Reads one group of one name.

    Args:
        location: The source.
        options: `file`, `group`, `lease`, `retain`, `dead-letter`, `sync`, `seed`.
    """

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        super().__init__(location, options)
        self.capabilities = capabilities(location, options)
        self.ready = False
        self._group = str(options.get("group", "default"))
        self._lease = float(str(options.get("lease", LEASE)))
        self._woken = False
        self.now: Callable[[], float] = time.monotonic
        """What the ends of leases are told in; a simulation has its own."""
        self._owner: object = object()
        self._joined = False
        self._chunks: list[LocalChunk] = []
        if "dead-letter" in options:
            self._dead_of, self._group = self._group, "default"
        else:
            self._dead_of = ""

    @property
    def _store(self) -> Store:
        store = self._broker.store
        return store.dead(self._dead_of) if self._dead_of else store

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and join the group."""
        if self._open and self._joined:
            self._hand_back()
        self._owner = object()
        self._chunks = []
        super().open(timeout=timeout)
        self._store.join(self._group, float(str(self._options.get("retain", 0.0))))
        self._joined = self.ready = True

    def _hand_back(self) -> None:
        """Give back all that is held."""
        self._store.release(self._group, self._owner)

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages."""
        self._enter("receive", timeout)
        store = self._store
        deadline = time.monotonic() + timeout
        while True:
            seen = store.version
            if limit > 0:
                grant = store.take(self._group, self._owner, limit, max(max_bytes, 1), self._lease)
                if grant is not None:
                    fresh = self._fresh(grant)
                    if fresh:
                        return fresh
                    continue
            left = deadline - time.monotonic()
            if self._woken or left <= 0:
                self._woken = False
                return []
            store.wait(self._group, left, lambda: self._woken, seen)
            self._broker.faults.cut(self._epoch)

    def _fresh(self, grant: Grant) -> Sequence[Chunk]:
        """Make chunks of a grant; none when all of it is held already, by earlier ones."""
        offset = self.now() - self._store.clock()
        self._chunks = [chunk for chunk in self._chunks if not all(chunk.said)]
        known = self._known(grant) if grant.attempts and self._chunks else {}
        for index, (chunk, where) in known.items():
            chunk.renew(where, Receipt(grant, index), grant.until + offset)
        if len(known) == len(grant.numbers):
            return []
        only = [index for index in range(len(grant.numbers)) if index not in known] if known else None
        fresh = self._cut(grant, offset, only)
        self._chunks += fresh
        return fresh

    def _cut(self, grant: Grant, offset: float, only: list[int] | None) -> list[LocalChunk]:
        return [LocalChunk(grant, self._builder(grant, offset, only), grant.until + offset, only)]

    def _known(self, grant: Grant) -> dict[int, tuple[LocalChunk, int]]:
        """Find what is received again though whoever got it before has not settled it."""
        held = {
            number: (chunk, index)
            for chunk in self._chunks
            for index, number in enumerate(chunk.numbers)
            if not chunk.said[index]
        }
        return {i: held[n] for i, n in enumerate(grant.numbers) if i in grant.attempts and n in held}

    def _builder(self, grant: Grant, offset: float, only: list[int] | None) -> Callable[[int], Delivery]:

        def build(index: int) -> Delivery:
            index = index if only is None else only[index]
            number = grant.numbers[index]
            message = grant.message(index)
            if message.id is None:
                message = attrs.evolve(message, id=str(number))
            return Delivery(
                message=message,
                source=self._location.text,
                position=str(number),
                identity=f"{self._location.authority}/{self._dead_of}/{self._group}/{number}",
                attempt=grant.attempt(index),
                lease_until=grant.lease(index) + offset,
                enqueued_at=datetime.datetime.fromtimestamp(grant.published(index), datetime.UTC),
                native=Receipt(grant, index),
            )

        return build

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Carry out verdicts; in a file they are on disk when this returns."""
        if not self.capabilities.dead_letter and any(s.verdict is Verdict.DEAD_LETTER for s in settlements):
            raise CapabilityError(f"{self._location.text} keeps no dead letters of dead letters.")
        broker = self._enter("settle", timeout)
        failures: list[SettleFailure] = []
        words: list[Word] = []
        settled: list[tuple[LocalChunk, int, int]] = []
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, LocalChunk)  # noqa: S101 - for the type checker: chunks come from receive
                start, stop, _ = stretch.indices(len(chunk))
                for first, last in self._unless_refused(broker, chunk, start, stop, failures):
                    words.extend(self._words(chunk, first, last, settlement, failures))
                    settled.append((chunk, first, last))
        for grant, index in self._store.settle(self._group, words):
            delivery = self._delivery_of(grant, index, settlements)
            failures.append(SettleFailure(delivery, _lease_lost(delivery)))
        for chunk, first, last in settled:
            chunk.said[first:last] = b"\1" * (last - first)
        return failures

    def _words(
        self, chunk: LocalChunk, start: int, stop: int, settlement: Settlement, failures: list[SettleFailure]
    ) -> list[Word]:
        """Say the verdict on what this subscriber holds; what it got before it was opened again is lost."""
        delay = min(settlement.delay, LONGEST_DELAY)
        words = []
        at = start
        for grant, first, last in chunk.parts(start, stop):
            if grant.owner is self._owner:
                words.append(Word(grant, first, last, settlement.verdict, delay, settlement.reason, settlement.detail))
            else:
                failures.extend(SettleFailure(one, _lease_lost(one)) for one in chunk[at : at + last - first])
            at += last - first
        return words

    @staticmethod
    def _delivery_of(grant: Grant, index: int, settlements: Sequence[Settlement]) -> Delivery:
        for settlement in settlements:
            for chunk, _ in settlement.spans:
                if isinstance(chunk, LocalChunk) and grant.numbers[index] in chunk.numbers:
                    return chunk[chunk.numbers.index(grant.numbers[index])]
        raise AssertionError("a settlement of a grant that was not settled")

    @staticmethod
    def _unless_refused(
        broker: LocalBroker, chunk: Chunk, start: int, stop: int, failures: list[SettleFailure]
    ) -> list[tuple[int, int]]:
        if not broker.faults.settlements():
            return [(start, stop)]
        parts = []
        for index in range(start, stop):
            error = broker.faults.of_settlement(chunk[index])
            if error is None:
                parts.append((index, index + 1))
            else:
                failures.append(SettleFailure(chunk[index], error))
        return parts

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Keep deliveries for longer."""
        broker = self._enter("extend", timeout)
        receipts: list[tuple[Grant, int]] = []
        for one in held:
            if not isinstance(one, Delivery) or not isinstance(one.native, Receipt):
                raise CapabilityError(f"{self._location.text} leases deliveries; this is none of its own.")
            receipts.append((one.native.grant, one.native.place))
        refused = [broker.faults.of_extension() for _ in held] if broker.faults.set else [None] * len(held)
        asked = [receipt for receipt, error in zip(receipts, refused, strict=True) if error is None]
        ends = iter(self._store.extend(self._group, asked, seconds))
        offset = self.now() - self._store.clock()
        results: list[ExtendResult] = []
        for one, error in zip(held, refused, strict=True):
            assert isinstance(one, Delivery)  # noqa: S101 - for the type checker: looked at above
            if error is not None:
                results.append(ExtendResult(one, None, error))
            elif (end := next(ends)) is None:
                self._lose(one)
                results.append(ExtendResult(one, None, _lease_lost(one)))
            else:
                one.lease_until = end + offset
                results.append(ExtendResult(one, one.lease_until))
        return results

    def _lose(self, delivery: Delivery) -> None:
        """Hold a delivery no more: it may come again."""
        number = int(delivery.position)
        for chunk in self._chunks:
            if number in chunk.numbers:
                index = chunk.numbers.index(number)
                if chunk[index] is delivery:
                    chunk.said[index] = 1

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Nothing waits: what was settled is settled."""
        return []

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits."""
        waiting, oldest = self._store.backlog(self._group)
        return Backlog(waiting=waiting, oldest_age=None if oldest is None else max(time.time() - oldest, 0.0))

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at what waits; makes no group."""
        broker = self._broker
        if broker.faults.set:
            broker.faults.meet("peek", timeout)
        if start is not None and not start.isdecimal():
            raise ConfigError(f"start={start!r}: a position here is a sequence number, such as 42.")
        return [
            Delivery(
                message=one.message if one.message.id else attrs.evolve(one.message, id=str(one.number)),
                source=self._location.text,
                position=str(one.number),
                identity=f"{self._location.authority}/{self._dead_of}/{self._group}/{one.number}",
                attempt=one.attempt,
                enqueued_at=datetime.datetime.fromtimestamp(one.published, datetime.UTC),
            )
            for one in self._store.peek(self._group, limit, None if start is None else int(start))
        ]

    def dead_letters(self) -> Subscriber:
        """Give a subscriber of this group's dead letters, not opened."""
        if self._dead_of:
            raise CapabilityError(f"{self._location.text} keeps no dead letters of dead letters.")
        mark = "&" if "?" in self._location.text else "?"
        location = attrs.evolve(self._location, text=f"{self._location.text}{mark}dead-letter")
        return LocalSubscriber(location, {**self._options, "dead-letter": True})

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        self._woken = True
        if self._found is not None:
            self._store.wake()

    def close(self, *, timeout: float = 30.0) -> None:
        """Hand back what is held, untouched, and leave."""
        if self._open and self._joined:
            self._hand_back()
        self.ready = False
        super().close(timeout=timeout)
        if self._found is not None:
            self._store.wake()


def _lease_lost(delivery: Delivery) -> LeaseLostError:
    return LeaseLostError(
        f"{delivery.source} has taken {delivery.position} back: its lease ended, or it was settled before."
    )
