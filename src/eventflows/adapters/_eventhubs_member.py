"""One membership in a group, from joining to leaving: what the client calls, claims, errors, the watch.

Everything here runs on the private loop, unless it says otherwise. No exception may leave what the client calls: it
would give the partition away.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from eventflows.adapters._eventhubs_claims import AHEAD, Claim
from eventflows.adapters._eventhubs_errors import condition_of, translate
from eventflows.adapters._eventhubs_events import Event, leave_unmade, sections
from eventflows.adapters._eventhubs_look import ANSWER, CLOSING, SILENCE, STOLEN, refusal
from eventflows.adapters._eventhubs_place import BALANCE, WATCH, Place, connect
from eventflows.adapters._eventhubs_positions import Positions
from eventflows.adapters._eventhubs_wire import NUMBER, body_of
from eventflows.errors import ConnectionFailedError, EventflowsError

PREFETCH: Final = 600
"""Events that the client fetches ahead for each partition; it asks for more when it has read all, so few cost time."""

LINKING: Final = 0.02
"""Seconds between two looks whether a link is open; it takes half a second, as a rule."""


class Member:
    """A member of a consumer group.

    Args:
        place: The hub.
        options: Of the subscriber.
        positions: Of the group.
        changed: Told when claims came or went.
    """

    def __init__(
        self,
        place: Place,
        options: Mapping[str, object],
        positions: Positions,
        changed: Callable[[Member], None],
    ) -> None:
        self.came = threading.Condition()
        """Held while claims, errors or waiting events change; notified when they did."""
        self.claims: dict[str, Claim] = {}
        self.errors: deque[Exception] = deque()
        self.client: Any = None
        self.partitions: Sequence[str] = ()
        """All of the hub, once joined; the client, too, asks for them but once."""
        self._place = place
        self._options = options
        self._positions = positions
        self._changed = changed
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: list[Claim] = []

    # Joining and leaving.

    async def join(self) -> None:
        """Connect, and begin to balance and to read."""
        from azure.eventhub.aio import EventHubConsumerClient

        client = self.client = connect(
            EventHubConsumerClient,
            self._place,
            self._options,
            consumer_group=str(self._options["group"]),
            checkpoint_store=self._positions.store,
            load_balancing_interval=float(str(self._options.get("balance", BALANCE))),
            retry_total=0,
        )
        leave_unmade(client)
        reading = client.receive_batch(
            self._on_events,
            on_error=self._on_error,
            on_partition_initialize=self._on_claim,
            on_partition_close=self._on_end,
            starting_position=self._options.get("from", "-1"),
            prefetch=PREFETCH,
        )
        self._tasks = [asyncio.ensure_future(reading)]
        # Asked for beside the balancing, which asks for them, too, and tells nobody when it is refused.
        self.partitions = await client.get_partition_ids()
        self._tasks.append(asyncio.ensure_future(self._watch()))

    async def leave(self) -> None:
        """Stop to read and yield the partitions."""
        for task in self._tasks[1:]:
            task.cancel()
        if self.client is not None:
            await self._close_client()
        for task in self._tasks:
            task.cancel()  # the client's would sleep until its next balancing
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING)
        for claim in self._ended:
            await self._discount(claim)

    async def _close_client(self) -> None:
        """Close the client, which looks only once a second whether its readers have ended; it may wait for ever."""
        processors = list(self.client._event_processors.values())
        closing = asyncio.ensure_future(self.client.close())
        deadline = time.monotonic() + CLOSING
        await asyncio.sleep(0)
        while any(one._tasks for one in processors) and time.monotonic() < deadline:
            await asyncio.wait([closing], timeout=0.01)
        closing.cancel()  # all that is left of it is its sleep

    def end_claims(self) -> None:
        """End every claim; from any thread."""
        with self.came:
            claims, self.claims = list(self.claims.values()), {}
            self._say()
        for claim in claims:
            claim.end()
        self._ended += claims

    def _say(self) -> None:
        self._changed(self)
        self.came.notify_all()

    # What the client calls.

    async def _on_claim(self, context: Any) -> None:  # noqa: ANN401 - the client's
        key = {
            "fully_qualified_namespace": context.fully_qualified_namespace,
            "eventhub_name": context.eventhub_name,
            "consumer_group": context.consumer_group,
            "partition_id": context.partition_id,
        }
        checkpoint, owner, attempt = None, None, 1
        try:
            checkpoint = (await self._positions.of(key)).get(context.partition_id)
            owner = await self._positions.owner(key)
            attempt = await self._positions.count(key, _position(checkpoint))
        except Exception as error:  # noqa: BLE001 - the client reads from where it was told; the flow hears of it
            self.fail(error, "checkpoint")
        self.begin(key, checkpoint, owner, attempt)
        self._tasks.append(asyncio.ensure_future(self._await_link(self.claims[context.partition_id])))

    async def _await_link(self, claim: Claim) -> None:
        """Note when the link of a claim's reader, made just before the claim, is open; the client tells nobody."""
        readers = [one._consumers.get(claim.partition) for one in self.client._event_processors.values()]
        while not claim.lane.lost and not any(one.running for one in readers if one is not None):  # noqa: ASYNC110
            await asyncio.sleep(LINKING)
        with self.came:
            claim.linked = True
            self._say()

    def begin(self, key: dict[str, str], checkpoint: dict[str, Any] | None, owner: str | None, attempt: int) -> None:
        """Begin a claim, in place of the one before; from any thread."""
        claim = Claim(self._place.text, key, checkpoint, owner, attempt)
        if checkpoint is not None or self._options.get("from", "-1") == "-1":
            claim.heard = claim.heard_before = _position(checkpoint)
        with self.came:
            before = self.claims.get(claim.partition)
            claim.linked = before is not None and before.linked
            self.claims[claim.partition] = claim
            self._say()
        if before is not None:
            before.end()

    async def _on_events(self, context: Any, events: Sequence[Event]) -> None:  # noqa: ANN401 - the client's
        claim = self.claims.get(context.partition_id)
        if claim is None or not events:
            return
        try:
            read = [(event, body_of(event)) for event in events]
            heard = int(sections(events[-1:])[0][0][NUMBER])
        except Exception as error:  # noqa: BLE001 - an event that cannot be read must not be passed over
            self._give_up(claim)
            self.fail(error, "receive")
            return
        with self.came:
            claim.waiting.extend(read)
            claim.heard = heard
            self.came.notify_all()
        # Only this partition's reader waits; the others, and the renewal of ownership, go on.
        while len(claim.waiting) >= AHEAD and not claim.lane.lost:
            claim.space.clear()
            claim.full = True
            if len(claim.waiting) >= AHEAD:  # or else it was taken meanwhile, by one who had not seen that we wait
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(claim.space.wait(), 1.0)
        claim.full = False

    def _give_up(self, claim: Claim) -> None:
        with self.came:
            self.claims.pop(claim.partition, None)
            self._say()
        claim.end()
        self._ended.append(claim)

    async def _on_end(self, context: Any, reason: Any) -> None:  # noqa: ANN401 - the client's
        with self.came:
            claim = self.claims.pop(context.partition_id, None)
            self._say()
        if claim is None:
            return
        with contextlib.suppress(Exception):  # what was not written comes again: nothing is lost
            await self._positions.save(claim)
        claim.end()
        await self._discount(claim)

    async def _discount(self, claim: Claim) -> None:
        with contextlib.suppress(Exception):  # a claim too many is counted
            await self._positions.discount(claim.key, _position(claim.checkpoint))

    async def _on_error(self, context: Any, error: Exception) -> None:  # noqa: ANN401 - the client's
        if type(error).__name__ == "OwnershipLostError" or condition_of(error) == STOLEN:
            return  # another member has the partition: the claim ends, and that says all
        self.fail(error, "receive")

    def fail(self, error: Exception, doing: str) -> None:
        """Let the flow hear of an error at its next receive; from any thread."""
        with self.came:
            ours = error if isinstance(error, EventflowsError) else translate(error, self._place.text, doing)
            self.errors.append(ours)
            self.came.notify_all()

    # The watch: links that hang in their opening, and readers that stopped without a word.

    async def _watch(self) -> None:
        every = float(str(self._options.get("watch", WATCH)))
        await asyncio.sleep(min(SILENCE, every))
        if not any(claim.waiting or claim.watermark for claim in self.claims.values()):
            refused = await refusal(self.client, str(self._options["group"]), self.partitions[0])
            if refused is not None:
                self.fail(refused, "receive")
                return
        while True:
            await asyncio.sleep(every)
            for claim in list(self.claims.values()):
                if await self._is_stuck(claim):
                    text = f"{self._place.text}: {claim.lane.name} gave nothing for {every:g} s, though it has more."
                    self.fail(ConnectionFailedError(f"{text} It is opened again."), "receive")
                    return

    async def _is_stuck(self, claim: Claim) -> bool:
        """Whether a reader had a whole turn of the watch to bring what its partition had, and brought nothing."""
        heard, before, owed = claim.heard, claim.heard_before, claim.owed
        claim.heard_before, claim.owed = heard, None
        if claim.waiting or claim.lane.lost or heard != before:
            return False  # it is not silent
        try:
            said = await asyncio.wait_for(self.client.get_partition_properties(claim.partition), ANSWER)
        except Exception as error:  # noqa: BLE001 - the flow hears of it
            self.fail(error, "receive")
            return False
        claim.owed = -1 if said["is_empty"] else int(said["last_enqueued_sequence_number"])
        if claim.heard is None:
            claim.heard = claim.owed  # it was told to begin at the end, or at a time: what comes later must be heard
        return owed is not None and heard is not None and heard < min(owed, claim.owed) and heard == claim.heard


def _position(checkpoint: Mapping[str, Any] | None) -> int:
    return -1 if checkpoint is None else int(checkpoint["sequence_number"])
