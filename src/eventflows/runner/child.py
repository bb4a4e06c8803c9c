"""What runs in a worker process: import the flow, load once, then run what comes through the pipe."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol, cast

import attrs

from eventflows.codec import encode
from eventflows.errors import RunError
from eventflows.message import Delivery, Message, Messages
from eventflows.observe import Observers
from eventflows.runner.calling import Apply, Caller, spare_the_loaded
from eventflows.runner.outputs import Packer
from eventflows.runner.reference import Reference
from eventflows.runner.runs import Unit
from eventflows.runner.steps import Steps, singly, together

REPORT_EVERY: Final = 0.05
RUN, AT, SINCE, RECALLED = range(4)
"""Places in the cell of shared memory: which run, which message of it (-1: none), since when `apply` is being called in
nanoseconds of `time.monotonic_ns` (0: it is not); and, written by the other side, the run that is recalled."""


class Cell(Protocol):
    """Whole numbers in shared memory."""

    def __getitem__(self, place: int) -> int: ...
    def __setitem__(self, place: int, value: int) -> None: ...


@attrs.frozen(kw_only=True)
class Task:
    """A run on its way to a worker process, in columns."""

    number: int
    bodies: list[bytes | None]
    content_types: list[str | None] | None
    keys: list[str | None] | None
    """Only where results are published."""
    units: list[int] | None
    """Equal numbers must keep their order; -1: no order; None: none of them has any."""
    deliveries: list[Delivery] | None
    """Only where `apply` wants them."""


@attrs.define
class Answer:
    """What became of some messages of a task."""

    number: int
    done: list[int] = attrs.field(factory=list)
    rows: list[tuple[int, list[bytes | None], list[str | None], list[str | None] | None]] = attrs.field(factory=list)
    """First message, and one output for each from there on: bodies, content types, keys where they are computed."""
    several: list[tuple[int, list[Message]]] = attrs.field(factory=list)
    failed: list[tuple[int, bytes, bool]] = attrs.field(factory=list)
    """Message, its error in a pickle, whether it is undecodable."""
    skipped: list[int] = attrs.field(factory=list)
    calls: list[tuple[list[int], float, bytes | None]] = attrs.field(factory=list)
    """For observers: messages, seconds, the error in a pickle."""
    fatal: bytes | None = None
    count: int = 0
    seconds: float = 0.0
    last: bool = False


class Foreign(Exception):
    """An error that could not cross from a worker process; its class has the name of the original."""


def packed(error: BaseException) -> bytes:
    """Pickle an error; one that cannot be pickled, or not be read again, becomes its name and its text."""
    try:
        pickled = pickle.dumps(error)
        if type(pickle.loads(pickled)) is type(error):  # noqa: S301 - just made here
            return pickled
    except Exception:  # noqa: BLE001, S110 - classes of the user, with hooks of the user
        pass
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error whose text cannot be had is still an error
        text = ""
    return pickle.dumps((type(error).__name__, text))


def unpacked(pickled: bytes) -> BaseException:
    """Make an error of what `packed` gave."""
    try:
        error = pickle.loads(pickled)  # noqa: S301 - made by our own worker process
    except Exception as failure:  # noqa: BLE001 - it could be read there, but not here
        return failure
    if isinstance(error, tuple):
        name, text = error
        return cast("Foreign", type(name, (Foreign,), {})(text))
    return error if isinstance(error, BaseException) else Foreign(str(type(error)))


class TaskBook:
    """Writes down what becomes of a task, and sends it now and then.

    Args:
        task: The run.
        caller: Decodes.
        packer: Makes messages of results; None: results go nowhere.
        send: Sends an answer.
        cell: Where this process says what it is on.
    """

    def __init__(
        self, task: Task, caller: Caller, packer: Packer | None, send: Callable[[Answer], None], cell: Cell
    ) -> None:
        self._task = task
        self._caller = caller
        self._packer = packer
        self._send = send
        self.cell = cell
        self.answer = Answer(task.number)
        self.began = time.perf_counter()

    def places(self) -> Iterator[tuple[Task, int, Unit]]:
        """Give one message after another, as long as nobody recalls the run."""
        units = self._task.units
        for index in range(len(self._task.bodies)):
            if self.cell[RECALLED] == self._task.number:
                return
            unit = None if units is None or units[index] < 0 else units[index]
            yield self._task, index, unit

    def unpack(self, task: Task, index: int) -> tuple[Any, Delivery | None]:
        """Give the input, and its delivery if it is wanted."""
        self.cell[AT] = index
        self.answer.count += 1
        decoder = self._caller.apply.decoder
        body = task.bodies[index]
        types = task.content_types
        value = decoder.plain(body) if types is None else decoder.by_type(body, types[index])
        return value, None if task.deliveries is None else task.deliveries[index]

    def put(self, task: Task, index: int, result: object) -> None:
        """Take a result."""
        packer = self._packer
        if packer is None or result is None:
            self.answer.done.append(index)
        elif isinstance(result, (Message, Messages)):
            messages = packer.unnamed(result, None if task.keys is None else task.keys[index])
            if messages:
                self.answer.several.append((index, messages))
            else:
                self.answer.done.append(index)
        else:
            body, content_type = encode(result)
            keys = [packer.key_of(result)] if packer.computes_keys else None
            last = self.answer.rows[-1] if self.answer.rows else None
            if last is None or last[0] + len(last[1]) != index:
                self.answer.rows.append((index, [body], [content_type], keys))
                return
            last[1].append(body)
            last[2].append(content_type)
            if keys is not None and last[3] is not None:
                last[3].extend(keys)

    def nothing(self, places: Sequence[tuple[Task, int, object, object, object]]) -> None:
        """Take that these have no result."""
        self.answer.done += [place[1] for place in places]

    def failed(self, task: Task, index: int, error: BaseException, undecodable: bool, unit: Unit) -> None:
        """Take a failure."""
        self.answer.failed.append((index, packed(error), undecodable))

    def skipped(self, task: Task, index: int, unit: Unit) -> None:
        """Take a message that must wait behind a failed one."""
        self.answer.skipped.append(index)

    def broken(self, error: RunError) -> None:
        """Take what ends the flow."""
        self.answer.fatal = packed(error)

    def tick(self) -> None:
        """Send, when the last time is long enough ago."""
        if time.perf_counter() - self.began > REPORT_EVERY:
            self.send()

    def send(self, *, last: bool = False) -> None:
        """Send what there is, and begin anew."""
        now = time.perf_counter()
        self.answer.seconds = now - self.began
        self.answer.last = last
        self._send(self.answer)
        self.answer, self.began = Answer(self._task.number), now


def main(connection: Connection, cell: Cell, reference: Reference, watched: bool) -> None:
    """Work until the other side goes away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a Ctrl-C reaches the whole group; the parent drains, then ends us
    try:
        plan = reference.resolve().plan()
        call = plan.prepare()
        packer = None
        if plan.publisher is not None:
            packer = Packer(key=plan.key, headers=plan.headers, prefix="")
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent says it
        _send(connection, ("failed", packed(error)))
        return
    apply = Apply(
        call=_awaited(call) if plan.is_async else call, decoder=plan.decoder, wants_delivery=plan.wants_delivery,
        batch=plan.batch,
    )  # fmt: skip
    caller = Caller(apply, Observers(plan.name, ()))
    spare_the_loaded()
    _send(connection, ("ready", os.getpid()))
    while True:
        try:
            task = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own parent
        except (EOFError, OSError):
            return
        _work(task, caller, packer, plan.name, connection, cell, watched)


