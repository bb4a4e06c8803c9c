"""Worker processes: each runs `apply` over one run of messages after another, and is replaced when it dies.

A pool library was looked for first. None of `concurrent.futures`, pebble, loky and mpire tells which of the messages
sent together a process was on when it died, so a crash would cost all of them an attempt, or each would need a trip.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

import attrs

from eventflows.errors import CallTimeoutError, LoadError, RunError, WorkerLostError
from eventflows.message import Delivery
from eventflows.observe import Observers
from eventflows.observe.logging import shown
from eventflows.runner.child import AT, RECALLED, RUN, SINCE, Answer, Task, main, unpacked
from eventflows.runner.held import GONE, Held, Span, join
from eventflows.runner.outputs import Packer
from eventflows.runner.plan import Plan
from eventflows.runner.reference import Reference
from eventflows.runner.runs import Parcel, Report, Run, Unit

LOOK: Final = 1.0
"""Seconds between looks at a process that is being loaded."""
LAST_WORDS: Final = 5.0
"""Seconds that a process gets for its own end before it is killed."""
HOPELESS: Final = 3
"""Processes that may die one after another without having begun a message."""


class _Sent:
    """A run in a worker process: its messages in a row, and which of them are accounted for."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        self.places: list[tuple[Held, int, Unit]] = [
            (held, index, unit)
            for held, indices, unit in run.parts
            for index in list(indices)
            if held.state[index] != GONE
        ]
        self.known = bytearray(len(self.places))
        self.overdue: int | None = None
        """The message whose call took too long, so that the process was killed."""

    def rest(self) -> list[int]:
        """Give what nothing is known of."""
        return [index for index, known in enumerate(self.known) if not known]

    def spans(self, indices: list[int]) -> list[tuple[Span, Unit]]:
        """Give messages one by one, as dispatch takes them back."""
        places = [self.places[index] for index in indices]
        return [((held, index, index + 1), unit) for held, index, unit in places]


