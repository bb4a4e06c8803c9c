"""The outbox: one thread that publishes what `apply` returned, in order, until it is confirmed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import attrs

from eventflows.errors import (
    BrokerError,
    ClosedError,
    ConnectionFailedError,
    InvalidMessageError,
    OutcomeUnknownError,
    TooLargeError,
)
from eventflows.message import Batch, Message
from eventflows.protocols import Publisher, PublishResult
from eventflows.runner.clock import Clock
from eventflows.runner.flight import Entry, Known, Sent
from eventflows.runner.held import GONE, Held
from eventflows.runner.runs import Parcel

FIRST_WAIT: Final = 0.05
LONGEST_WAIT: Final = 5.0
MOST_MESSAGES: Final = 1000
"""Messages that are published together, at most."""

OWN_FAULT: Final = (TooLargeError, InvalidMessageError)


class Place(Protocol):
    """Where parcels are put, to be published."""

    place: str
    """The URL, as shown in logs."""

    @property
    def size(self) -> int:
        """Bytes of bodies that are not confirmed."""

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Hand over parcels."""

    def stop(self, *, abandon: bool) -> None:
        """End, once everything is confirmed; at once when what is left is given up."""

    def join(self, timeout: float) -> None:
        """Wait for its end, at most `timeout` seconds."""


@attrs.frozen
class Confirmed:
    """Parcels whose messages the destination has, all of them."""

    outbox: Place
    parcels: Sequence[Parcel]
    count: int


@attrs.frozen
class Unpublishable:
    """An input with an output that can never be published."""

    outbox: Place
    held: Held
    index: int
    message: Message
    error: BrokerError


@attrs.frozen
class Trouble:
    """The destination failed; the outbox tries again in `delay` seconds."""

    outbox: Outbox
    error: Exception
    delay: float
    refused: float
    """Seconds for which the destination has refused everything; 0 when trying again may help by itself."""


@attrs.frozen
class Discarded:
    """Outputs that were not published, because their input is not ours any more."""

    outbox: Place
    held: Held
    index: int
    count: int


_Answer = TypeVar("_Answer")

Event = Confirmed | Unpublishable | Trouble | Discarded


