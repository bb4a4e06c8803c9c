"""One subscriber's membership of a group on the embedded log: claims, what is done of them, what is committed."""

from __future__ import annotations

import datetime
import functools
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import attrs

from eventflows.adapters._local_faults import Faults
from eventflows.adapters._local_log import LogStore, Record
from eventflows.adapters._watermark import Watermark
from eventflows.errors import CapabilityError, ConfigError, LeaseLostError
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Backlog, SettleFailure

_REFUSED: Final = (Verdict.RETRY, Verdict.DEAD_LETTER)


class Place(NamedTuple):
    """Where a delivery lies in its log."""

    partition: int
    offset: int


class Claim:
    """One partition as one member has it, until its lane is lost."""

    def __init__(self, lane: Lane, partition: int, position: int, claims: int) -> None:
        self.lane = lane
        self.partition = partition
        self.mark = Watermark(position)
        self.committed = position
        self.attempt = claims
        """Of the first message: the others may never have been handed out by the claims before."""


class LogChunk(Chunk):
    """A chunk that knows its claim, its offsets, and which of them were settled.

    Args:
        claim: Of its partition.
        records: What was read.
        build: Makes the delivery at an index.
        attempt: Of the first message.
    """

    __slots__ = ("claim", "offsets", "said")

    def __init__(self, claim: Claim, records: Sequence[Record], build: Callable[[int], Delivery], attempt: int) -> None:
        messages = [record.message for record in records]
        keys = [message.key for message in messages]
        types = [message.content_type for message in messages]
        headers = [message.headers for message in messages]
        super().__init__(
            [message.body for message in messages],
            build,
            lane=claim.lane,
            keys=keys if keys.count(None) < len(keys) else None,
            content_types=types if types.count(None) < len(types) else None,
            headers=headers if any(headers) else None,
            positions=[f"{claim.partition}:{record.offset}" for record in records],
            attempt=attempt,
        )
        self.claim = claim
        self.offsets = [record.offset for record in records]
        self.said = bytearray(len(records))


