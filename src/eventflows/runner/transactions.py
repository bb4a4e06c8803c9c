"""Exactly once: what is finished is committed together with the position that it was made from."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from eventflows.errors import BrokerError, LeaseLostError
from eventflows.message import Lane
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Publisher, PublishResult, Subscriber, TransactionalDestination, TransactionalSource
from eventflows.runner.clock import Clock
from eventflows.runner.held import SENDING, WAITING, Held, Span, join
from eventflows.runner.outbox import OWN_FAULT, Confirmed, Discarded, Event, Place, Unpublishable
from eventflows.runner.runs import Parcel
from eventflows.runner.settling import Settling, ours

MOST_INPUTS: Final = 2000
"""Inputs of one transaction, at most."""
MOST_BYTES: Final = 8 * 1024 * 1024
"""Bytes of the bodies of one transaction, about."""
AGAIN_SECONDS: Final = 0.1
"""After a transaction that met a lost lane or a group that settles."""


@attrs.frozen
class _Part:
    """A finished stretch of one chunk, with what is published because of it."""

    parcel: Parcel
    letter: bool


@attrs.frozen
class _Answer:
    """What became of a transaction."""

    ticket: int
    results: Sequence[PublishResult] = ()
    error: Exception | None = None


class Letters:
    """Dead-letter copies on their way: with the transactions of the outputs.

    Args:
        box: The transactions.
        publisher: Of the dead-letter place.
        place: Its URL, shown.
    """

    size = 0

    def __init__(self, box: Transactions, publisher: Publisher, place: str) -> None:
        self._box = box
        self.publisher = publisher
        self.place = place

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Hand over copies."""
        self._box.add([_Part(parcel, letter=True) for parcel in parcels])

    def stop(self, *, abandon: bool) -> None:
        """Nothing: the transactions stop."""

    def join(self, timeout: float) -> None:
        """Nothing."""


