"""Reading topics as a member of a group."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from eventflows.adapters import _kafka_look as look
from eventflows.adapters._entered import Entered
from eventflows.adapters._kafka_check import check_source
from eventflows.adapters._kafka_chunks import KafkaChunk, split
from eventflows.adapters._kafka_clients import Partition, client_of
from eventflows.adapters._kafka_group import Group
from eventflows.adapters._kafka_publisher import KafkaPublisher
from eventflows.errors import (
    CapabilityError,
    ClosedError,
    LeaseLostError,
)
from eventflows.message import Chunk, Delivery, Lane, sizes_of
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Backlog, Capabilities, ExtendResult, Finding, Gap, Location, Publisher, SettleFailure

if TYPE_CHECKING:
    from eventflows.adapters._kafka_transactions import Transactor


class KafkaSubscriber(Entered):
    """Reads one or more topics for a group.

    Args:
        location: The source.
        options: See `_kafka_options.SOURCE`.
        capabilities: What is claimed.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.ready = False
        """Whether it has joined its group."""
        self._location = location
        self._options = options
        self._group: Group | None = None
        self._newest: dict[Partition, int] = {}
        self._gaps: list[Gap] = []
        self._transactor: Transactor | None = None
        self._closed = False
        self._woken = False
        self._owner = threading.Lock()

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect, look whether topics and rights are there, and begin to join."""
        with self._owner:
            self._open(timeout)

    def _open(self, timeout: float) -> None:
        if self._group is not None:
            group, self._group = self._group, None
            self.ready = False
            self._gaps += group.gaps()
            group.close(5.0)
        client = client_of(self._options)
        self._group = Group(client, self._location, self._options, timeout, self._newest, self._transactor)
        self._closed = False

    def _opened(self, timeout: float) -> Group:
        if self._closed:
            raise ClosedError(f"{self._location.text} was closed; open it again, or make a new one.")
        if self._group is None:
            self._open(timeout)
        assert self._group is not None  # noqa: S101 - for the type checker: opened above
        return self._group

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages; the client's own fetches are bounded by 4 MiB, and wait while their lane is skipped."""
        with self._owner:
            deadline = time.monotonic() + timeout
            group = self._opened(max(timeout, 5.0))
            group.service()
            while True:
                chunks = self._from_stash(group, limit, max_bytes, skip)
                if chunks:
                    return chunks
                group.member.prepare_bell()
                if self._woken or self._closed:
                    break
                left = deadline - time.monotonic()
                group.poll(limit, max(left, 0.0), skip, lambda: self._woken)
                self.ready = group.member.joined
                if limit and (chunks := self._from_stash(group, limit, max_bytes, skip)):
                    return chunks
                if time.monotonic() >= deadline:
                    return []
            self._woken = False
            if self._closed:
                raise ClosedError(f"{self._location.text} was closed.")
            return []

    def _from_stash(self, group: Group, limit: int, max_bytes: int, skip: Collection[Lane]) -> list[Chunk]:
        chunks: list[Chunk] = []
        columns = group.member.columns
        for claim, records in list(group.stash.items()):
            if claim.lane in skip:
                continue
            if limit <= 0 or (chunks and max_bytes <= 0):
                break
            bodies = columns.bodies(records if len(records) <= limit else records[:limit])
            count, size = split(sizes := sizes_of(bodies), max_bytes)
            if chunks and size > max_bytes:
                break
            taken = records if count == len(records) else records[:count]
            if count == len(records):
                del group.stash[claim]
            else:
                group.stash[claim] = records[count:]
            if count < len(bodies):
                bodies, sizes = bodies[:count], sizes[:count]
            chunks.append(KafkaChunk(claim, columns, taken, bodies, sizes, self._location.text, group.position))
            limit -= count
            max_bytes -= size
        return chunks

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Note what is done; it is committed once a second, or every 2,000 messages, up to the first not done."""
        for settlement in settlements:
            if settlement.verdict not in (Verdict.ACK, Verdict.RELEASE):
                raise CapabilityError(f"{self._location.text}: Kafka cannot {settlement.verdict.value} a message.")
        failures: list[SettleFailure] = []
        touched: list[tuple[KafkaChunk, int, int]] = []
        count = 0
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, KafkaChunk)  # noqa: S101 - for the type checker: chunks come from receive
                start, stop, _ = stretch.indices(len(chunk))
                if not self._resolve(chunk, start, stop, settlement.verdict, failures):
                    continue
                touched.append((chunk, start, stop))
                count += stop - start
        if self._group is not None and not self._closed:
            self._group.commits.note(count)
            if durable and touched:
                failures += self._confirm(self._group, touched, failures, timeout)
        return failures

    def _resolve(
        self, chunk: KafkaChunk, start: int, stop: int, verdict: Verdict, failures: list[SettleFailure]
    ) -> bool:
        claim = chunk.claim
        with claim.lane.lock:
            lost = claim.lane.lost
            repeated: Sequence[int] = ()
            if not lost and verdict is Verdict.ACK:
                repeated = claim.mark.resolve(*chunk.stretch(start, stop))
        if lost:
            failures += [SettleFailure(one, _lost(one)) for one in chunk[start:stop]]
        elif repeated and not claim.unsure:
            known = set(repeated)
            failures += [
                SettleFailure(chunk[i], _lost(chunk[i])) for i in range(start, stop) if chunk.offset(i) in known
            ]
        return not lost

    def _confirm(
        self,
        group: Group,
        touched: list[tuple[KafkaChunk, int, int]],
        failures: list[SettleFailure],
        timeout: float,
    ) -> list[SettleFailure]:
        error = group.commit(timeout)
        told = {id(failure.delivery) for failure in failures}
        return [
            SettleFailure(one, _lost(one) if error is None or chunk.claim.lane.lost else error)
            for chunk, start, stop in touched
            if error is not None or chunk.claim.lane.lost
            for one in chunk[start:stop]
            if id(one) not in told
        ]

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Kafka has no leases."""
        raise CapabilityError(f"{self._location.text}: Kafka has no lease to extend; a member keeps its partitions.")

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Commit what was settled."""
        if self._group is None or self._closed:
            return []
        error = self._group.commit(timeout)
        if error is not None and not isinstance(error, LeaseLostError):
            raise error
        return []

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits on the partitions of all topics; what is held by this member is not counted."""
        with self._owner:
            return self._opened(timeout).backlog(timeout)

    def gaps(self) -> Sequence[Gap]:
        """Say what retention, or somebody else, removed before it was read."""
        found, self._gaps = self._gaps, []
        return found + ([] if self._group is None else self._group.gaps())

    def share_transactions(self, publishers: Sequence[Publisher]) -> None:
        """Commit positions from now on only together with outputs."""
        from eventflows.adapters._kafka_transactions import Transactor

        where = self._location.text
        with self._owner:
            group = self._opened(30.0)
            cluster = group.member.cluster
            for publisher in publishers:
                if not isinstance(publisher, KafkaPublisher) or cluster is None or publisher.cluster != cluster:
                    raise CapabilityError(
                        f'{where}: guarantee="exactly-once" needs outputs and dead letters on the same Kafka cluster. '
                        "Choose destinations there, or leave guarantee= out."
                    )
            if self._options.get("isolation", "read_committed") != "read_committed":
                raise CapabilityError(f'{where}: guarantee="exactly-once" needs isolation=read_committed.')
            first = publishers[0]
            assert isinstance(first, KafkaPublisher)  # noqa: S101 - for the type checker: looked at above
            self._transactor = Transactor(
                client_of(self._options), first.location, first.options, str(self._options["group"])
            )
            self._transactor.prepare(30.0)  # a missing right is told now
            group.share(self._transactor)

    def claim_position(self, settlements: Sequence[Settlement]) -> object | None:
        """Give what `transact` of the destination commits; None: nothing is new."""
        from eventflows.adapters._kafka_transactions import TransactedCommits

        group = self._group
        if group is None or not isinstance(group.commits, TransactedCommits):
            return None
        return group.commits.claim(settlements)

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at what waits from the group's position on, without joining it."""
        return look.peek(client_of(self._options), self._location, self._options, limit, start, timeout)

    def check(self) -> Sequence[Finding]:
        """Say whether brokers, topics and group can be used."""
        return check_source(client_of(self._options), self._location, self._options)

    def entities(self) -> Sequence[str]:
        """Give the names of the topics that we may see."""
        return look.entities(client_of(self._options), self._location, self._options)

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        self._woken = True
        group = self._group
        if group is not None:
            group.member.ring()

    def close(self, *, timeout: float = 30.0) -> None:
        """Commit what was settled, leave the group, disconnect."""
        self._closed = True
        self.wake()
        mine = self._owner.acquire(timeout=timeout)
        try:
            group, self._group = self._group, None
            self._woken = self.ready = False
            try:
                if group is not None:
                    group.close(timeout)
            finally:
                if self._transactor is not None:
                    self._transactor.close()
        finally:
            if mine:
                self._owner.release()


def _lost(one: Delivery) -> LeaseLostError:
    return LeaseLostError(f"{one.source}: {one.position} was settled before, or its partition is somebody else's now.")