class Member:
    """One subscriber's membership of a group: which partitions are its own, and what of them is done.

    Its lock is taken before a lane's, and a lane's before the log's. The log calls `moved` from the threads of other
    members, with no lock held: then lanes that are to go elsewhere are fenced at once, though their owner may be busy
    for long. Partitions are claimed by the owner's own thread only.

    Args:
        log: The topic.
        name: Of the topic.
        group: Of the members.
        url: As deliveries show their source.
    """

    def __init__(self, log: LogStore, name: str, group: str, url: str) -> None:
        self._log, self._group, self._url = log, group, url
        self._name = name
        self.delivery = functools.partial(delivery_of, f"{name}/{group}", url)
        self._lock = threading.RLock()
        self._claims: dict[int, Claim] = {}
        self._turn = 0
        self.ready = False
        self._id = -1  # nobody's: `moved` may be called before `join` returns
        self._id = self._join()

    def _join(self) -> int:
        # Weakly: a member that was forgotten without being closed must not live as long as the log.
        this = weakref.WeakMethod(self._moved)

        def moved() -> None:
            method = this()
            if method is not None:
                method()

        return self._log.join(self._group, moved)

    def _moved(self) -> None:
        with self._lock:
            targets = self._log.targets(self._group, self._id)
            self._end([p for p in self._claims if targets is None or p not in targets], yielding=targets is not None)

    def _end(self, partitions: Sequence[int], *, yielding: bool) -> None:
        """End claims: first the fence, then the partition goes; what was settled is committed already."""
        for partition in partitions:
            lane = self._claims.pop(partition).lane
            with lane.lock:
                lane.lose()
        if partitions and yielding:
            self._log.give_up(self._group, self._id, partitions)

    def follow(self) -> None:
        """Do what the last rebalance asks: end claims, begin others, and join again when it was expelled."""
        targets = self._log.targets(self._group, self._id)
        if targets is None:
            self._moved()
            self._id = self._join()
            targets = self._log.targets(self._group, self._id) or frozenset()
        with self._lock:
            self._end([p for p in self._claims if p not in targets], yielding=True)
            for partition in sorted(targets - self._claims.keys()):
                claimed = self._log.claim(self._group, self._id, partition)
                if claimed is not None:
                    lane = Lane(f"{self._name}/{partition}")
                    self._claims[partition] = Claim(lane, partition, claimed.position, claimed.claims)
            self.ready = targets == self._claims.keys()

    def read(self, limit: int, max_bytes: int, skip: Collection[Lane]) -> list[LogChunk]:
        """Read on in every partition that is not to be skipped; each time, another one comes first."""
        chunks: list[LogChunk] = []
        with self._lock:
            own = sorted(self._claims.values(), key=lambda claim: claim.partition)
            self._turn += 1
            first = self._turn % len(own) if own else 0
            for claim in own[first:] + own[:first]:
                if limit > 0 and claim.lane not in skip:
                    chunk = self._read(claim, min(limit, claim.mark.room), max_bytes, alone=not chunks)
                    if chunk is not None:
                        chunks.append(chunk)
                        limit -= len(chunk)
                        max_bytes -= sum(chunk.sizes)
        return chunks

    def _read(self, claim: Claim, limit: int, max_bytes: int, *, alone: bool) -> LogChunk | None:
        if limit <= 0 or (max_bytes <= 0 and not alone):
            return None
        records, end = self._log.read(claim.partition, claim.mark.read, limit, max_bytes)
        if records and len(records[0].message.body or b"") > max_bytes and not alone:
            return None
        with claim.lane.lock:
            if not records:
                claim.mark.pass_over(end)
                return None
            attempt, claim.attempt = claim.attempt, 1
            claim.mark.track_offsets([record.offset for record in records])

        def build(index: int) -> Delivery:
            first = attempt if index == 0 else 1
            return self.delivery(claim.partition, records[index], lane=claim.lane, attempt=first)

        return LogChunk(claim, records, build, attempt)

    def settle(self, settlements: Sequence[Settlement], faults: Faults) -> list[SettleFailure]:
        """Note what is done, and commit the unbroken prefix of each partition.

        Raises:
            CapabilityError: A log can carry out no such verdict. Nothing was attempted.
            BrokerError: Nothing was committed; settle it again.
        """
        if any(settlement.verdict in _REFUSED for settlement in settlements):
            raise CapabilityError(
                f"{self._url} is a log: it can neither hand a message out again nor keep a dead letter."
            )
        failures: list[SettleFailure] = []
        said: list[tuple[LogChunk, int, int]] = []
        with self._lock:
            for settlement in settlements:
                for chunk, start, stop in _parts(settlement, faults, failures):
                    if self._note(chunk, start, stop, settlement.verdict):
                        said.append((chunk, start, stop))
                    else:
                        failures += [_lost(delivery) for delivery in chunk[start:stop]]
            try:
                refused = self._commit({chunk.claim.partition: chunk.claim for chunk, _, _ in said})
            except BaseException:
                for chunk, start, stop in said:
                    chunk.said[start:stop] = bytes(stop - start)
                raise
        for chunk, start, stop in said:
            if chunk.claim.partition in refused:
                failures += [_lost(delivery) for delivery in chunk[start:stop]]
        return failures

    def _note(self, chunk: LogChunk, start: int, stop: int, verdict: Verdict) -> bool:
        claim = chunk.claim
        if chunk.said.find(1, start, stop) >= 0 or self._claims.get(claim.partition) is not claim:
            return False
        with claim.lane.lock:
            if claim.lane.lost:
                return False
            if verdict is Verdict.ACK:
                claim.mark.resolve(chunk.offsets[start], chunk.offsets[stop - 1] + 1)
        chunk.said[start:stop] = b"\1" * (stop - start)
        return True

    def _commit(self, claims: Mapping[int, Claim]) -> frozenset[int]:
        moved = {p: claim.mark.position for p, claim in claims.items() if claim.mark.position != claim.committed}
        refused = self._log.commit(self._group, self._id, moved) if moved else frozenset()
        self._end([p for p in refused if p in self._claims], yielding=False)
        for partition in moved.keys() - refused:
            claims[partition].committed = moved[partition]
        return refused

    def leave(self) -> None:
        """Hand everything back and end the membership."""
        with self._lock:
            self._end(list(self._claims), yielding=True)
            self.ready = False
        self._log.leave(self._group, self._id)

    def backlog(self) -> Backlog:
        """Say what was not handed out: of the partitions of other members, what they have not finished."""
        positions = self._log.committed(self._group)
        with self._lock:
            positions |= {p: claim.mark.read for p, claim in self._claims.items()}
        behind = {p: (positions.get(p, 0), end) for p, end in enumerate(self._log.ends())}
        lags = {str(p): end - position for p, (position, end) in behind.items() if end > position}
        oldest = [
            record.published
            for p, (position, end) in behind.items()
            if end > position
            for record in self._log.read(p, position, 1, 1)[0]
        ]
        age = max(time.time() - min(oldest), 0.0) if oldest else None
        return Backlog(waiting=sum(lags.values()), by_lane=lags, oldest_age=age)