def _work(
    task: Task, caller: Caller, packer: Packer | None, flow: str, connection: Connection, cell: Cell, watched: bool
) -> None:
    cell[AT] = -1
    cell[RUN] = task.number
    book = TaskBook(task, caller, packer, lambda answer: _send(connection, ("answer", answer)), cell)
    steps = (
        singly(book.places(), book)
        if caller.apply.batch is None
        else together(book.places(), book, flow, caller.apply.batch)
    )
    _drive(steps, caller, book, watched)
    cell[AT] = -1
    book.send(last=True)


def _drive(steps: Steps, caller: Caller, book: TaskBook, watched: bool) -> None:
    try:
        given = next(steps)
        while True:
            began, result, failure = time.perf_counter(), None, None
            book.cell[SINCE] = time.monotonic_ns()
            book.cell[AT] = given.at[0]
            try:
                result = caller.call(given)
            except BaseException as error:  # noqa: BLE001 - nothing that apply raises ends the worker
                failure = error
            book.cell[SINCE] = 0
            if watched:
                pickled = None if failure is None else packed(failure)
                book.answer.calls.append((list(given.at), time.perf_counter() - began, pickled))
            given = steps.send((result, failure))
    except StopIteration:
        return


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    import asyncio

    runner = asyncio.Runner()

    async def await_it(args: Sequence[object], extra: dict[str, object]) -> object:
        return await function(*args, **extra)

    return lambda *args, **extra: runner.run(await_it(args, extra))


def _send(connection: Connection, what: object) -> None:
    try:
        connection.send_bytes(pickle.dumps(what, protocol=5))
    except (BrokenPipeError, ConnectionResetError):
        sys.stderr.close()  # nobody is left to read what the end of this process would print
        os._exit(1)
