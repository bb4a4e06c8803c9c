"""Reading an entity with sessions: several at once, each a lane with a lock of its own."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

import attrs

from eventflows.adapters._azure import OPEN
from eventflows.adapters._servicebus_check import aside
from eventflows.adapters._servicebus_errors import wants_sessions
from eventflows.adapters._servicebus_held import Held, ServiceBusChunk
from eventflows.adapters._servicebus_link import GOODBYE, Word
from eventflows.adapters._servicebus_place import SESSION_IDLE, SESSIONS
from eventflows.adapters._servicebus_queue import ServiceBusSubscriber
from eventflows.adapters._servicebus_reader import Reader
from eventflows.adapters._servicebus_seat import GRACE, Claim, Seat, Table
from eventflows.adapters._servicebus_session import SessionLink
from eventflows.adapters._servicebus_types import Native
from eventflows.adapters._servicebus_wire import body_of
from eventflows.errors import BrokerError, CapabilityError, ConfigError, ConnectionFailedError, OutcomeUnknownError
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement
from eventflows.protocols import Backlog, Capabilities, ExtendResult, Location, SettleFailure, Subscriber


class ServiceBusSessionSubscriber(Reader):
    """Reads one queue or subscription that has sessions.

    Each session at hand has a seat: a thread with a receiver of its own, since the client is not safe for threads
    and searching a session blocks it. Sessions are searched only while the core asks for messages, and let go when
    nothing is held of them and nothing comes.

    Args:
        location: The source.
        options: As of `ServiceBusSubscriber`, and `sessions`, `session_idle`.
        capabilities: Of the source.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        super().__init__(location, options, capabilities)
        self._most = int(str(options.get("sessions", SESSIONS)))
        self._table: Table | None = None
        self._seats: list[Seat] = []
        self._claims: dict[Lane, tuple[Seat, Claim]] = {}
        self._woken = threading.Event()
        self._process = os.getpid()

    # Opening and closing.

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect; sessions held before are lost, and come again at once.

        Raises:
            ConfigError: The entity has no sessions. Leave `sessions=` out.
            NotFoundError: The queue, topic or subscription is not there. Create it.
            AuthenticationError: Correct the credentials.
            PermissionDeniedError: Allow it to listen.
            ConnectionFailedError: It is worth trying again.
        """
        self._let_go()
        self._closed = False
        # A receiver without a session is refused by an entity that has sessions: but only once it was found, and
        # we were let in. Searching would not tell an empty entity from one that does not answer.
        try:
            aside(self._place, self._options, lambda _: None, timeout, OPEN)
        except OutcomeUnknownError as error:
            raise ConnectionFailedError(f"{self._place.text} did not answer within {timeout:g} s.") from error
        except BrokerError as error:
            if not wants_sessions(error):
                raise
        else:
            raise ConfigError(f"{self._place.text} has no sessions; leave sessions= out.")
        self._table = Table(float(str(self._options.get("session_idle", SESSION_IDLE))))
        self._seats = [self._seat(self._table) for _ in range(self._most)]

    def _seat(self, table: Table) -> Seat:
        return Seat(table, SessionLink(self._place, self._options))

    def _let_go(self) -> list[Seat]:
        table, seats = self._table, self._seats
        self._table, self._seats, self._claims = None, [], {}
        self.ready = False
        if table is not None:
            with table.changed:
                table.ended = True
                table.changed.notify_all()
        return seats

    def close(self, *, timeout: float = 30.0) -> None:
        """Let every session go, with what is held of it, and disconnect; the second call does nothing.

        A search that is out is not waited for: what it finds is let go at once.
        """
        deadline = time.monotonic() + timeout
        self._closed = True
        self._woken.set()
        for seat in [one for one in self._let_go() if one.claim is not None]:
            seat.leaving.wait(max(deadline - time.monotonic(), 0.0))
            seat.thread.join(max(min(deadline - time.monotonic(), GOODBYE), 0.0))

    def _entered(self, timeout: float) -> Table:
        if self._closed:
            raise self._was_closed()
        if self._process != os.getpid():  # forked: the threads and their locks are the parent's
            self._process, self._table, self._seats, self._claims = os.getpid(), None, [], {}
        if self._table is None:
            self.open(timeout=timeout)
        if self._table is None:  # closed by another thread meanwhile
            raise self._was_closed()
        return self._table

    # Receiving.

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages, a chunk of each session that has some."""
        deadline = time.monotonic() + timeout
        table = self._entered(timeout)
        with table.changed:
            table.heard, table.wanted = time.monotonic(), limit > 0
            table.changed.notify_all()
            while True:
                table.asked = time.monotonic() if limit > 0 else table.asked
                self._replace_hanging(table)
                chunks = self._handed(table, limit, max_bytes, skip)
                self.ready = table.silent or not table.wanted  # a flow is not idle while sessions may be found
                if chunks:
                    return chunks
                if table.error is not None and limit > 0:
                    error, table.error = table.error, None
                    raise error
                left = deadline - time.monotonic()
                if self._woken.is_set() or left <= 0 or table.ended:
                    self._woken.clear()
                    return []
                table.changed.wait(min(left, 0.25))
                table.heard = time.monotonic()

    def _replace_hanging(self, table: Table) -> None:
        now = time.monotonic()
        for at, seat in enumerate(self._seats):
            if now > seat.back_by:
                seat.abandon()
                self._seats[at] = self._seat(table)

    def _handed(self, table: Table, limit: int, max_bytes: int, skip: Collection[Lane]) -> list[Chunk]:
        """Hand out what is at hand, in turns.

        While more sessions may be found each gives its share only of what may be in flight: its messages run one
        after another, and more of them would keep the others out.
        """
        ready = [
            (seat, seat.claim)
            for seat in self._seats
            if seat.claim is not None and seat.claim.ahead and seat.claim.lane not in skip
        ]
        held = sum(len(found[1].held) for found in self._claims.values())
        share = max((limit + held) // self._most, 1)
        chunks = self._shared(ready, limit, max_bytes, share)
        if not chunks and (table.silent or all(seat.claim is not None for seat in self._seats)):
            # One of each other session that is here, or may come, has room beside it: it may come to a free worker
            # while this one's first message takes long.
            chunks = self._shared(ready, limit, max_bytes, max(limit + held - (self._most - 1), 1))
        if not chunks:  # what has waited for a quarter of its lock is handed out in any case
            now = time.monotonic()
            late = [one for one in ready if now - one[1].waits > one[0].lock_seconds / 4]
            chunks = self._shared(late, limit, max_bytes, limit + held)
        return chunks

    def _shared(self, ready: Sequence[tuple[Seat, Claim]], limit: int, max_bytes: int, share: int) -> list[Chunk]:
        chunks: list[Chunk] = []
        for seat, claim in ready:
            taken: list[Native] = []
            bodies: list[bytes] = []
            most = min(limit, share - len(claim.held))
            while claim.ahead and len(taken) < most:
                body = body_of(claim.ahead[0])
                if len(body) > max_bytes and (taken or chunks):
                    break
                max_bytes -= len(body)
                taken.append(claim.ahead.popleft())
                bodies.append(body)
            if taken:
                limit -= len(taken)
                chunk = ServiceBusChunk(taken, bodies, self._place.text, claim.lane, claim.until)
                claim.held.add(chunk)
                claim.waits = time.monotonic()
                self._claims[claim.lane] = seat, claim
                chunks.append(chunk)
                self._seats.remove(seat)
                self._seats.append(seat)
        return chunks

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        self._woken.set()
        table = self._table
        if table is not None:
            with table.changed:
                table.changed.notify_all()

    # Settling.

    def _claim(self, chunk: Chunk) -> tuple[Seat, Claim] | None:
        found = None if chunk.lane is None else self._claims.get(chunk.lane)
        if found is not None and found[1].lane.lost:
            del self._claims[found[1].lane]
            return None
        return found

    def _native(self, chunk: Chunk, index: int) -> Native | None:
        found = self._claim(chunk)
        return None if found is None else found[1].held.native(chunk, index)

    def _held(self, chunk: Chunk) -> Held | None:
        found = self._claim(chunk)
        return None if found is None else found[1].held

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Carry out verdicts; confirmed by the service when this returns, `durable` or not."""
        for settlement in settlements:
            self._check_verdict(settlement)
        deadline = time.monotonic() + timeout
        self._entered(timeout).heard = time.monotonic()
        work, failures = self._words(settlements, self._native)
        by_seat: dict[Seat, list[Word]] = {}
        for word in work:
            found = self._claim(word.chunk)
            if found is None:
                word.answered, word.error = True, self._lost(word.chunk.position(word.index))
            else:
                by_seat.setdefault(found[0], []).append(word)
        calls = {seat: seat.start(functools.partial(_settle, words, deadline)) for seat, words in by_seat.items()}
        self._await(calls, deadline, "settle")
        for seat, words in by_seat.items():
            for word in words:
                if not word.answered and (seat.claim is None or calls[seat].done()):
                    word.answered, word.error = True, self._lost(word.chunk.position(word.index))
        done = self._failures(work, self._held)
        self._forget()
        return [*failures, *done]

    def _await(self, calls: Mapping[Seat, Future[Any]], deadline: float, doing: str) -> None:
        """Wait for seats; one whose call of the client hangs is replaced, and its session lost."""
        wait(calls.values(), max(deadline - time.monotonic(), 0.0))
        late = [seat for seat, call in calls.items() if not call.done()]
        for seat in late:
            if seat in self._seats:
                seat.back_by = min(seat.back_by, time.monotonic() + GRACE)

    def _forget(self) -> None:
        """Forget the claims that are lost, or that nothing is held of."""
        self._claims = {lane: found for lane, found in self._claims.items() if not lane.lost and len(found[1].held)}

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Renew the locks of sessions, for the length that the entity has; `seconds` cannot change it."""
        deadline = time.monotonic() + timeout
        self._entered(timeout).heard = time.monotonic()
        calls: dict[Seat, Future[Any]] = {}
        lanes: list[Lane] = []
        for one in held:
            lane = one.lane if isinstance(one, Delivery) else one
            if lane is None:
                raise CapabilityError(f"{self._place.text} leases sessions; this is no message of one.")
            lanes.append(lane)
            found = self._claims.get(lane)
            if found is not None and not lane.lost and found[0] not in calls:
                left = max(deadline - time.monotonic(), 0.1)
                calls[found[0]] = found[0].start(functools.partial(_keep, timeout=left))
        self._await(calls, deadline, "extend")
        return [self._extended(one, lane, calls) for one, lane in zip(held, lanes, strict=True)]

    def _extended(self, one: Delivery | Lane, lane: Lane, calls: Mapping[Seat, Future[Any]]) -> ExtendResult:
        found = self._claims.get(lane)
        call = None if found is None else calls.get(found[0])
        if found is None or call is None or lane.lost:
            return ExtendResult(one, None, self._lost(f"the session {lane.name}"))
        if not call.done():
            return ExtendResult(
                one, None, OutcomeUnknownError(f"{self._place.text}: extend did not come back in time.")
            )
        why = call.exception()
        error = why if isinstance(why, BrokerError) else call.result()[0] if why is None else None
        if why is not None or error is not None:
            return ExtendResult(one, None, error or self._lost(f"the session {lane.name}"))
        found[1].until = until = call.result()[1]
        if isinstance(one, Delivery):
            one.lease_until = until
        return ExtendResult(one, until)

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Nothing can be said: the service shows the messages of a session to its owner only."""
        return None

    def dead_letters(self) -> Subscriber:
        """Give a subscriber of the dead letters, which have no sessions; not opened."""
        location, options = self._dead_place()
        plain = attrs.evolve(self.capabilities, ordering="none", lease="message", peek="free", dead_letter=False)
        return ServiceBusSubscriber(location, options, plain)


def _settle(words: Sequence[Word], deadline: float, link: SessionLink) -> None:
    link.settle(words, deadline)


def _keep(link: SessionLink, timeout: float) -> tuple[BrokerError | None, float]:
    return link.keep(timeout), link.until
