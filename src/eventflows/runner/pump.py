"""The pump: the one thread that owns the subscriber. It receives, gives out, settles; it never publishes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    HaltedError,
    RunError,
    ThrottledError,
    WorkerLostError,
)
from eventflows.message import Chunk
from eventflows.observe import Observers
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Expiring, Subscriber
from eventflows.runner.dispatch import STUCK_SECONDS, Dispatch
from eventflows.runner.failures import Failures, destination_refuses, last_word_refused
from eventflows.runner.hands import Hands, TakenBack
from eventflows.runner.held import GONE, SENDING, WAITING, Held, Span
from eventflows.runner.inbox import Inbox
from eventflows.runner.leases import Leases
from eventflows.runner.outbox import Confirmed, Discarded, Event, Place, Trouble, Unpublishable
from eventflows.runner.plan import Plan
from eventflows.runner.result import Tally
from eventflows.runner.runs import Parcel, Report, Worker
from eventflows.runner.transactions import Transactions, settling_for

_log: Final = logging.getLogger("eventflows")

IDLE: Final = 1.0
"""Seconds that a receive blocks, at most, when nothing else is due."""
DEFAULT_BYTES: Final = 64 * 1024 * 1024
FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 10.0
DRAIN_WAIT: Final = 1.0
"""Seconds between attempts to say the last words, at most, to a source that is gone."""
SETTLE_PAUSES: Final = (0.02, 0.1, 0.5)
"""Seconds between attempts to settle, before the subscriber is opened again."""


class Pump:
    """One flow's heart; `turn` is called until `ended`.

    Args:
        plan: The flow.
        subscriber: Open; used by this thread only.
        workers: Started.
        outbox: Of the destination; None without one.
        letters: The outbox of dead-letter copies; None without one.
        observers: Told of everything.
        tally: Counted in.
        inbox: Where workers and outboxes report.
        limit: Inputs to settle finally; None: no limit.
        until_idle: Seconds without anything to do after which it drains; None: never.
    """

    def __init__(
        self,
        plan: Plan,
        subscriber: Subscriber,
        workers: Sequence[Worker],
        *,
        outbox: Place | None,
        letters: Place | None,
        observers: Observers,
        tally: Tally,
        inbox: Inbox,
        limit: int | None,
        until_idle: float | None,
    ) -> None:
        self._plan = plan
        self._clock = plan.clock
        self._subscriber = subscriber
        self._expiring = subscriber if isinstance(subscriber, Expiring) else None
        self._outbox = outbox
        self._letters = letters
        self._observers = observers
        self._tally = tally
        self._inbox = inbox
        self._limit = limit
        self._until_idle = until_idle
        self._hands = Hands(lambda lane: observers.tell("lane_lost", lane=lane))
        self._order = plan.order or ("none" if subscriber.capabilities.ordering == "none" else "key")
        self._dispatch = Dispatch(workers, self._order, batch=plan.batch, batch_wait=plan.batch_wait)
        self._taken_back = TakenBack(self._hands, observers)
        self._leases = Leases(self._taken_back.add, plan.clock)
        self._transactions = outbox if isinstance(outbox, Transactions) else None
        self._settling = settling_for(outbox, gone=self._gone, lost=self._taken_back.add, failed=self._unsettled)
        self._failures = Failures(
            plan,
            subscriber.capabilities,
            dispatch=self._dispatch,
            settling=self._settling,
            letters=letters,
            observers=observers,
            tally=tally,
            halt=self.halt,
        )
        self._at_most_once = plan.guarantee == "at-most-once"
        self._refused = False
        self._busy_at = self._clock.now()
        self._wait = 0.0
        self._serviced = 0.0
        self.draining = False
        self.error: Exception | None = None
        """Why the run ends, when it does not end well."""

    @property
    def ended(self) -> bool:
        """Whether it drained: nothing runs, nothing is on its way, nothing waits to be settled."""
        if not self.draining or self._dispatch.running or len(self._settling) or self._inbox:
            return False
        if self._at_most_once and (self._dispatch.waiting or self._dispatch.parked):
            return False
        return all(set(held.state) <= {WAITING, GONE} for held in self._hands)

    def halt(self, error: RunError) -> None:
        """End the run because of an error; everything else is finished and settled first."""
        if self.error is None:
            self.error = error
            position = error.position if isinstance(error, HaltedError) else None
            self._observers.tell("halted", position=position, reason=str(error))
        self.draining = True

    def turn(self) -> None:
        """Do what is due, once; blocks a second at most."""
        try:
            self._leases.renew(self._subscriber, self._clock.now())
            for event in self._inbox.take():
                self._handle(event)
            if self.draining and not self._at_most_once:
                self.hand_back()
            if self._transactions is not None:
                self._transactions.turn(self._subscriber)
            self._settle()
            self._dispatch.unpark(now := self._clock.now())
            if not self.draining or self._at_most_once:
                self._dispatch.feed(now)
            self._check_end(now)
            self._taken_back.tell()  # now: a receive may block
            if not (self.draining and self.ended):
                self._receive(now)
            self._wait = 0.0
        except BrokerError as error:
            self._trouble(error)
        finally:
            self._taken_back.tell()

    def hand_back(self) -> None:
        """Give back what no worker has begun, where the broker takes it back at once."""
        spans = self._dispatch.take_all()
        if self._subscriber.capabilities.release != "never":
            self._settling.say(Verdict.RELEASE, spans)
        if self._transactions is not None and not self._dispatch.running and not self._inbox:
            self._transactions.abandon()

    def give_up(self) -> None:
        """Hand back all that is left, begun or not; the last thing before the subscriber closes."""
        self._settling.settle(self._subscriber)
        left = [
            (held, start, stop)
            for held in self._hands
            for state in (WAITING, SENDING)
            for start, stop in held.stretches(state)
        ]
        if self._at_most_once and left:
            _log.error(
                "flow %s: %d messages that were acknowledged were not finished; "
                'with guarantee="at-most-once" they do not come again.',
                self._plan.name, sum(stop - start for _, start, stop in left),
            )  # fmt: skip
            return
        self._settling.say(Verdict.RELEASE, left)
        self._settling.settle(self._subscriber)
        failures = self._subscriber.flush(timeout=10.0)
        self._taken_back.tell()
        if failures:
            self._observers.tell("lease_lost", deliveries=[failure.delivery for failure in failures])

    def _check_end(self, now: float) -> None:
        if self._limit is not None and self._tally.finished >= self._limit:
            self.draining = True
        if self._hands.count or self._inbox or not self._subscriber.ready:
            self._busy_at = now
        elif self._until_idle is not None and now - self._busy_at >= self._until_idle:
            backlog = self._subscriber.backlog()
            if backlog is not None and backlog.waiting:
                self._busy_at = now
            else:
                self.draining = True

    @property
    def _unconfirmed(self) -> int:
        return sum(box.size for box in (self._outbox, self._letters) if box is not None)

    def _room(self) -> tuple[int, int]:
        cap = self._plan.cap(self._dispatch.average)
        room = cap - self._hands.count
        if room < cap // 4 and self._dispatch.waiting and not self._dispatch.idle:
            room = 0  # a few at a time costs more than it brings, while the workers have something to do
        room = min(room, self._subscriber.capabilities.max_receive)
        if self._limit is not None:  # the last few are worth it: what waits may be waiting for its key
            room = min(room, self._limit - self._tally.finished - self._hands.count)
        size = (self._plan.max_in_flight_bytes or DEFAULT_BYTES) - self._hands.bytes - self._unconfirmed
        return (room, size) if room > 0 and size > 0 and not self._refused else (0, 0)

    def _receive(self, now: float) -> None:
        due = min(self._leases.next_due(), self._dispatch.next_due(), self._dispatch.next_batch()) - now
        timeout = min(IDLE, max(due, 0.0))
        if self._until_idle is not None and not self._hands.count:
            timeout = min(timeout, max(self._busy_at + self._until_idle - now, 0.0))
        if self._plan.workers > 1 and self._dispatch.running:
            timeout = min(timeout, STUCK_SECONDS)
        room, size = (0, 0) if self.draining else self._room()
        if room <= 0:
            self._inbox.wait(timeout)
            if self._clock.now() - self._serviced >= IDLE:
                self._service()
            return
        timeout = max(timeout, self._subscriber.capabilities.min_slice)
        self._inbox.listen(self._subscriber.wake)
        try:
            if self._inbox:
                return
            chunks = self._subscriber.receive(room, max_bytes=size, timeout=timeout)
        finally:
            self._inbox.listen(None)
        self._serviced = self._clock.now()
        self._tell_gaps()
        for chunk in chunks:
            self._take(chunk)

    def _service(self) -> None:
        """Keep the membership alive while nothing may be received."""
        self._subscriber.receive(0, max_bytes=0, timeout=0.0)
        self._serviced = self._clock.now()
        self._tell_gaps()

    def _tell_gaps(self) -> None:
        for gap in self._expiring.gaps() if self._expiring is not None else ():
            self._observers.tell("gap", lane=gap.lane, first=gap.first, last=gap.last)

    def _take(self, chunk: Chunk) -> None:
        held = self._hands.take(chunk, self._clock.now())
        self._tally.received += held.left
        self._observers.tell("received", chunk=chunk)
        if self._at_most_once:
            self._acknowledge_first(held)
            return
        self._leases.add(held)
        if self._transactions is not None:
            self._transactions.received(held)
        if chunk.attempt <= self._plan.retry.attempts:
            self._dispatch.add(held, 0, held.left)
            return
        for index in range(len(chunk)):
            if chunk[index].attempt <= self._plan.retry.attempts:
                self._dispatch.add(held, index, index + 1)
            else:
                self._failures.exhausted(
                    held,
                    index,
                    WorkerLostError("earlier attempts ended without a word: their process died, or lost its lease"),
                )

    def _acknowledge_first(self, held: Held) -> None:
        """Give the last word before the first: what happens after cannot bring the message back."""
        whole = Settlement(verdict=Verdict.ACK, spans=[(held.chunk, slice(0, held.left))])
        where = {id(held.chunk[index]): index for index in range(held.left)}
        for failure in self._subscriber.settle([whole], durable=True):
            self._taken_back.add(held, where[id(failure.delivery)])  # it comes again, so it must not run now
        held.acked = True
        for start, stop in list(held.stretches(WAITING)):
            self._dispatch.add(held, start, stop)

    def _handle(self, event: Report | Event) -> None:
        match event:
            case Report():
                self._reported(event)
            case Confirmed(outbox, parcels, count):
                self._confirmed(outbox, parcels, count)
            case Unpublishable(outbox, held, index, message, error):
                if held.lost or held.state[index] == GONE:
                    return
                if outbox is self._letters:
                    self._failures.copy_refused(held, index, message, error)
                else:
                    held.state[index] = WAITING
                    self._failures.failed(held, index, error, undecodable=False, unit=None)
            case Trouble(outbox, error, delay, refused):
                self._refused = self._refused or refused > 0
                self._observers.tell("reconnecting", place=outbox.place, error=error, delay=delay)
                if refused > self._plan.grace:
                    self._halt_for_destination(outbox, error)
            case Discarded(_, held, index, count):
                self._discarded(held, index, count)

    def _halt_for_destination(self, outbox: Place, error: Exception) -> None:
        self.halt(destination_refuses(self._plan.name, outbox.place, error))
        outbox.stop(abandon=True)
        for held in self._hands:
            for start, stop in list(held.stretches(SENDING)):
                held.mark(start, stop, WAITING)

    def _reported(self, report: Report) -> None:
        self._dispatch.reported(report, self._clock.now())
        for span in report.done:
            if not self._fenced(span[0]):
                self._settling.ack(span)
        parcels = [part for parcel in report.parcels for part in self._sendable(parcel)]
        if parcels and self._outbox is not None:
            self._outbox.put(parcels)
        if report.fatal is not None:
            self.halt(report.fatal)
        follow = self._dispatch.skipped(report.skipped)
        follow += self._dispatch.skipped(report.returned, alone=report.alone)
        for held, index, error, undecodable, unit in report.failed:
            if not self._fenced(held) and held.state[index] != GONE:
                self._failures.failed(held, index, error, undecodable=undecodable, unit=unit)
        if follow:
            self._settling.say(Verdict.RELEASE, follow)
        if report.last:
            self._dispatch.freed(report)

    def _sendable(self, parcel: Parcel) -> list[Parcel]:
        kept, lost = parcel.ours()
        for part in kept:
            part.held.mark(part.start, part.stop, SENDING)
        for index in lost:
            self._discarded(parcel.held, index, 1 if parcel.stop - parcel.start > 1 else len(parcel.messages))
        return kept

    def _discarded(self, held: Held, index: int, count: int) -> None:
        self._fenced(held)
        reason = "its input is not ours any more"
        self._observers.tell("discarded", delivery=held.chunk[index], count=count, reason=reason)

    def _confirmed(self, outbox: Place, parcels: Sequence[Parcel], count: int) -> None:
        self._refused = False
        letters = outbox is self._letters
        if not letters:
            self._tally.published += count
            self._observers.tell("published", destination=outbox.place, count=count)
        for parcel in parcels:
            if self._fenced(parcel.held):
                continue
            if letters:
                self._failures.copied(parcel.held, parcel.start)
            self._settling.confirmed((parcel.held, parcel.start, parcel.stop))

    def _fenced(self, held: Held) -> bool:
        """Say whether a chunk is not ours any more; what waits of it is forgotten the first time."""
        before = held.lost
        if self._hands.fenced(held) and not before:
            self._dispatch.forget_lost()
        return held.lost

    def _gone(self, verdict: Verdict, span: Span) -> None:
        held, start, stop = span
        count = stop - start
        self._hands.leave(held, start, stop)
        if verdict is Verdict.ACK:
            letters = self._failures.forget_copies(held, start, stop)
            self._tally.acked += count - letters
            self._tally.dead_lettered += letters
        elif verdict is Verdict.DEAD_LETTER:
            self._tally.dead_lettered += count
        elif verdict is Verdict.RELEASE:
            self._tally.released += count
        self._observers.tell("settled", verdict=verdict, count=count)

    def _unsettled(self, held: Held, index: int, error: BrokerError) -> None:
        delivery = held.chunk[index]
        self._hands.leave(held, index, index + 1)
        self.halt(last_word_refused(self._plan.name, delivery, error))

    def _trouble(self, error: BrokerError) -> None:
        """Back off, and open the subscriber again; or end the run when that cannot help."""
        opened = True
        while True:
            if not error.retryable:
                self._lose_all()
                halted = HaltedError(f"flow {self._plan.name}: {self._plan.source}: {error}")
                halted.__cause__ = error
                self.halt(halted)
                return
            self._wait = min(max(self._wait * 2, FIRST_WAIT), LONGEST_WAIT)
            delay = max(self._wait * (0.5 + self._plan.luck() / 2), error.retry_after or 0.0)
            delay = min(delay, DRAIN_WAIT) if self.draining else delay
            self._observers.tell("reconnecting", place=self._plan.source, error=error, delay=delay)
            if opened and self._outlived(error):
                self._pass_time(min(delay, self._leases.next_due() - self._clock.now()))
                return
            self._lose_all()
            if not self.draining:
                self._pass_time(delay)
            if self.draining or self._inbox.stopping:
                return
            try:
                self._subscriber.open()
                return
            except BrokerError as again:
                error, opened = again, False

    def _outlived(self, error: BrokerError) -> bool:
        """Say whether what is held is still ours after an error; credentials are read only when it opens."""
        stateless = self._subscriber.capabilities.stateless and not isinstance(error, AuthenticationError)
        return stateless or isinstance(error, ThrottledError)

    def _pass_time(self, delay: float) -> None:
        """Let time pass, and hear what is posted; a stop ends it, unless it drains already."""
        until, drains = self._clock.now() + delay, self.draining
        while (drains or not (self.draining or self._inbox.stopping)) and (left := until - self._clock.now()) > 0:
            for event in self._inbox.take():
                self._handle(event)
            self._inbox.wait(left)

    def _settle(self) -> None:
        for pause in SETTLE_PAUSES:
            try:
                self._settling.settle(self._subscriber)
                return
            except BrokerError as error:
                if not error.retryable:
                    raise
                self._clock.sleep(max(pause, error.retry_after or 0.0))
        self._settling.settle(self._subscriber)

    def _lose_all(self) -> None:
        self._hands.drop_all()
        self._dispatch.forget_lost()
        self._settling.forget()
        self._leases.forget()
        if self._transactions is not None:
            self._transactions.forget()
