"""Reading one consumer group of one hub: what the core calls, and what it waits for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from eventflows.adapters import _eventhubs_look as look
from eventflows.adapters._azure import OPEN
from eventflows.adapters._entered import Entered
from eventflows.adapters._eventhubs_claims import AHEAD, Claim, EventHubsChunk
from eventflows.adapters._eventhubs_errors import translate
from eventflows.adapters._eventhubs_loop import Loop
from eventflows.adapters._eventhubs_member import Member
from eventflows.adapters._eventhubs_place import place_of
from eventflows.adapters._eventhubs_positions import SAVE_SECONDS, Positions, store_of
from eventflows.adapters._watermark import RewoundError
from eventflows.errors import (
    BrokerError,
    CapabilityError,
    ClosedError,
    ConnectionFailedError,
    EventflowsError,
    LeaseLostError,
    OutcomeUnknownError,
)
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Backlog, Capabilities, ExtendResult, Finding, Location, SettleFailure

T = TypeVar("T")
CHECKING: Final = 60.0
"""Seconds for a check, all of it."""


class EventHubsSubscriber(Entered):
    """Reads one consumer group of one hub, with the client's asyncio half on a private loop.

    Args:
        location: The source.
        options: `group`, `checkpoints` and the others of `SOURCE`.
        capabilities: Of Event Hubs.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self.capabilities = capabilities
        self.ready = False
        self._place = place_of(location)
        self._options = options
        self._positions = Positions(store_of(options), self._place.text)
        self._loop: Loop | None = None
        self._member = self._new_member()
        self._turn = 0
        self._woken = False
        self._closed = False

    def __repr__(self) -> str:
        """Show the URL."""
        return f"EventHubsSubscriber({self._place.text!r})"

    def _new_member(self) -> Member:
        return Member(self._place, self._options, self._positions, self._claims_changed)

    def _claims_changed(self, member: Member) -> None:
        if member is self._member:
            claims = member.claims.values()
            self.ready = bool(claims) and all([claim.linked for claim in claims])

    # Opening and closing.

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and join the group; what was received before can no longer be settled.

        Raises:
            NotFoundError: The hub is not there. Create it.
            AuthenticationError: Correct the credentials.
            ConnectionFailedError: It is worth trying again.
        """
        if self._loop is not None:
            self._save_all(min(timeout, SAVE_SECONDS))  # the store may be there though the connection is not
        self._let_go(timeout)
        self._closed = False
        loop = self._loop = Loop("eventflows-eventhubs", self._place.text)
        try:
            loop.call(self._member.join(), timeout, OPEN)
        except OutcomeUnknownError as error:
            self._let_go(1.0)
            raise ConnectionFailedError(f"{self._place.text} did not answer within {timeout:g} s.") from error
        except Exception as error:
            self._let_go(1.0)
            raise error if isinstance(error, EventflowsError) else translate(error, self._place.text, OPEN) from error

    def _let_go(self, timeout: float) -> None:
        """End every claim, leave the group, end the loop; what hangs is left behind."""
        loop, member = self._loop, self._member
        self._loop, self._member = None, self._new_member()
        member.end_claims()
        if loop is None or loop.elsewhere:
            return
        deadline = time.monotonic() + timeout
        with contextlib.suppress(Exception):  # it is thrown away, whatever state it is in
            loop.call(member.leave(), timeout, "close")
        loop.stop(max(deadline - time.monotonic(), 0.5))

    def close(self, *, timeout: float = 30.0) -> None:
        """Save what was settled, leave the group; the second call does nothing.

        Raises:
            BrokerError: A checkpoint could not be written; what it would have covered comes again.
        """
        if self._closed:
            return
        deadline = time.monotonic() + timeout
        error = next((one.error for one in self._save_all(timeout / 2) if not one.lost), None)
        self._closed = True
        self.wake()
        self._let_go(max(deadline - time.monotonic(), 0.0))
        self._positions.store.close()
        if error is not None:
            raise error

    def _entered(self, timeout: float) -> Loop:
        self._not_closed()
        if self._loop is None or self._loop.elsewhere:
            self.open(timeout=timeout)
        assert self._loop is not None  # noqa: S101 - open has made it, or raised
        return self._loop

    def _not_closed(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._place.text} was closed; open it again, or make a new one.")

    # Receiving.

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages."""
        deadline = time.monotonic() + timeout
        self._entered(timeout)
        member = self._member
        self._save_due()
        while True:
            self._not_closed()
            with member.came:
                if member.errors:
                    raise member.errors.popleft()
            chunks = self._take(limit, max_bytes, skip) if limit > 0 else []
            left = deadline - time.monotonic()
            if chunks or self._woken or left <= 0:
                self._woken = self._woken and bool(chunks)
                return chunks
            with member.came:
                if not self._woken and not member.errors and not self._some(limit, skip):
                    member.came.wait(min(left, 1.0))

    def _some(self, limit: int, skip: Collection[Lane]) -> bool:
        return limit > 0 and any(claim.waiting and claim.lane not in skip for claim in self._member.claims.values())

    def _take(self, limit: int, max_bytes: int, skip: Collection[Lane]) -> list[Chunk]:
        """Hand out what waits, partition by partition, beginning with another one each time."""
        claims = [claim for claim in list(self._member.claims.values()) if claim.waiting and claim.lane not in skip]
        chunks: list[Chunk] = []
        for index in range(len(claims)):
            claim = claims[(index + self._turn) % len(claims)]
            share = max(limit // (len(claims) - index), 1)
            if limit <= 0 or (chunks and max_bytes <= 0):
                break
            try:
                chunk = claim.take(min(share, limit), max(max_bytes // (len(claims) - index), 1))
            except RewoundError:
                self._member.begin(
                    claim.key, None, claim.owner, 1
                )  # the log was made anew: what comes is another log's
                continue
            if chunk is not None:
                chunks.append(chunk)
                limit -= len(chunk)
                max_bytes -= sum(chunk.sizes)
                if claim.full and len(claim.waiting) < AHEAD and self._loop is not None:
                    claim.full = False
                    self._loop.soon(claim.space.set)
        self._turn += 1
        return chunks

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        with self._member.came:
            self._woken = True
            self._member.came.notify_all()

    # Settling.

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Note what is done; with `durable` the checkpoints are written when this returns."""
        for settlement in settlements:
            if settlement.verdict not in (Verdict.ACK, Verdict.RELEASE):
                raise CapabilityError(f"{self._place.text} is a log: it has no {settlement.verdict.value}.")
        self._not_closed()
        failures: list[SettleFailure] = []
        touched: dict[Claim, list[tuple[EventHubsChunk, int]]] = {}
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, EventHubsChunk)  # noqa: S101 - for the type checker: chunks come from receive
                indices = range(*stretch.indices(len(chunk)))
                lost = self._note(chunk, indices, settlement.verdict)
                failures.extend(SettleFailure(chunk[index], self._lost(chunk, index)) for index in lost)
                if durable:
                    gone = set(lost)
                    touched.setdefault(chunk.claim, []).extend((chunk, i) for i in indices if i not in gone)
        if durable:
            for failed in self._save_all(timeout, touched):
                failures.extend(SettleFailure(chunk[i], failed.error) for chunk, i in touched.get(failed.claim, ()))
        return failures

    def _note(self, chunk: EventHubsChunk, indices: range, verdict: Verdict) -> Sequence[int]:
        claim = chunk.claim
        with claim.lane.lock:
            if claim.lane.lost:
                return list(indices)
            if verdict is Verdict.RELEASE or not indices:
                return ()  # it stays unfinished, until the claim ends
            again = set(claim.resolve(chunk.numbers[indices[0]], chunk.numbers[indices[-1]] + 1))
        return [index for index in indices if chunk.numbers[index] in again] if again else ()

    def _lost(self, chunk: EventHubsChunk, index: int) -> LeaseLostError:
        position = chunk.position(index)
        return LeaseLostError(
            f"{self._place.text} has taken {position} back: its claim ended, or it was settled before."
        )

    def _save_due(self) -> None:
        """Begin to write the checkpoints whose time has come, without waiting."""
        for claim in list(self._member.claims.values()):
            if self._loop is not None and self._positions.is_due(claim):
                claim.saved_at, claim.finished = time.monotonic(), 0
                self._loop.start(self._save_or_say(claim, self._member))

    async def _save_or_say(self, claim: Claim, member: Member) -> None:
        try:
            await self._positions.save(claim)
        except LeaseLostError:
            claim.end()  # the client learns it at its next balancing
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow hears of it at its next receive
            member.fail(error, "checkpoint")

    def _save_all(self, timeout: float, claims: Iterable[Claim] | None = None) -> list[_Unsaved]:
        loop = self._loop
        if loop is None or loop.elsewhere:
            return []
        deadline = time.monotonic() + timeout
        chosen = list(self._member.claims.values() if claims is None else claims)
        work = [(claim, loop.start(self._positions.save(claim))) for claim in chosen]
        failed = []
        for claim, future in work:
            try:
                future.result(max(deadline - time.monotonic(), 0.0))
            except Exception as error:  # noqa: BLE001 - each claim's error is its own
                future.cancel()
                failed.append(_Unsaved(claim, translate(error, self._place.text, "checkpoint")))
        return failed

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """There is nothing to extend."""
        raise CapabilityError(f"{self._place.text} is a log: it has no leases.")

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Write the checkpoints now.

        Raises:
            BrokerError: One could not be written; the events since the last come again after a restart.
        """
        failed = [one for one in self._save_all(timeout) if not one.lost]
        if failed:
            raise failed[0].error
        return []

    # Looking.

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits in each partition, those of other members included, as far as they have written it down."""
        loop = self._entered(timeout)
        member = self._member

        async def ask() -> dict[str, int]:
            ends = await look.described(member.client, member.partitions)
            kept = await self._positions.of(look.key_of(member.client, str(self._options["group"]), ""))
            read = {one: int(row["sequence_number"]) + 1 for one, row in kept.items()}
            marks = {one: claim.watermark for one, claim in list(member.claims.items())}
            read |= {one: mark.read for one, mark in marks.items() if mark is not None}
            return look.waiting(ends, read, self._options.get("from", "-1"))

        found = self._asked(loop, ask(), timeout, "backlog")
        by_lane = {f"{self._place.hub}/{partition}": count for partition, count in found.items()}
        return Backlog(waiting=sum(by_lane.values()), by_lane=by_lane)

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at events that wait, oldest first; where a member reads the group, through `$Default`.

        Raises:
            ConfigError: `start` is no position here.
            BrokerError: Members read both; make a group to look through.
        """
        return self._apart(look.peek(self._place, self._options, self._positions, limit, start), timeout, "peek")

    def check(self) -> Sequence[Finding]:
        """Look whether it can be reached, lets us in, has hub and group, and positions can be kept."""
        try:
            return self._apart(look.check(self._place, self._options, self._positions), CHECKING, "check")
        except BrokerError as error:
            return [Finding("error", str(error), "Mend what it says.")]

    def _apart(self, work: Coroutine[Any, Any, T], timeout: float, doing: str) -> T:
        """Run what needs no membership on a loop of its own."""
        loop = Loop("eventflows-eventhubs-look", self._place.text)
        try:
            return self._asked(loop, work, timeout, doing)
        finally:
            loop.stop(1.0)

    def _asked(self, loop: Loop, work: Coroutine[Any, Any, T], timeout: float, doing: str) -> T:
        try:
            return loop.call(work, timeout, doing)
        except EventflowsError:
            raise
        except Exception as error:
            raise translate(error, self._place.text, doing) from error


class _Unsaved:
    """A checkpoint that was not written."""

    def __init__(self, claim: Claim, error: BrokerError) -> None:
        self.claim = claim
        self.error = error
        self.lost = isinstance(error, LeaseLostError)
        """Another member has the partition: what was done comes again there, as after every claim that ends."""
        if self.lost:
            claim.end()  # the client learns it at its next balancing
