"""Azure Event Hubs: `eventhubs://namespace/hub?group=$Default`.

Names:
    An event hub is a *topic*, its consumer group a *consumer group*; a *lane* is one claim of a partition. The *key*
    is the partition key. A *checkpoint* is the position of a group in a partition, kept in a store of ours.

Guarantees:
    At least once. Each partition keeps its order, so equal keys keep theirs. Checkpoints never pass an unfinished
    event. A group without checkpoints begins at the oldest event, unless `from` says otherwise. Partitions are shared
    with the other members of the group; a slow one delays neither the others nor the renewal of ownership.

Cannot:
    Events are not handed out again, delayed or dead-lettered by the service: the flow waits, or publishes a copy.
    There are no leases, no delivery counts and no transactions. Ids are those of the publisher.

Limits:
    A publication has at most 1 MB, all of it (256 KB on Basic); the link says which. Checkpoints are written after
    500 events or 5 seconds, when a claim ends and when a flow ends: so much may come again after a crash, or when
    another member takes a partition by force. Stores are a SQLite file of one machine, and
    memory.
    Source: "Event Hubs quotas" and "Event processor host", learn.microsoft.com; the behaviour of the client was
    measured with azure-eventhub 5.15.1.

Native access:
    `Delivery.native` is the client's `EventData`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from eventflows.adapters._eventhubs_claims import AHEAD, Claim, EventHubsChunk
from eventflows.adapters._eventhubs_errors import condition_of, translate
from eventflows.adapters._eventhubs_loop import Loop
from eventflows.adapters._eventhubs_place import BALANCE, DESTINATION, FORM, MEMORY, SOURCE, connect, place_of, validate
from eventflows.adapters._eventhubs_publish import EventHubsPublisher
from eventflows.adapters._eventhubs_store import SqliteStore
from eventflows.adapters._eventhubs_wire import Event, body_of
from eventflows.adapters._watermark import RewoundError
from eventflows.errors import (
    BrokerError,
    CapabilityError,
    ClosedError,
    ConnectionFailedError,
    LeaseLostError,
    MissingExtraError,
    OutcomeUnknownError,
)
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import (
    AdapterSpec,
    Backlog,
    Capabilities,
    ExtendResult,
    Finding,
    Location,
    SettleFailure,
    Subscriber,
)

PUBLICATION_BYTES: Final = 1_048_576  # of a publication, on Standard and above ("Event Hubs quotas")
SAVE_EVENTS: Final = 500
SAVE_SECONDS: Final = 5.0
PREFETCH: Final = 100  # events that the client fetches ahead for each partition
STOLEN: Final = "amqp:link:stolen"

CAPABILITIES: Final = Capabilities(
    settle="watermark",
    release="never",
    ordering="lane",
    groups=True,
    replay=True,
    max_receive=1000,
    max_publish_bytes=PUBLICATION_BYTES,
)


class EventHubsSubscriber:
    """Reads one consumer group of one hub, with the client's asyncio half on a private loop.

    Args:
        location: The source.
        options: `group`, `checkpoints`, `from`, `balance`, `connection-string` or `credential`.
    """

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        self.capabilities = CAPABILITIES
        self.ready = False
        self._location = location
        self._place = place_of(location)
        self._options = options
        self._group = str(options["group"])
        path = str(options["checkpoints"])
        self._store = SqliteStore(None if path == MEMORY else path)
        self._loop: Loop | None = None
        self._client: Any = None
        self._reading: asyncio.Task[None] | None = None
        self._came = threading.Condition()
        self._claims: dict[str, Claim] = {}
        self._errors: deque[BrokerError] = deque()
        self._turn = 0
        self._woken = False
        self._closed = False

    def __repr__(self) -> str:
        """Show the URL."""
        return f"EventHubsSubscriber({self._place.text!r})"

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
            loop.call(self._join(), timeout, "open")
        except OutcomeUnknownError as error:
            self._let_go(1.0)
            raise ConnectionFailedError(f"{self._place.text} did not answer within {timeout:g} s.") from error
        except Exception as error:
            self._let_go(1.0)
            raise error if isinstance(error, BrokerError) else translate(error, self._place.text, "open") from error

    async def _join(self) -> None:
        from azure.eventhub.aio import EventHubConsumerClient

        client = self._client = connect(
            EventHubConsumerClient,
            self._place,
            self._options,
            consumer_group=self._group,
            checkpoint_store=self._store,
            load_balancing_interval=float(str(self._options.get("balance", BALANCE))),
            retry_total=0,
        )
        await client.get_partition_ids()
        self._reading = asyncio.ensure_future(
            client.receive_batch(
                self._on_events,
                on_error=self._on_error,
                on_partition_initialize=self._on_claim,
                on_partition_close=self._on_end,
                starting_position=self._options.get("from", "-1"),
                prefetch=PREFETCH,
            )
        )

    def _let_go(self, timeout: float) -> None:
        """End every claim, leave the group, end the loop; what hangs is left behind."""
        loop, client, reading = self._loop, self._client, self._reading
        self._loop = self._client = self._reading = None
        self._end_claims()
        self._errors.clear()
        if loop is None or loop.elsewhere:
            return

        async def leave() -> None:
            if client is not None:
                await client.close()
            if reading is not None:
                reading.cancel()  # it would sleep until its next balancing
                await asyncio.wait([reading], timeout=1.0)

        deadline = time.monotonic() + timeout
        with contextlib.suppress(Exception):  # it is thrown away, whatever state it is in
            loop.call(leave(), timeout, "close")
        loop.stop(max(deadline - time.monotonic(), 0.5))

    def _end_claims(self) -> None:
        with self._came:
            claims, self._claims = list(self._claims.values()), {}
            self.ready = False
            self._came.notify_all()
        for claim in claims:
            claim.end()

    def close(self, *, timeout: float = 30.0) -> None:
        """Save what was settled, leave the group; the second call does nothing.

        Raises:
            BrokerError: A checkpoint could not be written; what it would have covered comes again.
        """
        if self._closed:
            return
        deadline = time.monotonic() + timeout
        error = next((one.error for one in self._save_all(timeout / 2)), None) if self._loop is not None else None
        self._closed = True
        self.wake()
        self._let_go(max(deadline - time.monotonic(), 0.0))
        if error is not None:
            raise error

    def _entered(self, timeout: float) -> Loop:
        if self._closed:
            raise ClosedError(f"{self._place.text} was closed; open it again, or make a new one.")
        if self._loop is None or self._loop.elsewhere:
            self.open(timeout=timeout)
        assert self._loop is not None  # noqa: S101 - open has made it, or raised
        return self._loop

    # The client's callbacks, on the loop. No exception may leave them: the client would give the partition away.

    async def _on_claim(self, context: Any) -> None:  # noqa: ANN401 - the client's
        rows: Iterable[dict[str, Any]] = ()
        with contextlib.suppress(Exception):  # the client has read them, and begins where it was told; this is for lag
            rows = await self._store.list_checkpoints(
                context.fully_qualified_namespace, context.eventhub_name, context.consumer_group
            )
        found = next((row for row in rows if row["partition_id"] == context.partition_id), None)
        key = {
            "fully_qualified_namespace": context.fully_qualified_namespace,
            "eventhub_name": context.eventhub_name,
            "consumer_group": context.consumer_group,
            "partition_id": context.partition_id,
        }
        self._begin(key, found, await self._owner_of(key))

    def _begin(self, key: dict[str, str], checkpoint: dict[str, Any] | None, owner: str | None) -> None:
        claim = Claim(self._place.text, key, checkpoint, owner)
        with self._came:
            before = self._claims.get(claim.partition)
            self._claims[claim.partition] = claim
            self.ready = True
            self._came.notify_all()
        if before is not None:
            before.end()

    async def _on_events(self, context: Any, events: Sequence[Event]) -> None:  # noqa: ANN401 - the client's
        claim = self._claims.get(context.partition_id)
        if claim is None or not events:
            return
        read = [(event, body_of(event)) for event in events]
        with self._came:
            claim.waiting.extend(read)
            self._came.notify_all()
        # Only this partition's reader waits; the others, and the renewal of ownership, go on.
        while len(claim.waiting) >= AHEAD and not claim.lane.lost:
            claim.space.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(claim.space.wait(), 1.0)

    async def _on_end(self, context: Any, reason: Any) -> None:  # noqa: ANN401 - the client's
        with self._came:
            claim = self._claims.pop(context.partition_id, None)
            self.ready = bool(self._claims)
            self._came.notify_all()
        if claim is None:
            return
        last = claim.to_save()
        claim.end()
        # What another member has taken meanwhile is no longer ours to write to.
        if last is not None and claim.owner is not None and await self._owner_of(claim.key) == claim.owner:
            row = {**claim.key, "offset": last[1], "sequence_number": last[0]}
            with contextlib.suppress(Exception):  # it comes again: nothing is lost
                await self._store.update_checkpoint(row)

    async def _owner_of(self, key: Mapping[str, str]) -> str | None:
        """Ask the store who owns a partition; None: it does not say."""
        with contextlib.suppress(Exception):  # without an answer nothing is written
            rows = await self._store.list_ownership(
                key["fully_qualified_namespace"], key["eventhub_name"], key["consumer_group"]
            )
            return next((row["owner_id"] for row in rows if row["partition_id"] == key["partition_id"]), None)
        return None

    async def _on_error(self, context: Any, error: Exception) -> None:  # noqa: ANN401 - the client's
        if type(error).__name__ == "OwnershipLostError" or condition_of(error) == STOLEN:
            return  # another member has the partition: the claim ends, and that says all
        with self._came:
            self._errors.append(translate(error, self._place.text, "receive"))
            self._came.notify_all()

    # Receiving.

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages."""
        deadline = time.monotonic() + timeout
        self._entered(timeout)
        self._save_due()
        while True:
            with self._came:
                if self._closed:
                    raise ClosedError(f"{self._place.text} was closed; open it again, or make a new one.")
                if self._errors:
                    raise self._errors.popleft()
            chunks = self._take(limit, max_bytes, skip) if limit > 0 else []
            left = deadline - time.monotonic()
            if chunks or self._woken or left <= 0:
                self._woken = self._woken and bool(chunks)
                return chunks
            with self._came:
                if not self._woken and not self._errors and not self._some(limit, skip):
                    self._came.wait(min(left, 1.0))

    def _some(self, limit: int, skip: Collection[Lane]) -> bool:
        return limit > 0 and any(claim.waiting and claim.lane not in skip for claim in self._claims.values())

    def _take(self, limit: int, max_bytes: int, skip: Collection[Lane]) -> list[Chunk]:
        """Hand out what waits, partition by partition, beginning with another one each time."""
        claims = [claim for claim in list(self._claims.values()) if claim.waiting and claim.lane not in skip]
        chunks: list[Chunk] = []
        for index in range(len(claims)):
            claim = claims[(index + self._turn) % len(claims)]
            share = max(limit // (len(claims) - index), 1)
            if limit <= 0 or (chunks and max_bytes <= 0):
                break
            try:
                chunk = claim.take(min(share, limit), max(max_bytes // (len(claims) - index), 1))
            except RewoundError:
                self._begin(claim.key, None, claim.owner)  # the log was made anew: what comes is another log's
                continue
            if chunk is not None:
                chunks.append(chunk)
                limit -= len(chunk)
                max_bytes -= sum(chunk.sizes)
                if self._loop is not None and len(claim.waiting) < AHEAD:
                    self._loop.soon(claim.space.set)
        self._turn += 1
        return chunks

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        with self._came:
            self._woken = True
            self._came.notify_all()

    # Settling.

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Note what is done; with `durable` the checkpoints are written when this returns."""
        for settlement in settlements:
            if settlement.verdict not in (Verdict.ACK, Verdict.RELEASE):
                raise CapabilityError(f"{self._place.text} is a log: it has no {settlement.verdict.value}.")
        if self._closed:
            raise ClosedError(f"{self._place.text} was closed; open it again, or make a new one.")
        failures: list[SettleFailure] = []
        touched: dict[Claim, list[tuple[EventHubsChunk, int]]] = {}
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, EventHubsChunk)  # noqa: S101 - for the type checker: chunks come from receive
                indices = range(*stretch.indices(len(chunk)))
                lost = self._note(chunk, indices, settlement.verdict)
                failures.extend(SettleFailure(chunk[index], self._lost(chunk, index)) for index in lost)
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

    async def _save(self, claim: Claim) -> None:
        async with claim.saving:
            last = claim.to_save()
            if last is not None:
                number, offset = last
                await self._store.update_checkpoint({**claim.key, "offset": offset, "sequence_number": number})
                claim.note_saved(number)

    def _save_due(self) -> None:
        """Begin to write the checkpoints whose time has come, without waiting."""
        now = time.monotonic()
        for claim in list(self._claims.values()):
            if claim.finished >= SAVE_EVENTS or (claim.finished and now - claim.saved_at >= SAVE_SECONDS):
                claim.saved_at, claim.finished = now, 0
                if self._loop is not None:
                    self._loop.start(self._save_or_say(claim))

    async def _save_or_say(self, claim: Claim) -> None:
        try:
            await self._save(claim)
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow hears of it at its next receive
            with self._came:
                self._errors.append(translate(error, self._place.text, "checkpoint"))

    def _save_all(self, timeout: float, claims: Iterable[Claim] | None = None) -> list[_Unsaved]:
        loop = self._loop
        if loop is None or loop.elsewhere:
            return []
        deadline = time.monotonic() + timeout
        chosen = list(self._claims.values() if claims is None else claims)
        work = [(claim, loop.start(self._save(claim))) for claim in chosen]
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
        failed = self._save_all(timeout)
        if failed:
            raise failed[0].error
        return []

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits in the partitions that are claimed here."""
        loop = self._entered(timeout)
        claims = dict(self._claims)

        async def ask() -> list[dict[str, Any]]:
            return list(await asyncio.gather(*[self._client.get_partition_properties(one) for one in claims]))

        try:
            found = loop.call(ask(), timeout, "backlog")
        except BrokerError:
            raise
        except Exception as error:
            raise translate(error, self._place.text, "backlog") from error
        by_lane = {}
        for claim, said in zip(claims.values(), found, strict=True):
            empty = said["is_empty"]
            end = int(said["last_enqueued_sequence_number"]) + 1
            by_lane[claim.lane.name] = 0 if empty else max(end - self._read(claim, said), 0)
        return Backlog(waiting=sum(by_lane.values()), by_lane=by_lane)

    def _read(self, claim: Claim, said: Mapping[str, Any]) -> int:
        if claim.watermark is not None:
            return claim.watermark.read
        if claim.checkpoint is not None:
            return int(claim.checkpoint["sequence_number"]) + 1
        newest = self._options.get("from") == "@latest"
        return int(said["last_enqueued_sequence_number"]) + 1 if newest else int(said["beginning_sequence_number"])

    def check(self) -> Sequence[Finding]:
        """Look whether it can be reached, is there, and positions can be kept."""
        try:
            with EventHubsSubscriber(self._location, self._options):
                pass
        except BrokerError as error:
            return [Finding("error", f"{self._place.text}: {error}", "Mend what it says.")]
        return [Finding("ok", f"{self._place.text} can be read by {self._group}")]

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class _Unsaved:
    """A checkpoint that was not written."""

    def __init__(self, claim: Claim, error: BrokerError) -> None:
        self.claim = claim
        self.error = error


def _capabilities(location: Location, options: Mapping[str, object]) -> Capabilities:
    return CAPABILITIES


def _needs_client() -> None:
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.eventhub") is None:
        raise MissingExtraError("eventhubs:// needs the Event Hubs client. Install eventflows[eventhubs].")


def _subscriber(location: Location, options: Mapping[str, object]) -> Subscriber:
    _needs_client()
    return EventHubsSubscriber(location, options)


def _publisher(location: Location, options: Mapping[str, object]) -> EventHubsPublisher:
    _needs_client()
    return EventHubsPublisher(location, options, CAPABILITIES)


ADAPTER: Final = AdapterSpec(
    scheme="eventhubs",
    form=FORM,
    capabilities=_capabilities,
    validate=validate,
    subscriber=_subscriber,
    publisher=_publisher,
    source_options=SOURCE,
    destination_options=DESTINATION,
)
