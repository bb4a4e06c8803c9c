"""Looking at a hub without joining a group: peek, lag, check."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Final

from eventflows.adapters._azure import READ, mend
from eventflows.adapters._eventhubs_claims import Claim, EventHubsChunk
from eventflows.adapters._eventhubs_errors import condition_of, translate
from eventflows.adapters._eventhubs_events import Event
from eventflows.adapters._eventhubs_place import Place, connect
from eventflows.adapters._eventhubs_positions import Positions
from eventflows.adapters._eventhubs_wire import body_of
from eventflows.errors import BrokerError, ConfigError, ConnectionFailedError, EventflowsError
from eventflows.message import Delivery
from eventflows.protocols import Finding

STOLEN: Final = "amqp:link:stolen"
DEFAULT: Final = "$Default"
SILENCE: Final = 5.0
"""Seconds of silence that say something: nothing lies behind a time; or it is worth asking whether we may read."""
CLOSING: Final = 3.0
ANSWER: Final = 15.0
"""Seconds for an answer about a partition."""
NOBODY: Final = "eventflows-check"


class BusyGroupError(Exception):
    """A member of the group reads the partition, and the service lets nobody look beside it."""


def key_of(client: Any, group: str, partition: str) -> dict[str, str]:  # noqa: ANN401 - the client
    """Give what stores know a partition by, as the client writes it."""
    return {
        "fully_qualified_namespace": client._address.hostname,
        "eventhub_name": client.eventhub_name,
        "consumer_group": group,
        "partition_id": partition,
    }


def client_of(place: Place, options: Mapping[str, object], group: str) -> Any:  # noqa: ANN401 - the client
    """Make a client that reads partitions by name, and joins nothing."""
    from azure.eventhub.aio import EventHubConsumerClient

    return connect(EventHubConsumerClient, place, options, consumer_group=group, retry_total=0)


async def described(client: Any, partitions: Sequence[str] = ()) -> dict[str, Mapping[str, Any]]:  # noqa: ANN401
    """Ask for the ends of partitions; of every one, if none are named."""
    partitions = partitions or await client.get_partition_ids()
    found = await asyncio.gather(*[client.get_partition_properties(one) for one in partitions])
    return dict(zip(partitions, found, strict=True))


def _settle(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


async def refusal(client: Any, group: str, partition: str) -> Exception | None:  # noqa: ANN401 - the client
    """Attach a reader at the end of a partition and let it go; gives what the service has against it.

    The client's own readers say nothing when their link is refused: they try again for ever. So this is what tells
    that a group is missing, or that we may not listen.
    """

    async def ignore(events: object) -> None:
        pass

    reader = client._create_consumer(group, partition, "@latest", ignore, prefetch=1)
    opening = asyncio.ensure_future(reader._open_with_retry())
    try:
        await asyncio.wait([opening], timeout=ANSWER)
        if opening.done():
            return None if opening.cancelled() or condition_of(opening.exception()) == STOLEN else opening.exception()
        return ConnectionFailedError(f"a reader of partition {partition} got no answer within {ANSWER:g} s.")
    finally:
        await asyncio.wait([opening], timeout=CLOSING)  # cancelled on its way it would leave its socket open
        await asyncio.wait([asyncio.ensure_future(reader.close())], timeout=CLOSING)


async def _left(client: Any) -> None:  # noqa: ANN401 - the client
    """Close a client; one whose link was refused may wait for ever, whatever cancels it, and is left behind."""
    await asyncio.wait([asyncio.ensure_future(client.close())], timeout=CLOSING)


# Lag.


def waiting(ends: Mapping[str, Mapping[str, Any]], read: Mapping[str, int], start: object) -> dict[str, int]:
    """Count what waits in each partition.

    Args:
        ends: What the service says of each.
        read: The number behind the last that was read, of those that have one.
        start: Where one that has none begins.
    """
    found = {}
    for partition, said in ends.items():
        end, first = int(said["last_enqueued_sequence_number"]) + 1, int(said["beginning_sequence_number"])
        begin = start.get(partition, "-1") if isinstance(start, Mapping) else start
        unread = end if begin == "@latest" else begin + 1 if isinstance(begin, int) else first
        found[partition] = 0 if said["is_empty"] else max(end - max(read.get(partition, unread), first), 0)
    return found


# Peek.


async def peek(
    place: Place, options: Mapping[str, object], positions: Positions, limit: int, start: str | None
) -> Sequence[Delivery]:
    """Look at what waits, by the time it was published, then by partition and number.

    Raises:
        ConfigError: `start` is no position here.
        BrokerError: By its class; every group that we know of is being read.
    """
    group = str(options["group"])
    for through in dict.fromkeys((group, DEFAULT)):
        client = client_of(place, options, through)
        try:
            return await _Peek(client, place, {**options, "group": through}, positions, limit).run(group, start)
        except BusyGroupError:
            continue
        finally:
            await _left(client)
    raise BrokerError(
        f"{place.text}: a member reads {group}, and another {DEFAULT}, so nobody may look beside them. Make a consumer "
        "group to look through, and name it in the URL."
    )


class _Peek:
    """One look: reads each partition from its position until its end, or until there is enough."""

    def __init__(
        self,
        client: Any,  # noqa: ANN401 - the client
        place: Place,
        options: Mapping[str, object],
        positions: Positions,
        limit: int,
    ) -> None:
        self._client = client
        self._place = place
        self._options = options
        self._positions = positions
        self._limit = limit

    async def run(self, group: str, start: str | None) -> list[Delivery]:
        ends = await described(self._client)
        begin: dict[str, object] = {}
        after: tuple[Any, ...] | None = None
        if start is not None:
            begin, after = await self._after(start, ends)
        else:
            key = key_of(self._client, group, "")
            kept = await self._positions.of(key)
            default = self._options.get("from", "-1")
            for one in ends:
                fresh = default.get(one, "-1") if isinstance(default, Mapping) else default
                begin[one] = int(kept[one]["sequence_number"]) if one in kept else fresh
        found = await asyncio.gather(*[self._read(one, begin[one], ends[one], after) for one in ends])
        rows = sorted((row for rows in found for row in rows), key=lambda row: _order(*row))
        return [self._delivery(partition, event, group) for partition, event in rows[: self._limit]]

    async def _after(self, start: str, ends: Mapping[str, Any]) -> tuple[dict[str, object], tuple[Any, ...]]:
        """Find the event of a position, and begin every partition at its time."""
        partition, _, number = start.partition(":")
        if partition not in ends or not number.isdecimal():
            raise ConfigError(f"start={start!r}: a position here is partition:number, such as 0:1042.")
        other = client_of(self._place, self._options, str(self._options["group"]))  # one reads a partition once
        try:
            rows = await self._read(partition, int(number) - 1, ends[partition], None, client=other)
        finally:
            await _left(other)
        if not rows or rows[0][1].sequence_number != int(number):
            raise ConfigError(f"start={start!r}: there is no such event, or it is no longer kept.")
        moment = rows[0][1].enqueued_time - datetime.timedelta(milliseconds=1)
        begin: dict[str, object] = dict.fromkeys(ends, moment)
        begin[partition] = int(number)
        return begin, _order(*rows[0])

    async def _read(
        self,
        partition: str,
        begin: object,
        said: Mapping[str, Any],
        after: tuple[Any, ...] | None,
        client: Any = None,  # noqa: ANN401 - the client
    ) -> list[tuple[str, Event]]:
        end, rows = int(said["last_enqueued_sequence_number"]), list[tuple[str, Event]]()
        if said["is_empty"] or begin == "@latest" or (isinstance(begin, int) and begin >= end):
            return rows
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wanted = self._limit if client is None else 1

        async def take(context: Any, events: Sequence[Event]) -> None:  # noqa: ANN401 - the client's
            if not events:  # nothing comes: it was told to begin at a time behind the last event
                _settle(done, None)
            for event in events:
                if after is None or _order(partition, event) > after:
                    rows.append((partition, event))
            if events and (len(rows) >= wanted or events[-1].sequence_number >= end):
                _settle(done, None)

        await self._until(done, client or self._client, partition, begin, take)
        return rows

    async def _until(
        self,
        done: asyncio.Future[None],
        client: Any,  # noqa: ANN401 - the client
        partition: str,
        begin: object,
        take: Any,  # noqa: ANN401
    ) -> None:
        async def refused(context: Any, error: Exception) -> None:  # noqa: ANN401 - the client's
            if not done.done():
                done.set_exception(BusyGroupError() if condition_of(error) == STOLEN else error)

        reading = asyncio.ensure_future(
            client.receive_batch(
                take, on_error=refused, partition_id=partition, starting_position=begin, max_wait_time=SILENCE,
                prefetch=max(self._limit, 1),
            )
        )  # fmt: skip
        try:
            await done
        finally:
            reading.cancel()

    def _delivery(self, partition: str, event: Event, group: str) -> Delivery:
        claim = Claim(self._place.text, key_of(self._client, group, partition), None, None)
        chunk = EventHubsChunk([(event, body_of(event))], claim)
        claim.end()  # it was looked at: nothing of it can be settled
        return chunk[0]


def _order(partition: str, event: Event) -> tuple[Any, ...]:
    return event.enqueued_time, partition, event.sequence_number


# Check.


async def check(place: Place, options: Mapping[str, object], positions: Positions) -> list[Finding]:
    """Say, one line each, whether namespace, hub, group and the place of the positions can be used."""
    group = str(options["group"])
    findings, client = [], None
    try:
        client = client_of(place, options, group)
        ends = await described(client)
        findings.append(Finding("ok", f"{place.text}: the namespace answers, and accepts who we are"))
        findings.append(Finding("ok", f"hub {place.hub} has {len(ends)} partitions", lanes=len(ends)))
        findings.append(await _group(client, place, group, ends))
        key = key_of(client, group, NOBODY)
        findings.append(await _store(positions, key, str(options["checkpoints"])))
    except Exception as error:  # noqa: BLE001 - it is what the check has found
        ours = error if isinstance(error, EventflowsError) else translate(error, place.text, "check")
        fix = mend(ours, missing="Create the hub, or correct the URL.", denied=READ)
        findings.append(Finding("error", str(ours), fix))
    finally:
        if client is not None:
            await _left(client)
    return findings


async def _group(client: Any, place: Place, group: str, ends: Mapping[str, Mapping[str, Any]]) -> Finding:  # noqa: ANN401
    """Attach a reader to one partition; nothing is taken."""
    error = await refusal(client, group, next(iter(ends)))
    if error is None:
        return Finding("ok", f"group {group} can be read")
    ours = translate(error, place.text, "receive")
    fix = mend(ours, missing="Create the consumer group, or correct group=.", denied=READ)
    return Finding("error", f"group {group} cannot be read: {ours}", fix)


async def _store(positions: Positions, key: Mapping[str, str], kept: str) -> Finding:
    """Ask for a claim that cannot be: it is refused once we were let in, and nothing is written."""
    try:
        await positions.owner(key)
        row = {**key, "owner_id": NOBODY, "etag": '"0x0"'}
        taken = list(await positions.store.claim_ownership([row]))
    except Exception as error:  # noqa: BLE001 - it is what the check has found
        ours = error if isinstance(error, EventflowsError) else translate(error, f"checkpoints={kept}", "check")
        return Finding(
            "error", str(ours), "Create it, correct checkpoints=, or give us the right to read and write it."
        )
    if taken:  # the vendor's store says so of whatever goes wrong there
        fix = "Give us the right to write, such as the role Storage Blob Data Contributor."
        return Finding("error", f"checkpoints={kept} can be read, but not written", fix)
    return Finding("ok", f"checkpoints={kept} can be read and written")