class Outbox:
    """Publishes parcels in the order given, several batches in flight where the publisher can.

    When anything fails, nothing new is sent until what failed, and everything later of the same keys, is confirmed:
    batches that were in flight beside it included.

    Args:
        publisher: Not opened yet, or open.
        place: The destination, as shown in logs.
        timeout: Seconds for one batch.
        post: Takes what happened; from the outbox's thread.
        name: Of the thread.
        clock: What its time-outs are measured with.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        place: str,
        timeout: float,
        post: Callable[[Event], None],
        name: str,
        clock: Clock | None = None,
    ) -> None:
        self.place = place
        self._publisher = publisher
        self._window = publisher.capabilities.publish_window
        self._timeout = timeout
        self._clock = clock or Clock()
        self._post = post
        self._queue: deque[Parcel] = deque()
        self._in_flight: deque[Sent] = deque()
        self._again: list[Entry] = []
        self._ready = threading.Condition()
        self._stopping = False
        self._abandoned = threading.Event()
        self._wait = 0.0
        self._refused_since: float | None = None
        self._size = 0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.start()

    def start(self) -> None:
        """Begin to publish; a simulation does so without a thread."""
        self._thread.start()

    @property
    def size(self) -> int:
        """Bytes of bodies that are not confirmed."""
        return self._size

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Hand over parcels."""
        size = sum([parcel.size for parcel in parcels])
        with self._ready:
            self._size += size
            self._queue.extend(parcels)
            self._ready.notify()

    def stop(self, *, abandon: bool) -> None:
        """Let the thread end, once everything is confirmed; at once when what is left is given up."""
        with self._ready:
            self._stopping = True
            if abandon:
                self._abandoned.set()
            self._ready.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._ready:
                while not self._queue and not self._again and not self._in_flight and not self._stopping:
                    self._ready.wait()
                idle = not self._queue and not self._again and not self._in_flight
                if self._abandoned.is_set() or (self._stopping and idle):
                    return
                if self._wait:
                    self._ready.wait(self._wait)
                    if self._abandoned.is_set():
                        return
                parcels = self._take()
            self._go_on(parcels)

    def _go_on(self, parcels: list[Parcel]) -> None:
        """Send what must be sent again, else something new; wait for an answer when there is nothing to send."""
        if self._again:
            self._send_entries()
            return
        if parcels:
            self._send(parcels)
        if self._in_flight and (len(self._in_flight) >= self._window or not self._queue):
            self._collect()

    def _take(self) -> list[Parcel]:
        if self._again or len(self._in_flight) >= self._window:
            return []
        parcels: list[Parcel] = []
        count = 0
        while self._queue and (not parcels or count + len(self._queue[0].messages) <= MOST_MESSAGES):
            parcel = self._queue.popleft()
            parcels.append(parcel)
            count += len(parcel.messages)
        return parcels

    def _send(self, parcels: list[Parcel]) -> None:
        kept = [part for parcel in parcels for part in self._ours(parcel)]
        if not kept:
            return
        batch = Batch.join([parcel.messages for parcel in kept])
        deadline = self._clock.now() + self._timeout
        if self._window > 1:
            pending = self._attempt(lambda: self._publisher.send(batch))
        else:
            results = self._attempt(lambda: self._publisher.publish(batch, timeout=self._timeout))
            pending = None if results is None else Known(results)
        if pending is not None:
            self._in_flight.append(Sent(kept, batch, pending, deadline))
            return
        # Nothing of it was sent; what is in flight before it may fail too, and must come first then.
        self._again = self._settle_in_flight() + Sent(kept, batch, Known([]), deadline).entries()

    def _collect(self) -> None:
        """Wait for the answers to the oldest batch."""
        sent = self._in_flight.popleft()
        results = self._attempt(lambda: sent.faulty(self._clock.now()))
        if results == []:
            self._went_well()
            self._shrink(sent.batch.size)
            self._post(Confirmed(self, sent.parcels, len(sent.batch)))
            return
        self._sort_out(sent.entries(), results)
        if self._again:
            self._again += self._settle_in_flight({entry.message.key for entry in self._again})

    def _results(self, sent: Sent) -> list[PublishResult] | None:
        return self._attempt(lambda: sent.results(self._clock.now()))

    def _settle_in_flight(self, keys: set[str | None] | None = None) -> list[Entry]:
        """Wait for all that is in flight behind a failure; give what must be sent again, in order.

        Args:
            keys: Whose messages failed, and are sent again though these were confirmed; None: nothing failed yet.
        """
        again: list[Entry] = []
        blocked = {key for key in keys or () if key is not None}
        while self._in_flight:
            sent = self._in_flight.popleft()
            entries, results = sent.entries(), self._results(sent)
            if results is None:
                again += entries
                blocked.update(entry.message.key for entry in entries if entry.message.key is not None)
                continue
            again += self._sorted(entries, results, blocked)
        return again

    def _shrink(self, size: int) -> None:
        with self._ready:
            self._size -= size

    def _ours(self, parcel: Parcel) -> list[Parcel]:
        kept, lost = parcel.ours()
        if lost:
            self._shrink(parcel.size - sum(part.size for part in kept))
        for index in lost:
            count = len(parcel.messages) if parcel.stop - parcel.start == 1 else 1
            self._post(Discarded(self, parcel.held, index, count))
        return kept

    def _send_entries(self) -> None:
        entries: list[Entry] = []
        for entry in self._again:
            if entry.parcel.held.state[entry.index] == GONE:
                self._shrink(len(entry.message.body or b""))
                self._post(Discarded(self, entry.parcel.held, entry.index, 1))
            else:
                entries.append(entry)
        self._again = []
        for start in range(0, len(entries), MOST_MESSAGES):
            part = entries[start : start + MOST_MESSAGES]
            batch = Batch.of([entry.message for entry in part])
            self._sort_out(part, self._attempt(lambda: self._publisher.publish(batch, timeout=self._timeout)))  # noqa: B023
            if self._again:
                self._again += entries[start + MOST_MESSAGES :]
                return

    def _attempt(self, call: Callable[[], _Answer]) -> _Answer | None:
        """Call the publisher; None when nothing was sent, which `_trouble` was told of."""
        try:
            return call()
        except (BrokerError, ClosedError) as error:
            self._trouble(error)
            if isinstance(error, ConnectionFailedError):
                self._reopen()
        except Exception as error:  # noqa: BLE001 - an adapter's own failure must not lose outputs in silence
            self._trouble(error)
        return None

    def _reopen(self) -> None:
        try:
            self._publisher.open(timeout=self._timeout)
        except (BrokerError, ClosedError):
            return  # the next publish meets the same trouble and reports it

    def _sort_out(self, entries: list[Entry], results: list[PublishResult] | None) -> None:
        """Keep for another try what needs it, with everything later of the same key, and report the rest."""
        self._again = entries if results is None else self._sorted(entries, results, set())
        if not self._again:
            self._went_well()

    def _sorted(self, entries: list[Entry], results: list[PublishResult], keys: set[str]) -> list[Entry]:
        """Report what is confirmed or hopeless; give what is to be sent again.

        Args:
            entries: In order.
            results: One for each.
            keys: Whose messages must be sent again, whatever the result; those that fail are added.
        """
        again: list[Entry] = []
        spoilt: set[tuple[Held, int]] = set()
        trouble: BrokerError | None = None
        for entry, result in zip(entries, results, strict=True):
            where = (entry.parcel.held, entry.index)
            error = result.error
            if where in spoilt:
                continue
            if isinstance(error, OWN_FAULT):
                spoilt.add(where)
                self._post(Unpublishable(self, *where, entry.message, error))
            elif error is not None or entry.message.key in keys:
                again.append(entry)
                if entry.message.key is not None:
                    keys.add(entry.message.key)
                trouble = error or trouble
        again = [entry for entry in again if (entry.parcel.held, entry.index) not in spoilt]
        self._report(entries, results, again, spoilt)
        if trouble is not None and again:
            self._trouble(trouble)
        return again

    def _report(
        self,
        entries: list[Entry],
        results: list[PublishResult],
        again: list[Entry],
        spoilt: set[tuple[Held, int]],
    ) -> None:
        later = {id(entry) for entry in again}
        waiting = {(entry.parcel.held, entry.index) for entry in again} | spoilt
        confirmed: list[Parcel] = []
        count = 0
        self._shrink(sum(len(entry.message.body or b"") for entry in entries if id(entry) not in later))
        for entry, result in zip(entries, results, strict=True):
            where = (entry.parcel.held, entry.index)
            count += result.error is None and id(entry) not in later
            last = confirmed[-1] if confirmed else None
            if where not in waiting and (last is None or last.held is not where[0] or last.start != entry.index):
                confirmed.append(Parcel(where[0], entry.index, entry.index + 1, [entry.message]))
        if confirmed or count:
            self._post(Confirmed(self, confirmed, count))

    def _went_well(self) -> None:
        self._wait = 0.0
        self._refused_since = None

    def _trouble(self, error: Exception) -> None:
        retryable = isinstance(error, BrokerError) and error.retryable
        self._wait = min(max(self._wait * 2, FIRST_WAIT), LONGEST_WAIT)
        if isinstance(error, BrokerError) and error.retry_after is not None:
            self._wait = max(self._wait, error.retry_after)
        if isinstance(error, OutcomeUnknownError):
            self._wait = FIRST_WAIT  # the timeout itself was the wait
        now = self._clock.now()
        if retryable:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = now
        refused = 0.0 if self._refused_since is None else max(now - self._refused_since, 1e-9)
        self._post(Trouble(self, error, self._wait, refused))