class ProcessWorker:
    """One process that runs `apply`, and the thread that looks after it.

    Args:
        plan: The flow.
        reference: Where the process finds the flow.
        packer: Makes messages of results; None: results go nowhere.
        observers: Told of calls, when the process reports them.
        post: Takes a report; from the worker's thread.
        name: Of the thread and the process.
    """

    sifts = False

    def __init__(
        self,
        plan: Plan,
        reference: Reference,
        *,
        packer: Packer | None,
        observers: Observers,
        post: Callable[[Report], None],
        name: str,
    ) -> None:
        self._plan = plan
        self._reference = reference
        self._packer = packer
        self._observers = observers
        self._watched = observers.listens("started") or observers.listens("finished")
        self._post = post
        self._name = name
        self._context = multiprocessing.get_context("spawn")
        self._cell = self._context.RawArray("q", 4)
        self._inbox: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self.runs: list[Run] = []
        self._numbers = 0
        self._lost = 0
        self._killed = False
        self._process: Any = None
        self._connection: Connection | None = None
        self._start()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def give(self, run: Run) -> None:
        """Hand it a run."""
        self.runs.append(run)
        self._inbox.put(run)

    def ready(self, given_up: Callable[[], bool]) -> None:
        """Wait until the process has loaded.

        Raises:
            LoadError: It could not import the flow, or `load()` raised there.
        """
        self._await_ready(given_up)
        self._thread.start()

    def stop(self) -> None:
        """Let the process end when it is idle."""
        self._inbox.put(None)

    def kill(self) -> None:
        """End the process, whatever it is on."""
        self._killed = True
        self._process.kill()

    def join(self, timeout: float) -> None:
        """Wait for the end, at most `timeout` seconds; then end it."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        if self._process.is_alive():
            self._process.kill()

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        self._cell[AT] = -1
        self._cell[SINCE] = 0
        self._process = self._context.Process(
            target=main, args=(theirs, self._cell, self._reference, self._watched), name=self._name, daemon=True
        )
        self._process.start()
        theirs.close()  # ours alone now, so that the end of the process is the end of the pipe
        self._connection = ours

    def _await_ready(self, given_up: Callable[[], bool]) -> None:
        assert self._connection is not None  # noqa: S101 - for the type checker: _start made it
        while not self._connection.poll(LOOK):
            if given_up() or self._killed:
                return
        try:
            word, what = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our own process
        except (EOFError, OSError):
            self._process.join(LAST_WORDS)
            raise LoadError(
                f"flow {self._plan.name}: a worker process ended while it was loading "
                f"({_end(self._process.exitcode)}). See its own output, and start again."
            ) from None
        if word == "failed":
            error = unpacked(what)
            raise LoadError(
                f"flow {self._plan.name}: a worker process cannot load ({shown(error)}). Mend it and start again."
            ) from error

    def _work(self) -> None:
        while (run := self._inbox.get()) is not None and not self._killed:
            self._execute(run)
        if self._connection is not None:
            self._connection.close()
        self._process.join(LAST_WORDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(LAST_WORDS)

    def _execute(self, run: Run) -> None:
        self._numbers += 1
        sent = _Sent(run, self._numbers)
        run.tell = lambda: self._cell.__setitem__(RECALLED, sent.number)
        if not sent.places or (self._send(self._task(sent)) and self._receive(sent)):
            if not sent.places:
                self._post(self._report(sent, last=True))
            return
        if not self._killed:
            self._bury(sent)

    def _task(self, sent: _Sent) -> Task:
        places = sent.places
        units: dict[Unit, int] = {}
        types = any(held.chunk.content_types is not None for held, _, _ in places)
        keys = self._packer is not None and any(held.chunk.keys is not None for held, _, _ in places)
        return Task(
            number=sent.number,
            bodies=[held.chunk.bodies[index] for held, index, _ in places],
            content_types=[_at(held.chunk.content_types, index) for held, index, _ in places] if types else None,
            keys=[_at(held.chunk.keys, index) for held, index, _ in places] if keys else None,
            units=[-1 if unit is None else units.setdefault(unit, len(units)) for _, _, unit in places],
            deliveries=[_portable(held.chunk[index]) for held, index, _ in places]
            if self._plan.wants_delivery is not None
            else None,
        )

    def _send(self, task: Task) -> bool:
        assert self._connection is not None  # noqa: S101 - for the type checker: _start made it
        try:
            self._connection.send_bytes(pickle.dumps(task, protocol=5))
        except OSError:
            return False  # it died while it was idle
        return True

    def _receive(self, sent: _Sent) -> bool:
        """Take answers until the last; False when the process has ended before."""
        assert self._connection is not None  # noqa: S101 - for the type checker: _start made it
        while True:
            try:
                if not self._connection.poll(self._patience()):
                    if self._overdue():
                        sent.overdue = self._cell[AT]
                        self._process.kill()  # what it has sent before is still in the pipe
                        return self._receive_rest(sent)
                    continue
                _, answer = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - our own process
            except (EOFError, OSError):
                return False
            self._take(sent, answer)
            if answer.last:
                return True

    def _receive_rest(self, sent: _Sent) -> bool:
        assert self._connection is not None  # noqa: S101 - for the type checker: _start made it
        try:
            while True:
                self._take(sent, pickle.loads(self._connection.recv_bytes())[1])  # noqa: S301 - our own process
        except (EOFError, OSError):
            return False

    def _patience(self) -> float | None:
        timeout = self._plan.timeout
        if timeout is None:
            return None
        since = self._cell[SINCE]
        left = timeout if since == 0 else timeout - (time.monotonic_ns() - since) / 1e9
        return max(left, 0.0) + 0.001

    def _overdue(self) -> bool:
        timeout, since = self._plan.timeout, self._cell[SINCE]
        return timeout is not None and since != 0 and time.monotonic_ns() - since >= timeout * 1e9

    def _report(self, sent: _Sent, *, last: bool = False) -> Report:
        report = Report(self, sent.run)
        report.last = last
        return report

    def _take(self, sent: _Sent, answer: Answer) -> None:
        report = self._report(sent, last=answer.last)
        report.count, report.seconds = answer.count, answer.seconds
        for index in answer.done:
            held, place, _ = sent.places[index]
            join(report.done, held, place, place + 1)
            sent.known[index] = 1
        for first, bodies, types, keys in answer.rows:
            self._take_row(sent, report, first, bodies, types, keys)
        for index, messages in answer.several:
            assert self._packer is not None  # noqa: S101 - for the type checker: there are outputs
            held, place, _ = sent.places[index]
            report.parcels.append(Parcel(held, place, place + 1, self._packer.named(messages, held, place)))
            sent.known[index] = 1
        for index, error, undecodable in answer.failed:
            held, place, unit = sent.places[index]
            report.failed.append((held, place, unpacked(error), undecodable, unit))
            sent.known[index] = 1
        report.skipped = sent.spans(answer.skipped)
        for index in answer.skipped:
            sent.known[index] = 1
        if answer.fatal is not None:
            fatal = unpacked(answer.fatal)
            report.fatal = fatal if isinstance(fatal, RunError) else RunError(str(fatal))
        elif answer.last:
            report.returned = sent.spans(sent.rest())  # recalled
        self._tell(sent, answer)
        self._lost = 0
        self._post(report)

    def _take_row(
        self,
        sent: _Sent,
        report: Report,
        first: int,
        bodies: list[bytes | None],
        types: list[str | None],
        keys: list[str | None] | None,
    ) -> None:
        """Make parcels of outputs in a row; their inputs may be neighbours, or not."""
        assert self._packer is not None  # noqa: S101 - for the type checker: there are outputs
        begin = 0
        for at in range(1, len(bodies) + 1):
            held, place, _ = sent.places[first + begin]
            if at < len(bodies):
                other, index, _ = sent.places[first + at]
                if other is held and index == place + at - begin:
                    continue
            part = slice(begin, at)
            report.parcels.append(
                self._packer.row(held, place, bodies[part], types[part], None if keys is None else keys[part])
            )
            begin = at
        sent.known[first : first + len(bodies)] = b"\1" * len(bodies)

    def _tell(self, sent: _Sent, answer: Answer) -> None:
        for indices, seconds, pickled in answer.calls:
            error = None if pickled is None else unpacked(pickled)
            for index in indices:
                held, place, _ = sent.places[index]
                self._observers.tell("started", delivery=held.chunk[place])
                self._observers.tell("finished", delivery=held.chunk[place], seconds=seconds, error=error)

    def _bury(self, sent: _Sent) -> None:
        """Account for what a dead process had, and put another in its place."""
        self._process.join(LAST_WORDS)
        at = self._cell[AT] if self._cell[RUN] == sent.number else -1
        if sent.overdue is not None:
            at = sent.overdue  # by now it may have been on another
        rest = sent.rest()
        report = self._report(sent, last=True)
        if at in rest:
            self._lost = 0
            if self._plan.batch is None or len(rest) == 1:
                self._charge(sent, report, at)
                rest.remove(at)
            else:
                report.alone = True  # whose fault it was shows when each has a process to itself
        else:
            self._lost += 1
        report.returned = sent.spans(rest)
        try:
            if self._lost >= HOPELESS:
                raise RunError(
                    f"flow {self._plan.name}: {HOPELESS} worker processes died one after another without having "
                    f"begun a message (the last: {_end(self._process.exitcode)}). See their output, and the memory."
                )
            self._replace()
        except RunError as error:
            report.fatal = error
        self._post(report)

    def _charge(self, sent: _Sent, report: Report, index: int) -> None:
        held, place, unit = sent.places[index]
        error: Exception
        if sent.overdue is not None:
            error = CallTimeoutError(
                f"apply of flow {self._plan.name} took longer than timeout={self._plan.timeout:g} s, and its process "
                "was killed. Give it more time, or find out what it waits for."
            )
        else:
            error = WorkerLostError(
                f"the worker process died while it was on this message ({_end(self._process.exitcode)})."
            )
        report.failed.append((held, place, error, False, unit))
        report.count += 1

    def _replace(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._killed:
            return
        self._start()
        self._await_ready(lambda: self._killed)


def _at(column: Any, index: int) -> Any:  # noqa: ANN401 - whatever a chunk's column holds
    return None if column is None else column[index]


def _portable(delivery: Delivery) -> Delivery:
    """Make a delivery that crosses to another process: without the client's object."""
    return attrs.evolve(delivery, native=None)


def _end(exitcode: int | None) -> str:
    if exitcode is None:
        return "it still runs"
    return f"killed by signal {-exitcode}" if exitcode < 0 else f"exit status {exitcode}"
