"""Reading a queue or subscription without sessions: one link, one thread that owns it."""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

import attrs

from eventflows.adapters._azure import OPEN
from eventflows.adapters._owner import Owner
from eventflows.adapters._servicebus_check import aside
from eventflows.adapters._servicebus_held import Held, ServiceBusChunk, lease_of
from eventflows.adapters._servicebus_link import GOODBYE, Link
from eventflows.adapters._servicebus_reader import Reader
from eventflows.adapters._servicebus_types import Native
from eventflows.adapters._servicebus_wire import body_of, incoming
from eventflows.errors import (
    BrokerError,
    CapabilityError,
    ConfigError,
    ConnectionFailedError,
    LeaseLostError,
    OutcomeUnknownError,
)
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement
from eventflows.protocols import Backlog, Capabilities, ExtendResult, Location, SettleFailure, Subscriber

MOST_COUNTED: Final = 1000  # messages that `backlog` counts, at most: it looks at each
PAGE: Final = 250  # messages of one look; the service gives no more ("Message browsing")
_log: Final = logging.getLogger("eventflows")
DEFERRED: Final = 1  # ServiceBusMessageState: set aside by somebody, to be asked for by its number
GRACE: Final = 2.0  # seconds after its time at which a receive counts as one that hangs


class ServiceBusSubscriber(Reader):
    """Reads one queue or subscription.

    One thread of its own makes every call of the client, which is not safe for threads.

    Args:
        location: The source.
        options: `subscription`, `connection-string` or `credential`, `dead-letter`.
        capabilities: Of the source.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        super().__init__(location, options, capabilities)
        self._owner: Owner | None = None
        self._link: Link | None = None
        self._held = Held()
        self._ahead: dict[int, Native] = {}
        """What came and was not handed out, by sequence number."""
        self._woken = threading.Event()
        self._mean = 0.0
        self._looked = 0.0
        """When the client was asked last what has come."""
        self.expired = 0
        """Messages whose locks ended before they were handed out: dropped here, and they come again."""

    # Opening and closing.

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and attach the link; messages held before are lost, and come again when their locks end.

        Raises:
            NotFoundError: The queue, topic or subscription is not there. Create it.
            AuthenticationError: Correct the credentials.
            PermissionDeniedError: Allow it to listen.
            ConnectionFailedError: It is worth trying again.
        """
        self._let_go()
        self._closed = False
        owner = Owner("eventflows-servicebus", self._place.text)
        link = Link(self._place, self._options)
        self._owner, self._link = owner, link
        try:
            owner.call(lambda: link.open(timeout), timeout, OPEN)
        except OutcomeUnknownError as error:
            self._let_go()
            raise ConnectionFailedError(f"{self._place.text} did not answer within {timeout:g} s.") from error
        except BaseException:
            self._let_go()
            raise
        self.ready = True

    def _let_go(self) -> tuple[Future[None], Future[None]] | None:
        """Hand back what is held, and close the client, on its own thread; what hangs there is left behind."""
        owner, link = self._owner, self._link
        held = [*self._held.everything(), *self._ahead.values()]
        self._owner = self._link = None
        self._held, self._ahead = Held(), {}
        self.ready = False
        if owner is None or link is None:
            return None
        handed, closed = owner.start(lambda: link.hand_back(held)), owner.start(link.close)
        owner.end()
        return handed, closed

    def close(self, *, timeout: float = 30.0) -> None:
        """Hand back what is held and disconnect; the second call does nothing."""
        self._closed = True
        self._woken.set()
        leaving = self._let_go()
        if leaving is not None:
            with contextlib.suppress(TimeoutError):  # a call that hangs is left behind
                leaving[0].result(max(timeout, 0.0))
                leaving[1].result(max(min(timeout, GOODBYE), 0.0))

    def _entered(self, timeout: float) -> tuple[Owner, Link]:
        if self._closed:
            raise self._was_closed()
        if self._owner is not None and self._owner.elsewhere:  # forked: the connection is the parent's
            self._owner = self._link = None
            self._held, self._ahead = Held(), {}
        if self._owner is None:
            self.open(timeout=timeout)
        if self._owner is None or self._link is None:  # closed by another thread meanwhile
            raise self._was_closed()
        return self._owner, self._link

    # Receiving.

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages."""
        deadline = time.monotonic() + timeout
        owner, link = self._entered(timeout)
        while True:
            if limit <= 0:
                self._woken.wait(max(deadline - time.monotonic(), 0.0))
                self._keep_ahead(owner, link)
            elif not self._ahead:
                most = self._count(limit, max_bytes)
                natives = owner.call(
                    functools.partial(link.poll, most, deadline, self._woken, holding=len(self._held) > 0),
                    max(deadline - time.monotonic(), 0.0) + GRACE,
                    "receive",
                )
                self._came(natives)
            chunk = self._chunk(limit, max_bytes)
            woken = self._woken.is_set()
            if chunk is not None or woken or time.monotonic() >= deadline:
                if chunk is None:
                    self._woken.clear()
                return [] if chunk is None else [chunk]

    def _count(self, limit: int, max_bytes: int) -> int:
        """Say how many to ask for: the service counts messages only, so bytes are reckoned by what came before."""
        fit = int(max_bytes / self._mean) if self._mean else limit
        return max(min(limit, fit), 1)

    def _chunk(self, limit: int, max_bytes: int) -> ServiceBusChunk | None:
        taken: list[Native] = []
        bodies: list[bytes] = []
        total, now, gone = 0, datetime.datetime.now(datetime.UTC), 0
        while self._ahead and len(taken) < limit:
            number, native = next(iter(self._ahead.items()))
            body = body_of(native)
            if taken and total + len(body) > max_bytes:
                break
            del self._ahead[number]
            if native.locked_until_utc is not None and native.locked_until_utc <= now:
                gone += 1
                continue
            total += len(body)
            self._mean += (len(body) - self._mean) / 16 if self._mean else len(body)
            taken.append(native)
            bodies.append(body)
        self._expired(gone)
        if not taken:
            return None
        chunk = ServiceBusChunk(taken, bodies, self._place.text)
        self._held.add(chunk)
        return chunk

    def _came(self, natives: Sequence[Native]) -> None:
        """Take what came; a message that is here already has a new lock, and keeps its place."""
        self._looked = time.monotonic()
        for native in self._held.fresh(natives):
            self._ahead[int(native.sequence_number or 0)] = native

    def _keep_ahead(self, owner: Owner, link: Link) -> None:
        """Renew what came and nobody has asked for yet.

        Before a quarter of a lock is over it stays with the client, which hands it back at no cost when it is closed.
        """
        if time.monotonic() - self._looked < link.lock_seconds / 4:
            return
        self._came(owner.call(link.rest, GRACE, "receive"))
        due = [one for one in self._ahead.values() if lease_of(one) - time.monotonic() < link.lock_seconds / 2]
        if due:
            results = owner.call(lambda: link.renew(due, time.monotonic() + GRACE), GRACE * 2, "extend")
            lost = [one for one, error in zip(due, results, strict=True) if isinstance(error, LeaseLostError)]
            for native in lost:
                del self._ahead[int(native.sequence_number or 0)]
            self._expired(len(lost))

    def _expired(self, count: int) -> None:
        """Note locks that ended before anybody was given their messages."""
        if count:
            self.expired += count
            _log.warning(
                "%s: %d locks ended before their messages were handed out; these come again.", self._place.text, count
            )

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        self._woken.set()

    # Settling.

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Carry out verdicts; confirmed by the service when this returns, `durable` or not."""
        for settlement in settlements:
            self._check_verdict(settlement)
        deadline = time.monotonic() + timeout
        owner, link = self._entered(timeout)
        work, failures = self._words(settlements, self._held.native)
        if work:
            with contextlib.suppress(OutcomeUnknownError):  # each word that has no answer says so below
                owner.call(lambda: link.settle(work, deadline), timeout, "settle")
        return [*failures, *self._failures(work, lambda _: self._held)]

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Renew locks, for the length that the queue or subscription has; `seconds` cannot change it."""
        deadline = time.monotonic() + timeout
        owner, link = self._entered(timeout)
        found: list[Native | None] = []
        for one in held:
            if not isinstance(one, Delivery):
                raise CapabilityError(f"{self._place.text} leases messages; this is none of its own.")
            found.append(self._held.find(one))
        asked = [native for native in found if native is not None]
        answers: list[BrokerError | None] = []
        if asked:
            # The client gives up a little earlier: an answer that is late is no client that hangs.
            early = deadline - min(timeout / 4, 0.5)
            answers = owner.call(lambda: link.renew(asked, early), timeout, "extend")
        errors = iter(answers)
        return [
            self._extended(one, native, None if native is None else next(errors))
            for one, native in zip(held, found, strict=True)
        ]

    def _extended(self, one: Delivery | Lane, native: Native | None, error: BrokerError | None) -> ExtendResult:
        assert isinstance(one, Delivery)  # noqa: S101 - for the type checker: looked at above
        if native is None or error is not None:
            if native is not None and isinstance(error, LeaseLostError):
                self._held.drop(native)  # it comes again, to us or to others
            return ExtendResult(one, None, error or self._lost(one.position))
        one.lease_until = lease_of(native)
        return ExtendResult(one, one.lease_until)

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Count what waits, what others hold and what is scheduled, by looking; beyond `MOST_COUNTED` it stops."""
        deadline = time.monotonic() + timeout
        owner, link = self._entered(timeout)
        mine = {int(one.sequence_number or 0) for one in self._held.everything()} | self._ahead.keys()
        waiting, first = 0, 1
        oldest: datetime.datetime | None = None
        while waiting < MOST_COUNTED:
            look = functools.partial(link.peek, PAGE, first, max(deadline - time.monotonic(), 0.1))
            page = owner.call(look, deadline - time.monotonic(), "backlog")
            found = [one for one in page if one.sequence_number not in mine and one.state.value != DEFERRED]
            waiting += len(found)
            oldest = oldest or (found[0].enqueued_time_utc if found else None)
            if not page:
                break
            first = int(page[-1].sequence_number or 0) + 1
        age = None if oldest is None else (datetime.datetime.now(datetime.UTC) - oldest).total_seconds()
        return Backlog(waiting=waiting, oldest_age=None if age is None else max(age, 0.0))

    # Looking.

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at what waits, and at what others hold; it cannot be settled."""
        if start is not None and not start.isdecimal():
            raise ConfigError(f"start={start!r}: a position here is a sequence number, such as 42.")
        first = 1 if start is None else int(start) + 1

        def look(link: Link) -> Sequence[Native]:
            return link.peek(limit, first, timeout)

        if self._owner is not None and self._link is not None:
            link = self._link
            natives = self._owner.call(lambda: look(link), timeout, "peek")
        else:
            natives = aside(self._place, self._options, look, timeout, "peek")
        return [
            Delivery(
                message=incoming(one, body_of(one)),
                source=self._place.text,
                position=str(one.sequence_number),
                identity=f"{self._place.text}#{one.sequence_number}",
                attempt=int(one.delivery_count or 0) + 1,
                enqueued_at=one.enqueued_time_utc,
            )
            for one in natives
        ]

    def dead_letters(self) -> Subscriber:
        """Give a subscriber of the dead letters, not opened."""
        location, options = self._dead_place()
        return ServiceBusSubscriber(location, options, attrs.evolve(self.capabilities, dead_letter=False))