class Transactions:
    """Finished work, until the transaction that has it is committed; one transaction at a time.

    A transaction holds, of each lane, the unbroken finished prefix: its outputs, its dead-letter copies, its end.
    What is finished beyond an unfinished message waits. Only the pump uses it; a thread waits for the broker.

    Args:
        publisher: Open; commits.
        place: The destination, as shown in logs.
        timeout: Seconds for one transaction.
        post: Takes what happened.
        ring: Wakes the pump.
        name: Of the thread.
        clock: What pauses are measured with.
    """

    def __init__(
        self,
        publisher: Publisher,
        *,
        place: str,
        timeout: float,
        post: Callable[[Event], None],
        ring: Callable[[], None],
        name: str,
        clock: Clock,
    ) -> None:
        assert isinstance(publisher, TransactionalDestination)  # noqa: S101 - for the type checker: checked at the start
        self.place = place
        self.letters: Letters | None = None
        self.size = 0
        self._publisher = publisher
        self._plain = publisher
        self._timeout = timeout
        self._post = post
        self._ring = ring
        self._clock = clock
        self._lanes: dict[Lane | None, deque[Held]] = {}
        self._finished: dict[int, dict[int, _Part]] = {}
        self._running: list[_Part] | None = None
        self._ticket = 0
        self._job: tuple[int, list[_Part], object] | None = None
        self._answer: _Answer | None = None
        self._not_before = 0.0
        self._stopping = False
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def received(self, held: Held) -> None:
        """Note a chunk; what came first is noted first."""
        self._lanes.setdefault(held.chunk.lane, deque()).append(held)

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Hand over outputs."""
        self.add([_Part(parcel, letter=False) for parcel in parcels])

    def add(self, parts: Sequence[_Part]) -> None:
        """Hand over what is finished; its messages are marked `SENDING`."""
        for part in parts:
            self._finished.setdefault(part.parcel.held.number, {})[part.parcel.start] = part
            self.size += part.parcel.size

    def turn(self, subscriber: Subscriber) -> None:
        """Look what became of the last transaction, and begin the next.

        Raises:
            BrokerError: The last one failed; its work is here still. Open the source again, which forgets it.
        """
        self._look()
        if self._running is not None or self._clock.now() < self._not_before:
            return
        assert isinstance(subscriber, TransactionalSource)  # noqa: S101 - for the type checker: checked at the start
        parts = self._ripe()
        spans: list[Span] = []
        for part in parts:
            join(spans, part.parcel.held, part.parcel.start, part.parcel.stop)
        said = [Settlement(verdict=Verdict.ACK, spans=[(held.chunk, slice(a, b)) for held, a, b in spans])]
        try:
            position = subscriber.claim_position(said if spans else [])
        except LeaseLostError:
            self._not_before = self._clock.now() + AGAIN_SECONDS
            return
        if position is not None:
            self._running = parts
            self._ticket += 1
            with self._ready:
                self._job = (self._ticket, parts, position)
                self._ready.notify()

    def _look(self) -> None:
        with self._ready:
            answer, self._answer = self._answer, None
        if answer is None or answer.ticket != self._ticket or self._running is None:
            return
        parts, self._running = self._running, None
        if isinstance(answer.error, LeaseLostError):
            self._not_before = self._clock.now() + AGAIN_SECONDS
        elif answer.error is not None:
            if isinstance(answer.error, BrokerError):
                raise answer.error
            broken = BrokerError(f"{self.place}: a transaction failed ({type(answer.error).__name__}).")
            raise broken from answer.error
        elif any(result.error for result in answer.results):
            self._refused(parts, answer.results)
        else:
            self._committed(parts)

    def _committed(self, parts: Sequence[_Part]) -> None:
        for part in parts:
            self._forget(part)
        for letter, box in ((False, self), (True, self.letters)):
            parcels = [part.parcel for part in parts if part.letter is letter]
            if parcels and box is not None:
                count = sum(len(parcel.messages) for parcel in parcels)
                self._post(Confirmed(box, parcels, count))

    def _refused(self, parts: Sequence[_Part], results: Sequence[PublishResult]) -> None:
        """Nothing was committed, because some message cannot be: its input fails, and the others go again."""
        places = [(part, offset) for part in _in_order(parts) for offset in range(len(part.parcel.messages))]
        spoilt: set[tuple[int, int]] = set()
        for (part, offset), result in zip(places, results, strict=True):
            held, index = part.parcel.held, part.parcel.input_of(offset)
            if result.error is None or (held.number, index) in spoilt:
                continue
            if not isinstance(result.error, OWN_FAULT):
                raise result.error
            spoilt.add((held.number, index))
            box = self.letters if part.letter and self.letters is not None else self
            self._take_out(held, index)
            self._post(Unpublishable(box, held, index, part.parcel.messages[offset], result.error))

    def _take_out(self, held: Held, index: int) -> None:
        """Take one input out of its part; what is left of it stays finished."""
        for part in list(self._finished.get(held.number, {}).values()):
            whole = part.parcel
            if whole.start <= index < whole.stop:
                self._forget(part)
                rest = [at for at in range(whole.start, whole.stop) if at != index]
                one = whole.messages  # one for each input, or none at all
                singles = [Parcel(held, at, at + 1, one[at - whole.start : at - whole.start + 1]) for at in rest]
                self.add([_Part(single, part.letter) for single in singles])

    def _forget(self, part: _Part) -> None:
        parts = self._finished.get(part.parcel.held.number)
        if parts is not None and parts.get(part.parcel.start) is part:
            del parts[part.parcel.start]
            self.size -= part.parcel.size
            if not parts:
                del self._finished[part.parcel.held.number]

    def _ripe(self) -> list[_Part]:
        """Give the finished prefix of each lane."""
        ripe: list[_Part] = []
        inputs = size = 0
        for lane, chunks in list(self._lanes.items()):
            if lane is not None and lane.lost:
                self._discard(chunks)
                del self._lanes[lane]
                continue
            while chunks and (chunks[0].lost or not chunks[0].left):
                self._finished.pop(chunks.popleft().number, None)
            if not chunks:
                del self._lanes[lane]
                continue
            for held in chunks:
                index = 0
                while index < len(held.state) and inputs < MOST_INPUTS and size < MOST_BYTES:
                    part = self._finished.get(held.number, {}).get(index)
                    if part is not None:
                        ripe.append(part)
                        inputs += part.parcel.stop - index
                        size += part.parcel.size
                        index = part.parcel.stop
                    elif held.state[index] in (WAITING, SENDING):
                        break
                    else:
                        index += 1
                if index < len(held.state):
                    break
        return ripe

    def _discard(self, chunks: Sequence[Held]) -> None:
        for held in chunks:
            for part in list(self._finished.get(held.number, {}).values()):
                self._forget(part)
                if part.parcel.messages and not part.letter:
                    self._post(Discarded(self, held, part.parcel.start, len(part.parcel.messages)))

    def abandon(self) -> None:
        """Give up what can never be committed, because what is before it will not be finished: it waits again.

        Nothing while a transaction runs, or could.
        """
        if self._running is not None or self._ripe():
            return
        for parts in self._finished.values():
            for part in parts.values():
                part.parcel.held.mark(part.parcel.start, part.parcel.stop, WAITING)
        self.forget()

    def forget(self) -> None:
        """Forget all of it: the source is opened again."""
        self._finished.clear()
        self._lanes.clear()
        self.size = 0
        self._running = None  # one that is under way ends by itself; its answer is about nothing that is ours
        with self._ready:
            self._job = self._answer = None

    def stop(self, *, abandon: bool) -> None:
        """Let the thread end."""
        with self._ready:
            self._stopping = True
            self._ready.notify()

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while True:
            with self._ready:
                while self._job is None and not self._stopping:
                    self._ready.wait()
                if self._job is None:
                    return
                job, self._job = self._job, None
            answer = self._transact(*job)
            with self._ready:
                self._answer = answer
            self._ring()

    def _transact(self, ticket: int, parts: Sequence[_Part], position: object) -> _Answer:
        groups: list[tuple[Publisher, Sequence[object]]] = []
        for letter in (False, True):
            messages = [one for part in parts if part.letter is letter for one in part.parcel.messages]
            publisher = self._plain if not letter or self.letters is None else self.letters.publisher
            if messages:
                groups.append((publisher, messages))
        try:
            return _Answer(ticket, self._publisher.transact(groups, position, timeout=self._timeout))  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - the pump decides; nothing may be lost in silence
            return _Answer(ticket, error=error)


def _in_order(parts: Sequence[_Part]) -> list[_Part]:
    """Give parts in the order of `transact`: outputs, then letters."""
    return [part for letter in (False, True) for part in parts if part.letter is letter]


class TransactionSettling(Settling):
    """What is done waits for its transaction, and is said only then.

    Args:
        box: The transactions.
        more: As of `Settling`.
    """

    def __init__(
        self,
        box: Transactions,
        *,
        gone: Callable[[Verdict, Span], None],
        lost: Callable[[Held, int], None],
        failed: Callable[[Held, int, BrokerError], None],
    ) -> None:
        super().__init__(gone=gone, lost=lost, failed=failed)
        self._box = box

    def ack(self, span: Span) -> None:
        """Let a stretch without outputs wait for its transaction."""
        for held, start, stop in ours(span):
            held.mark(start, stop, SENDING)
            self._box.put([Parcel(held, start, stop, [])])

    def confirmed(self, span: Span) -> None:
        """Say that a stretch is done: its transaction is committed."""
        super().ack(span)


def settling_for(
    outbox: Place | None,
    *,
    gone: Callable[[Verdict, Span], None],
    lost: Callable[[Held, int], None],
    failed: Callable[[Held, int, BrokerError], None],
) -> Settling:
    """Give what says the last words: at once, or with transactions."""
    if isinstance(outbox, Transactions):
        return TransactionSettling(outbox, gone=gone, lost=lost, failed=failed)
    return Settling(gone=gone, lost=lost, failed=failed)
