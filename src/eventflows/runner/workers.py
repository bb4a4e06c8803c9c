"""Worker threads: each runs `apply` over one run of messages after another."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from operator import index as index_of
from typing import Any, Final

from eventflows.message import Delivery
from eventflows.runner.calling import Caller
from eventflows.runner.held import GONE, Held, join
from eventflows.runner.ledger import REPORT_EVERY, Ledger
from eventflows.runner.outputs import Packer
from eventflows.runner.runs import Report, Run, Unit, Worker, unit_of
from eventflows.runner.steps import Steps, together

NOWHERE: Final = -2
"""No index, nor the one before it."""


def places(run: Run) -> Iterator[tuple[Held, int, Unit]]:
    """Give what a run has, one after another, as long as nobody recalls it."""
    for held, indices, unit in run.parts:
        for index in indices:
            if held.state[index] != GONE:
                yield held, index, unit_of(held, index, unit)


class HeldBook(Ledger):
    """A ledger of messages whose bodies are in this process.

    Args:
        worker: Whose run it is.
        run: The run.
        packer: Makes parcels of results; None: results go nowhere.
        post: Takes a report.
        caller: Decodes.
    """

    __slots__ = ("_caller", "_plain")

    def __init__(
        self, worker: Worker, run: Run, packer: Packer | None, post: Callable[[Report], None], caller: Caller
    ) -> None:
        super().__init__(worker, run, packer, post)
        self._caller = caller
        self._plain = caller.apply.decoder.plain

    def unpack(self, held: Held, index: int) -> tuple[Any, Delivery | None]:
        """Give the input of a message, and its delivery if anybody wants it."""
        self.report.count += 1
        chunk, caller = held.chunk, self._caller
        value = self._plain(chunk.bodies[index]) if chunk.content_types is None else caller.decode(chunk, index)
        return value, None if caller.plain else chunk[index]


class ThreadWorker:
    """One thread that runs `apply`.

    Args:
        caller: Calls it.
        packer: Makes messages of results; None: results go nowhere.
        post: Takes a report; from the worker's thread.
        flow: The flow's name.
        name: Of the thread.
    """

    sifts = True

    def __init__(
        self, caller: Caller, *, packer: Packer | None, post: Callable[[Report], None], flow: str, name: str
    ) -> None:
        self._caller = caller
        self._packer = packer
        self._post = post
        self._flow = flow
        self._inbox: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self.runs: list[Run] = []
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self.start()

    def start(self) -> None:
        """Begin to work; a simulation does so without a thread."""
        self._thread.start()

    def give(self, run: Run) -> None:
        """Hand it a run."""
        self.runs.append(run)
        self._inbox.put(run)

    def stop(self) -> None:
        """Let the thread end when it is idle; a hung call keeps a daemon thread, and never the process."""
        self._inbox.put(None)

    def kill(self) -> None:
        """Do nothing: a thread cannot be ended from outside."""

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _work(self) -> None:
        while (run := self._inbox.get()) is not None:
            self.do(run)

    def do(self, run: Run) -> None:
        """Call `apply` with all of a run, and report; for the worker's own thread."""
        if self._caller.apply.batch is not None:
            book = HeldBook(self, run, self._packer, self._post, self._caller)
            self._drive(together(places(run), book, self._flow, self._caller.apply.batch, set(run.behind)))
            book.send(last=True)
        else:
            self._execute(run)

    def _drive(self, steps: Steps) -> None:
        call = self._caller.call
        try:
            given = next(steps)
            while True:
                try:
                    outcome = (call(given), None)
                except BaseException as error:  # noqa: BLE001 - nothing that apply raises ends the flow
                    given = steps.send((None, error))
                else:
                    given = steps.send(outcome)
        except StopIteration:
            return

    def _execute(self, run: Run) -> None:
        """Call `apply` with one input after another: `singly`, written out, because this is the hot path."""
        caller, publishes = self._caller, self._packer is not None
        ledger = Ledger(self, run, self._packer, self._post)
        stopped: set[Unit] = set(run.behind)
        began = ledger.began
        for held, indices, unit in run.parts:
            call, read, items = self._handler(held)
            state = held.state
            first = last = NOWHERE
            for index in indices:
                if stopped and (own := unit_of(held, index, unit)) in stopped:
                    ledger.skipped(held, index, own)
                    continue
                if state[index] == GONE:
                    continue
                ledger.report.count += 1
                try:
                    result = call(read(items[index]))
                    if publishes:
                        ledger.put(held, index, result)
                    else:
                        if index != last + 1:
                            if first >= 0:
                                join(ledger.report.done, held, first, last + 1)
                            first = index
                        last = index
                except BaseException as error:  # noqa: BLE001 - nothing that apply raises ends the flow
                    own = unit_of(held, index, unit)
                    ledger.failed(held, index, error, caller.undecodable(held.chunk, index, error), own)
                    if own is not None:
                        stopped.add(own)
                if time.perf_counter() - began > REPORT_EVERY:
                    if first >= 0:
                        join(ledger.report.done, held, first, last + 1)
                        first = last = NOWHERE
                    ledger.send()
                    began = ledger.began
            if first >= 0:
                join(ledger.report.done, held, first, last + 1)
        ledger.send(last=True)

    def _handler(self, held: Held) -> tuple[Callable[[Any], object], Callable[[Any], Any], Sequence[Any]]:
        """Give three parts of one call, `call(read(items[index]))`; put together here, they would cost a call more."""
        caller, chunk = self._caller, held.chunk
        if caller.plain and chunk.content_types is None:
            if held.reader is None:  # not for each run: a chunk may come in hundreds of them
                held.reader = caller.apply.decoder.reader(chunk.bodies)
            return caller.apply.call, held.reader, chunk.bodies
        return partial(caller.one, chunk), index_of, range(len(chunk))
