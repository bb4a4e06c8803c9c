"""Who runs what next: runs of messages for workers, in the order that the flow asks for."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from eventflows.runner.held import Held, Span, arrival
from eventflows.runner.runs import BY_KEY, Report, Run, Unit, Worker
from eventflows.runner.strips import Strips

RUN_SECONDS: Final = 0.02
"""Length of a run in time: short enough to spread, long enough to pay for the hand-over."""
STUCK_SECONDS: Final = 0.05
"""A worker this long on one run gives its tail to one that is free."""


class Queue:
    """The messages of one unit of order, waiting for each other."""

    __slots__ = ("busy", "leaving", "parked", "spans", "unit")

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.spans: deque[Span] = deque()
        self.busy = 0
        """Runs that may have something of it."""
        self.parked = False
        self.leaving = False
        """Its first message was handed back: what its worker returns follows."""

    @property
    def free(self) -> bool:
        """Whether its first message may run."""
        return bool(self.spans) and not self.busy and not self.parked

    def put_back(self, spans: Iterable[Span]) -> None:
        """Put earlier messages where they were."""
        self.spans = deque(sorted([*spans, *self.spans], key=arrival))


class Dispatch:
    """Gives runs to workers. Only the pump calls it.

    Args:
        workers: Started.
        order: What order is kept within.
        batch: Messages of a full run; None: as many as take a while.
        batch_wait: Seconds that a run waits to become full, from its first message on.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        order: Literal["key", "lane", "none"],
        *,
        batch: int | None = None,
        batch_wait: float = 0.0,
    ) -> None:
        self._workers = workers
        self._batch = batch
        self._batch_wait = batch_wait
        self._alone: set[tuple[int, int]] = set()
        self._order = order
        self._sifts = order == "key" and len(workers) == 1 and workers[0].sifts
        self._strips = Strips()
        """What one worker takes in order, whatever its keys; those of `_queues` are sorted out when it is given."""
        self._loose: deque[Span] = deque()
        self._ready: deque[Queue] = deque()
        self._queues: dict[Unit, Queue] = {}
        self._due: list[tuple[float, int, Queue | None, Span]] = []
        self._ticket = 0
        self._average: float | None = None
        self._began: dict[Worker, float] = {}
        self.waiting = 0
        """Messages that a worker could begin now, those behind others of their unit included."""
        self.parked = 0
        """Messages waiting for their next attempt."""

    @property
    def average(self) -> float | None:
        """Seconds that `apply` takes, lately; None before the first."""
        return self._average

    @property
    def running(self) -> bool:
        """Whether a worker has anything."""
        return any(worker.runs for worker in self._workers)

    @property
    def idle(self) -> bool:
        """Whether a worker has nothing."""
        return not all(worker.runs for worker in self._workers)

    def add(self, held: Held, start: int, stop: int) -> None:
        """Take a stretch of a chunk; what came first is added first."""
        chunk = held.chunk
        self.waiting += stop - start
        if self._sifts:
            self._strips.add((held, start, stop))
        elif self._order == "lane" and chunk.lane is not None:
            self._append(chunk.lane, (held, start, stop))
        elif self._order != "key" or chunk.keys is None:
            self._loose.append((held, start, stop))
        else:
            lane = chunk.lane
            for index in range(start, stop):
                key = chunk.keys[index]
                span = (held, index, index + 1)
                if key is None:
                    self._loose.append(span)
                else:
                    self._append((lane, key), span)

    def _append(self, unit: Unit, span: Span) -> None:
        queue = self._queues.get(unit)
        if queue is None:
            queue = self._queues[unit] = Queue(unit)
        queue.spans.append(span)
        if len(queue.spans) == 1 and queue.free:
            self._ready.append(queue)

    def feed(self, now: float) -> None:
        """Give runs to workers that have room, the least loaded first."""
        brief = self._average is not None and self._average * (self._batch or 1) < RUN_SECONDS / 4
        depth = 2 if brief or self._batch else 1
        for _ in range(depth * len(self._workers)):
            if not self._loose and not self._ready and not self._strips:
                break
            worker = min(self._workers, key=_load)
            if len(worker.runs) >= depth or not self._worth_while(worker, now):
                break
            parts = self._take(self._length())
            if not parts:
                break
            run = Run(parts)
            if worker.runs:
                run.behind = worker.runs[-1].stopped
            else:
                self._began[worker] = now
            worker.give(run)
        if len(self._workers) > 1 and not self._loose and not self._ready:
            self._even_out(now)

    def _worth_while(self, worker: Worker, now: float) -> bool:
        """Say whether a batch is to be taken: it is full, or its first message has waited, and nobody else works."""
        if self._batch is None or (self.waiting >= self._batch and self._available(self._batch) >= self._batch):
            return True
        return not worker.runs and self._first_since() + self._batch_wait <= now

    def _available(self, enough: int) -> int:
        """Count what may begin now, as far as is enough."""
        count = 0
        for spans in self._may_begin():
            for _, start, stop in spans:
                count += stop - start
                if count >= enough:
                    return count
        return count

    def _first_since(self) -> float:
        return min((spans[0][0].at for spans in self._may_begin() if spans), default=math.inf)

    def _may_begin(self) -> Iterator[deque[Span]]:
        yield self._loose
        yield self._strips.spans
        for queue in self._ready:
            yield queue.spans

    def next_batch(self) -> float:
        """Give when a batch that is not full is due; infinity when none waits for that."""
        if self._batch is None or not any(self._may_begin()) or all(worker.runs for worker in self._workers):
            return math.inf
        return self._first_since() + self._batch_wait

    def _length(self) -> int:
        if self._average is None:
            return self._batch or 1
        share = math.ceil(self.waiting / len(self._workers))
        length = max(1, min(share, int(RUN_SECONDS / self._average) if self._average > 0 else share))
        if self._batch is None:
            return length
        return max(min(length, self._available(length)) // self._batch, 1) * self._batch

    def _take(self, length: int) -> list[tuple[Span, Unit]]:
        parts: list[tuple[Span, Unit]] = []
        room = length
        while room > 0 and self._ready:
            queue = self._ready.popleft()
            if not queue.free:
                continue
            if self._alone and self._is_alone(queue.spans[0]):
                if parts:
                    self._ready.appendleft(queue)
                    return parts
                queue.busy += 1
                return [(self._cut(queue.spans, 1)[0], queue.unit)]
            queue.busy += 1
            while room > 0 and queue.spans:
                if self._alone and self._is_alone(queue.spans[0]):
                    return parts
                span, room = self._cut(queue.spans, room)
                parts.append((span, queue.unit))
        while room > 0 and self._loose:
            if self._alone and self._is_alone(self._loose[0]):
                return parts or [(self._cut(self._loose, 1)[0], None)]
            span, room = self._cut(self._loose, room)
            parts.append((span, None))
        if room > 0 and self._strips:
            parts += self._sifted(room)
            if not parts and self._ready:
                return self._take(length)
        return parts

    def _sifted(self, room: int) -> list[tuple[Span, Unit]]:
        going, held_up = self._strips.cut(room, self._queues.keys())
        for unit, span in held_up:
            self._append(unit, span)
        self.waiting -= sum(stop - start for _, start, stop in going)
        return [(span, BY_KEY) for span in going]

    def _is_alone(self, span: Span) -> bool:
        return (span[0].number, span[1]) in self._alone

    def _cut(self, spans: deque[Span], room: int) -> tuple[Span, int]:
        held, start, stop = spans.popleft()
        end = min(stop, start + room)
        if end < stop:
            spans.appendleft((held, end, stop))
        self.waiting -= end - start
        return (held, start, end), room - (end - start)

    def _even_out(self, now: float) -> None:
        if not self.idle:
            return
        for worker in self._workers:
            if worker.runs and now - self._began.get(worker, now) > STUCK_SECONDS:
                for run in worker.runs:
                    if not any(unit in self._queues and self._queues[unit].leaving for _, _, unit in run.parts):
                        self._recall(run)

    def _recall(self, run: Run) -> None:
        back, untouched = run.recall()
        self._take_back(back)
        for unit in untouched:
            self._free(unit)

    def _take_back(self, parts: list[tuple[Span, Unit]]) -> None:
        self._strips.put_back([span for span, unit in parts if unit is BY_KEY])
        for span, unit in parts:
            self.waiting += span[2] - span[1]
            if unit is BY_KEY:
                continue
            queue = None if unit is None else self._queues[unit]
            if queue is None:
                self._loose.appendleft(span)
            else:
                queue.put_back([span])

    def reported(self, report: Report, now: float) -> None:
        """Note a worker's report; call it before `park` and `skipped` for what is in it."""
        if report.count:
            average = report.seconds / report.count
            self._average = average if self._average is None else 0.7 * self._average + 0.3 * average
        if report.run.by_key:
            for unit in {unit for *_, unit in report.failed if unit is not None}:
                self._pin(unit, report.worker.runs)
        if report.last:
            report.worker.runs.remove(report.run)
            self._began[report.worker] = now

    def _pin(self, unit: Unit, runs: Sequence[Run]) -> None:
        """Keep a unit waiting until every run that may have met it without knowing has ended."""
        queue = self._queues.get(unit)
        if queue is None:
            queue = self._queues[unit] = Queue(unit)
        for run in runs:
            if run.by_key and unit not in run.pinned:
                run.pinned.add(unit)
                queue.busy += 1

    def freed(self, report: Report) -> None:
        """Let the units of a run that has ended go on; call it last for a report."""
        for unit in report.run.units():
            self._free(unit)
        for unit in report.run.pinned:
            self._free(unit)

    def _free(self, unit: Unit) -> None:
        queue = self._queues.get(unit)
        if queue is not None:
            queue.busy -= 1
            if not queue.busy:
                queue.leaving = False
                self._wake(queue)

    def _wake(self, queue: Queue) -> None:
        if queue.free:
            self._ready.append(queue)
        elif not queue.spans and not queue.busy and not queue.parked:
            self._queues.pop(queue.unit, None)

    def skipped(self, parts: list[tuple[Span, Unit]], *, alone: bool = False) -> list[Span]:
        """Take back what waits behind a failed message; returns what must follow one that was handed back.

        Args:
            parts: One by one, where they go alone.
            alone: Whether each gets a run of its own.
        """
        if alone:
            self._alone.update((held.number, start) for (held, start, _), _ in parts)
        leaving = [span for span, unit in parts if unit is not None and self._queues[unit].leaving]
        self._take_back([(span, unit) for span, unit in parts if unit is None or not self._queues[unit].leaving])
        return leaving

    def park(self, held: Held, index: int, unit: Unit, due: float, *, alone: bool = False) -> None:
        """Let a failed message, and what is behind it in its unit, wait for its next attempt.

        Args:
            held: Its chunk.
            index: Its place there.
            unit: Its unit of order.
            due: When the next attempt is, in `time.monotonic()` seconds.
            alone: Whether it gets a run of its own: it may take its worker down.
        """
        if alone:
            self._alone.add((held.number, index))
        queue = None if unit is None else self._queues.get(unit)
        if queue is not None:
            queue.parked = True
        self._ticket += 1
        self.parked += 1
        heapq.heappush(self._due, (due, self._ticket, queue, (held, index, index + 1)))

    def pop_unit(self, unit: Unit) -> list[Span]:
        """Take out everything that waits in a unit, to hand it back behind its first message."""
        queue = self._queues.get(unit)
        if queue is None:
            return []
        spans, queue.spans = [*queue.spans, *self._strips.take_out(unit)], deque()
        queue.leaving = queue.busy > 0
        self.waiting -= sum(stop - start for _, start, stop in spans)
        return spans

    def next_due(self) -> float:
        """Give when the next parked message is due; infinity when none is."""
        return self._due[0][0] if self._due else math.inf

    def unpark(self, now: float) -> None:
        """Make ready what is due."""
        while self._due and self._due[0][0] <= now:
            _, _, queue, span = heapq.heappop(self._due)
            self.parked -= 1
            if span[0].lost:
                if queue is not None:
                    queue.parked = False
                    self._wake(queue)
                continue
            self.waiting += 1
            if queue is None:
                self._loose.appendleft(span)
            else:
                queue.parked = False
                queue.put_back([span])
                self._wake(queue)

    def take_all(self) -> list[Span]:
        """Take out everything that no worker has begun."""
        for worker in self._workers:
            for run in worker.runs:
                self._recall(run)
        spans = [span for _, _, _, span in self._due]
        spans.extend(self._loose)
        spans.extend(self._strips)
        for queue in self._queues.values():
            spans.extend(queue.spans)
        self.forget()
        return sorted(spans, key=arrival)

    def forget(self) -> None:
        """Forget all that waits or is parked."""
        self._loose.clear()
        self._strips = Strips()
        self._ready.clear()
        self._alone.clear()
        self._due.clear()
        for queue in list(self._queues.values()):
            queue.spans.clear()
            queue.parked = False
            if not queue.busy:
                del self._queues[queue.unit]
        self.waiting = self.parked = 0

    def forget_lost(self) -> None:
        """Forget what waits of chunks that are not ours any more."""
        self._loose = deque(span for span in self._loose if not span[0].lost)
        self._strips.forget_lost()
        for queue in list(self._queues.values()):
            queue.spans = deque(span for span in queue.spans if not span[0].lost)
            if not queue.spans and not queue.busy and not queue.parked:
                del self._queues[queue.unit]
        self.waiting = sum(
            stop - start
            for spans in (self._loose, self._strips.spans, *(queue.spans for queue in self._queues.values()))
            for _, start, stop in spans
        )


def _load(worker: Worker) -> int:
    return sum(run.count for run in worker.runs)
