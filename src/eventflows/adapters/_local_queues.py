"""Subscriber and publisher of the embedded broker as another's queue: `emulate=sqs` and `emulate=servicebus`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import attrs

from eventflows.adapters._local_chunk import LocalChunk, Receipt
from eventflows.adapters._local_emulate import Profile
from eventflows.adapters._local_publisher import Answered, LocalPublisher
from eventflows.adapters._local_store import Grant, Word
from eventflows.adapters._local_subscriber import LocalSubscriber
from eventflows.errors import BrokerError, CapabilityError
from eventflows.message import Batch, Chunk, Delivery, Lane, Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import ExtendResult, Location, Pending, PublishResult, SettleFailure, Subscriber

KEY: Final = "ef-key"
"""The header in which a key travels where keys have no order: so the store does not give them any."""


class QueueSubscriber(LocalSubscriber):
    """Reads one queue.

    Args:
        location: The source.
        options: `file`, `lease`, `dead-letter`, `sync`, `seed`.
        profile: What it plays.
    """

    def __init__(self, location: Location, options: Mapping[str, object], profile: Profile) -> None:
        super().__init__(location, options)
        self._profile = profile
        self._lease = float(str(options.get("lease", profile.lease)))
        self._lanes = profile.capabilities.ordering == "lane"
        self._expiries = 0
        self._since: dict[int, float] = {}
        """By the grant, for as long as something of it is held: when it was handed out."""

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages; a lane with a message that was taken back, and did not come again, is lost."""
        self._mark_expired()
        try:
            limit = min(limit, self._profile.capabilities.max_receive)
            return super().receive(limit, max_bytes=max_bytes, timeout=timeout, skip=skip)
        finally:
            if self._lanes:
                self._lose_lanes()

    def _mark_expired(self) -> None:
        """Note in the receipts that all leases were ended at once: a file tells each process of its own time only."""
        if self._found is None or self._found.expiries == self._expiries:
            return
        self._expiries = self._found.expiries
        for chunk in self._chunks:
            for index in range(len(chunk)):
                grant, place = chunk.receipt(index)
                grant.later[place] = float("-inf")

    def _lose_lanes(self) -> None:
        now = self._broker.clock()
        for chunk in list(self._chunks):
            taken_back = any(
                not chunk.said[index] and (not grant.open[place] or grant.lease(place) <= now)
                for index in range(len(chunk))
                for grant, place in [chunk.receipt(index)]
            )
            if taken_back and chunk.lane is not None:
                with chunk.lane.lock:
                    chunk.lane.lose()
                self._chunks.remove(chunk)

    def _fresh(self, grant: Grant) -> Sequence[Chunk]:
        self._mark_expired()  # before what came again gets its new receipt
        held = {id(receipt.grant) for chunk in self._chunks for receipt in [chunk.receipt(0), *chunk.renewed.values()]}
        self._since = {one: since for one, since in self._since.items() if one in held}
        self._since[id(grant)] = self._store.clock()
        most = self._profile.max_deliveries
        spent = [] if most is None else [index for index, attempt in grant.attempts.items() if attempt > most]
        if spent and self.capabilities.dead_letter:
            self._store.settle(self._group, [_too_many(grant, index) for index in spent])
            left = [index for index in range(len(grant.numbers)) if grant.open[index]]
            if not left:
                return []
            offset = self.now() - self._store.clock()
            self._chunks += (fresh := self._cut(grant, offset, left))
            return fresh
        return super()._fresh(grant)

    def _cut(self, grant: Grant, offset: float, only: list[int] | None) -> list[LocalChunk]:
        if not self._lanes:
            chunks = super()._cut(grant, offset, only)
            for chunk in chunks:
                _show_keys(chunk)
            return chunks
        places = range(len(grant.numbers)) if only is None else only
        by_group: dict[str | None, list[int]] = {}
        for place in places:
            by_group.setdefault(None if grant.keys is None else grant.keys[place], []).append(place)
        return [self._of_lane(grant, offset, group, some) for group, some in by_group.items()]

    def _of_lane(self, grant: Grant, offset: float, group: str | None, places: list[int]) -> LocalChunk:
        lane = Lane(f"{self._location.authority}/{group}")
        build = self._builder(grant, offset, places)

        def build_in_lane(index: int) -> Delivery:
            return attrs.evolve(build(index), lane=lane)

        chunk = LocalChunk(grant, build_in_lane, grant.until + offset, places)
        chunk.lane = lane
        return chunk

    def _builder(self, grant: Grant, offset: float, only: list[int] | None) -> Callable[[int], Delivery]:
        build = super()._builder(grant, offset, only)
        return build if self._lanes else lambda index: _with_key(build(index))

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Carry out verdicts; handing back counts as a delivery."""
        longest = self.capabilities.redeliver_delay
        if any(one.verdict is Verdict.RETRY and one.delay > longest for one in settlements) and not longest:
            raise CapabilityError(f"{self._location.text}: {self._profile.name} redelivers at once only, not later.")
        if not self.capabilities.dead_letter and any(one.verdict is Verdict.DEAD_LETTER for one in settlements):
            raise CapabilityError(f"{self._location.text}: {self._profile.name} keeps no dead letters on command.")
        counted = [
            attrs.evolve(one, verdict=Verdict.RETRY, delay=0.0)
            if one.verdict is Verdict.RELEASE
            else attrs.evolve(one, delay=min(one.delay, longest))
            for one in settlements
        ]
        self._mark_expired()
        return super().settle(counted, durable=durable, timeout=timeout)

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Keep deliveries for longer, as the broker does: for its own time, or no longer than it allows in all."""
        if self._profile.fixed_lease:
            seconds = self._lease
        longest = self.capabilities.lease_limit
        if longest is None:
            return super().extend(held, seconds, timeout=timeout)
        end = self._store.clock() + seconds
        over = [isinstance(one, Delivery) and end > self._first(one) + longest for one in held]
        asked = [one for one, refused in zip(held, over, strict=True) if not refused]
        given = iter(super().extend(asked, seconds, timeout=timeout) if asked else ())
        return [
            ExtendResult(one, None, self._too_long(one)) if refused else next(given)
            for one, refused in zip(held, over, strict=True)
        ]

    def _lose(self, delivery: Delivery) -> None:
        """Hold a delivery no more, nor anything behind it in its lane: that may not overtake it."""
        super()._lose(delivery)
        if delivery.lane is not None:
            with delivery.lane.lock:
                delivery.lane.lose()
            self._chunks = [chunk for chunk in self._chunks if chunk.lane is not delivery.lane]

    def _first(self, delivery: Delivery) -> float:
        grant = delivery.native.grant if isinstance(delivery.native, Receipt) else None
        return self._since.get(id(grant), float("inf"))

    def _too_long(self, one: Delivery | Lane) -> BrokerError:
        what = one.position if isinstance(one, Delivery) else one.name
        return BrokerError(
            f"{self._location.text}: {what} would be held for more than {self.capabilities.lease_limit:g} s in all; "
            "it comes again when its lease ends."
        )

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at what waits; where looking is a receive, from the beginning alone.

        Raises:
            CapabilityError: `start` was given where it cannot be: leave it out.
        """
        if start is not None and self._profile.capabilities.peek == "counts":
            raise CapabilityError(f"{self._location.text}: a queue has no positions to begin after; leave start= out.")
        return [_with_key(delivery) for delivery in super().peek(limit, start=start, timeout=timeout)]

    def dead_letters(self) -> Subscriber:
        """Give a subscriber of the dead letters, not opened."""
        plain = super().dead_letters()
        assert isinstance(plain, LocalSubscriber)  # noqa: S101 - for the type checker
        return QueueSubscriber(plain._location, plain._options, self._profile)

    def _hand_back(self) -> None:
        """Give back all that is held; it counts as a delivery of each."""
        receipts = [
            chunk.receipt(index) for chunk in self._chunks for index in range(len(chunk)) if not chunk.said[index]
        ]
        words = [
            Word(grant, place, place + 1, Verdict.RETRY) for grant, place in receipts if grant.owner is self._owner
        ]
        if words:
            self._store.settle(self._group, words)
        for chunk in self._chunks:
            if chunk.lane is not None:
                with chunk.lane.lock:
                    chunk.lane.lose()
        super()._hand_back()


class QueuePublisher(LocalPublisher):
    """Writes to one queue.

    Args:
        location: The destination.
        options: `file`, `sync`, `seed`.
        profile: What it plays.
    """

    def __init__(self, location: Location, options: Mapping[str, object], profile: Profile) -> None:
        super().__init__(location, options)
        self._profile = profile

    def send(self, batch: Sequence[Message]) -> Pending:
        """Publish; the answers are there at once."""
        return Answered(self.publish(batch))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish; in a file the messages are on disk when this returns."""
        errors: list[BrokerError | None] = [self._profile.fault(message) for message in batch]
        good = [message for message, error in zip(batch, errors, strict=True) if error is None]
        if self._profile.capabilities.ordering == "none":
            good = [_without_key(message) for message in good]
        results = iter(super().publish(Batch.of(good), timeout=timeout) if good or not any(errors) else ())
        return [next(results) if error is None else PublishResult(None, error) for error in errors]


def _too_many(grant: Grant, index: int) -> Word:
    return Word(grant, index, index + 1, Verdict.DEAD_LETTER, reason="MaxDeliveryCountExceeded")


def _without_key(message: Message) -> Message:
    if message.key is None:
        return message
    return attrs.evolve(message, key=None, headers={**message.headers, KEY: message.key})


def _with_key(delivery: Delivery) -> Delivery:
    headers = delivery.message.headers
    if KEY not in headers:
        return delivery
    plain = {name: value for name, value in headers.items() if name != KEY}
    return attrs.evolve(delivery, message=attrs.evolve(delivery.message, key=headers[KEY], headers=plain))


def _show_keys(chunk: LocalChunk) -> None:
    """Put the keys back into their column."""
    if chunk.headers is not None and any(headers and KEY in headers for headers in chunk.headers):
        chunk.keys = [(headers or {}).get(KEY) for headers in chunk.headers]