def peek(log: LogStore, name: str, group: str, url: str, limit: int, start: str | None) -> list[Delivery]:
    """Look at what a group has not finished, partition by partition; no membership is needed."""
    positions = log.committed(group)
    first = 0
    if start is not None:
        place, _, offset = start.partition(":")
        if not (place.isdecimal() and offset.isdecimal()):
            raise ConfigError(f"start={start!r}: a position here is a partition and an offset, such as 3:1042.")
        first = int(place)
        positions[first] = int(offset) + 1
    shown: list[Delivery] = []
    for partition in range(first, log.partitions):
        records, _ = log.read(partition, positions.get(partition, 0), max(limit - len(shown), 0), 1 << 62)
        shown += [delivery_of(f"{name}/{group}", url, partition, record, native=False) for record in records]
    return shown


def delivery_of(
    place: str,
    url: str,
    partition: int,
    record: Record,
    *,
    lane: Lane | None = None,
    attempt: int = 1,
    native: bool = True,
) -> Delivery:
    """Make the delivery of a record."""
    position = f"{partition}:{record.offset}"
    return Delivery(
        message=record.message if record.message.id else attrs.evolve(record.message, id=position),
        source=url,
        position=position,
        identity=f"{place}/{position}",
        lane=lane,
        attempt=attempt,
        enqueued_at=datetime.datetime.fromtimestamp(record.published, datetime.UTC),
        native=Place(partition, record.offset) if native else None,
    )


def _parts(
    settlement: Settlement, faults: Faults, failures: list[SettleFailure]
) -> Iterator[tuple[LogChunk, int, int]]:
    """Give the stretches of a settlement, cut where deliveries are refused or were settled before."""
    for chunk, stretch in settlement.spans:
        assert isinstance(chunk, LogChunk)  # noqa: S101 - for the type checker: chunks come from receive
        start, stop, _ = stretch.indices(len(chunk))
        if chunk.said.find(1, start, stop) < 0 and not faults.settlements():
            yield chunk, start, stop
            continue
        for index in range(start, stop):
            error = faults.of_settlement(chunk[index])
            if error is None:
                yield chunk, index, index + 1
            else:
                failures.append(SettleFailure(chunk[index], error))


def _lost(delivery: Delivery) -> SettleFailure:
    text = f"{delivery.source} position {delivery.position}: its claim has ended, or it was settled before."
    return SettleFailure(delivery, LeaseLostError(text))
