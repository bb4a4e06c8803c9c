"""Worker threads: each runs `apply` over one run of messages after another."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from eventflows.codec import Decoder
from eventflows.errors import DecodeError
from eventflows.message import Message
from eventflows.observe import Observers
from eventflows.runner.held import GONE, Held, Span, join

REPORT_EVERY: Final = 0.05
"""Seconds after which outcomes are reported though the run goes on."""

Unit = object
"""What order is kept within; None for messages without order."""


class Run:
    """Stretches of messages that one worker does back to back.

    Worker and pump take from the same iterators. Each step of a range iterator is atomic under the interpreter's
    lock, so a recall gets exactly what the worker has not begun, without a lock for each message.

    Args:
        parts: Stretches with the unit of order of each.
    """

    __slots__ = ("began", "count", "parts")

    def __init__(self, parts: list[tuple[Span, Unit]]) -> None:
        self.parts = [(held, iter(range(start, stop)), unit) for (held, start, stop), unit in parts]
        self.count = sum(stop - start for (_, start, stop), _ in parts)
        self.began = False

    def recall(self) -> list[tuple[Span, Unit]]:
        """Take back what is not begun, at once; the worker finishes the message it is on."""
        back: list[tuple[Span, Unit]] = []
        for held, indices, unit in reversed(self.parts):
            rest = list(indices)
            if rest:
                back.append(((held, rest[0], rest[-1] + 1), unit))
        back.reverse()
        self.count -= sum(stop - start for (_, start, stop), _ in back)
        return back


class Parcel:
    """Outputs on their way: one for each input of a stretch, or several of one input."""

    __slots__ = ("held", "messages", "start", "stop")

    def __init__(self, held: Held, start: int, messages: list[Message]) -> None:
        self.held = held
        self.start = start
        self.stop = start + 1
        self.messages = messages

    def ours(self) -> tuple[list[Parcel], list[int]]:
        """Split off what is not ours any more: the parcels to send, and the inputs whose outputs are discarded."""
        held, lane = self.held, self.held.chunk.lane
        gone = held.lost or (lane is not None and lane.lost)
        if not gone and held.state.find(GONE, self.start, self.stop) < 0:
            return [self], []
        lost = [i for i in range(self.start, self.stop) if gone or held.state[i] == GONE]
        kept = []
        if self.stop - self.start > 1:
            kept = [
                Parcel(held, index, [self.messages[index - self.start]])
                for index in range(self.start, self.stop)
                if index not in lost
            ]
        return kept, lost

    def input_of(self, offset: int) -> int:
        """Give the index of the input that a message was made from."""
        return self.start if self.stop - self.start == 1 else self.start + offset


class Report:
    """What a worker did since its last report."""

    __slots__ = ("count", "done", "failed", "last", "parcels", "run", "seconds", "skipped", "worker")

    def __init__(self, worker: Worker, run: Run) -> None:
        self.worker = worker
        self.run = run
        self.done: list[Span] = []
        """`apply` returned, and there is nothing to publish."""
        self.parcels: list[Parcel] = []
        self.failed: list[tuple[Held, int, BaseException, bool, Unit]] = []
        """Input, error, whether it is undecodable, unit."""
        self.skipped: list[tuple[Span, Unit]] = []
        """Behind a failed message of the same unit; not begun."""
        self.count = 0
        self.seconds = 0.0
        self.last = False


Encode = Callable[[object, Held, int], list[Message]]


class Worker:
    """One thread that runs `apply`.

    Args:
        call: Called with an input; with a delivery, too, under the keyword `wants_delivery`.
        decoder: Makes inputs of bodies.
        encode: Makes messages of a result; None: results go nowhere.
        observers: Told when a call starts and ends, if they listen.
        wants_delivery: The keyword of the delivery; None: `apply` does not take it.
        post: Takes a report; from the worker's thread.
        name: Of the thread.
    """

    def __init__(
        self,
        call: Callable[..., Any],
        *,
        decoder: Decoder,
        encode: Encode | None,
        observers: Observers,
        wants_delivery: str | None,
        post: Callable[[Report], None],
        name: str,
    ) -> None:
        self._call = call
        self._decoder = decoder
        self._encode = encode
        self._observers = observers
        self._watched = observers.listens("started") or observers.listens("finished")
        self._wants_delivery = wants_delivery
        self._post = post
        self._inbox: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self.runs: list[Run] = []
        """Given and not reported as ended; only the pump reads and writes it."""
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def give(self, run: Run) -> None:
        """Hand it a run."""
        self.runs.append(run)
        self._inbox.put(run)

    def stop(self) -> None:
        """Let the thread end when it is idle; a hung call keeps a daemon thread, and never the process."""
        self._inbox.put(None)

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while (run := self._inbox.get()) is not None:
            self._execute(run)

    def _execute(self, run: Run) -> None:
        failed_units: set[Unit] = set()
        report = Report(self, run)
        began = time.perf_counter()
        for held, indices, unit in run.parts:
            handle = self._handler(held)
            first = last = -1
            for index in indices:
                if failed_units and unit in failed_units:
                    report.skipped.append(((held, index, index + 1), unit))
                    continue
                if held.state[index] == GONE:
                    continue
                report.count += 1
                try:
                    result = handle(index)
                    if self._encode is None:
                        if first < 0:
                            first = index
                        last = index
                    else:
                        self._pack(report, held, index, result)
                except BaseException as error:  # noqa: BLE001 - nothing that apply raises ends the flow
                    if first >= 0:
                        join(report.done, held, first, last + 1)
                        first = -1
                    self._failed(report, held, index, error, unit)
                    if unit is not None:
                        failed_units.add(unit)
                if (now := time.perf_counter()) - began > REPORT_EVERY:
                    if first >= 0:
                        join(report.done, held, first, last + 1)
                        first = -1
                    report.seconds = now - began
                    self._post(report)
                    report, began = Report(self, run), now
            if first >= 0:
                join(report.done, held, first, last + 1)
        report.last = True
        report.seconds = time.perf_counter() - began
        self._post(report)

    def _failed(self, report: Report, held: Held, index: int, error: BaseException, unit: Unit) -> None:
        report.failed.append((held, index, error, self._undecodable(held, index, error), unit))

    def _undecodable(self, held: Held, index: int, error: BaseException) -> bool:
        # apply may raise a DecodeError of its own; decoding is deterministic, so asking again tells them apart.
        if not isinstance(error, DecodeError):
            return False
        try:
            self._decode(held, index)
        except DecodeError:
            return True
        return False

    def _decode(self, held: Held, index: int) -> object:
        types = held.chunk.content_types
        if types is None:
            return self._decoder.plain(held.chunk.bodies[index])
        return self._decoder.by_type(held.chunk.bodies[index], types[index])

    def _handler(self, held: Held) -> Callable[[int], object]:
        call, bodies, plain = self._call, held.chunk.bodies, self._decoder.plain
        if self._wants_delivery is None and not self._watched:
            if held.chunk.content_types is None:
                return lambda index: call(plain(bodies[index]))
            return lambda index: call(self._decode(held, index))
        return lambda index: self._handle(held, index)

    def _handle(self, held: Held, index: int) -> object:
        value = self._decode(held, index)
        delivery = held.chunk[index]
        extra = {} if self._wants_delivery is None else {self._wants_delivery: delivery}
        if not self._watched:
            return self._call(value, **extra)
        self._observers.tell("started", delivery=delivery)
        began, failure = time.perf_counter(), None
        try:
            return self._call(value, **extra)
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = time.perf_counter() - began
            self._observers.tell("finished", delivery=delivery, seconds=seconds, error=failure)

    def _pack(self, report: Report, held: Held, index: int, result: object) -> None:
        assert self._encode is not None  # noqa: S101 - for the type checker; the caller looked
        messages = self._encode(result, held, index)
        if not messages:
            join(report.done, held, index, index + 1)
            return
        parcels = report.parcels
        if len(messages) == 1 and parcels:
            last = parcels[-1]
            if last.held is held and last.stop == index and last.stop - last.start == len(last.messages):
                last.messages.append(messages[0])
                last.stop = index + 1
                return
        parcels.append(Parcel(held, index, messages))
