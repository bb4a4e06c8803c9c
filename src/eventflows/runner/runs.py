"""A run of messages for one worker, and the report of what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from eventflows.errors import RunError
from eventflows.message import Batch, Message
from eventflows.runner.held import GONE, Held, Span

Unit = object
"""What order is kept within; None for messages without order."""
BY_KEY: Final[Unit] = object()
"""In place of a unit: each message of the stretch has its own, by its key."""


def unit_of(held: Held, index: int, unit: Unit) -> Unit:
    """Give the unit of one message of a stretch."""
    if unit is not BY_KEY:
        return unit
    chunk = held.chunk
    key = None if chunk.keys is None else chunk.keys[index]
    return None if key is None else (chunk.lane, key)


class Run:
    """Stretches of messages that one worker does back to back.

    Worker and pump take from the same iterators. Each step of a range iterator is atomic under the interpreter's
    lock, so a recall gets exactly what the worker has not begun, without a lock for each message.

    Args:
        parts: Stretches with the unit of order of each.
    """

    __slots__ = ("_whole", "behind", "by_key", "count", "parts", "pinned", "stopped", "tell")

    def __init__(self, parts: list[tuple[Span, Unit]]) -> None:
        self.parts = [(held, iter(range(start, stop)), unit) for (held, start, stop), unit in parts]
        self.count = sum(stop - start for (_, start, stop), _ in parts)
        self._whole = [stop - start for (_, start, stop), _ in parts]
        self.by_key = any(unit is BY_KEY for _, unit in parts)
        """Whether units are told apart by the worker."""
        self.stopped: set[Unit] = set()
        """Units of which a message failed in this run; written by the worker."""
        self.behind: set[Unit] = set()
        """The same of the run before, where that was still going on when this one was given: the worker skips them."""
        self.pinned: set[Unit] = set()
        """Units that dispatch keeps waiting until this run has ended, beside those of `parts`."""
        self.tell: Callable[[], None] | None = None
        """Tells a worker elsewhere that the run is recalled; what it has not begun comes with its report."""

    def units(self) -> set[Unit]:
        """Give the units that wait for its end, as far as they were known when it was given."""
        return {unit for _, _, unit in self.parts if unit is not None and unit is not BY_KEY}

    def recall(self) -> tuple[list[tuple[Span, Unit]], set[Unit]]:
        """Take back what is not begun, at once; the worker finishes the message it is on.

        Returns:
            The stretches, and the units that the run has nothing more to do with, because nothing of them was begun.
        """
        back: list[tuple[Span, Unit]] = []
        begun: list[bool] = []
        for (held, indices, unit), whole in zip(self.parts, self._whole, strict=True):
            rest = list(indices)
            if rest:
                back.append(((held, rest[0], rest[-1] + 1), unit))
            begun.append(len(rest) < whole)
        stay = {unit for (_, _, unit), touched in zip(self.parts, begun, strict=True) if touched}
        untouched = self.units() - stay
        self.parts = [part for part in self.parts if part[2] not in untouched]
        self._whole = [1] * len(self.parts)  # of what stays something was begun
        self.count -= sum(stop - start for (_, start, stop), _ in back)
        if self.tell is not None:
            self.tell()
        return back, untouched


class Parcel:
    """Outputs on their way: one for each input of a stretch, or several of one input."""

    __slots__ = ("held", "messages", "start", "stop")

    def __init__(self, held: Held, start: int, stop: int, messages: Sequence[Message]) -> None:
        self.held = held
        self.start = start
        self.stop = stop
        self.messages = messages

    @property
    def size(self) -> int:
        """Bytes of its bodies."""
        if isinstance(self.messages, Batch):
            return self.messages.size
        return sum(len(message.body or b"") for message in self.messages)

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
                Parcel(held, index, index + 1, [self.messages[index - self.start]])
                for index in range(self.start, self.stop)
                if index not in lost
            ]
        return kept, lost

    def input_of(self, offset: int) -> int:
        """Give the index of the input that a message was made from."""
        return self.start if self.stop - self.start == 1 else self.start + offset


class Worker(Protocol):
    """What dispatch gives runs to. It posts a `Report` at the end of each run, and now and then before."""

    runs: list[Run]
    """Given and not reported as ended; only the pump reads and writes it."""
    sifts: bool
    """Whether it takes stretches `BY_KEY`, and skips the later messages of a key that failed."""

    def give(self, run: Run) -> None:
        """Hand it a run."""

    def stop(self) -> None:
        """Let it end when it is idle."""

    def kill(self) -> None:
        """End what it is on, where that is possible."""

    def join(self, timeout: float) -> None:
        """Wait for its end, at most `timeout` seconds."""


class Report:
    """What a worker did since its last report."""

    __slots__ = (
        "alone",
        "count",
        "done",
        "failed",
        "fatal",
        "last",
        "parcels",
        "returned",
        "run",
        "seconds",
        "skipped",
        "worker",
    )

    def __init__(self, worker: Worker, run: Run) -> None:
        self.worker = worker
        self.run = run
        self.done: list[Span] = []
        """`apply` returned, and there is nothing to publish."""
        self.parcels: list[Parcel] = []
        self.failed: list[tuple[Held, int, BaseException, bool, Unit]] = []
        """Input, error, whether it is undecodable, unit."""
        self.skipped: list[tuple[Span, Unit]] = []
        """Behind a failed message of the same unit; not begun, or its result thrown away."""
        self.returned: list[tuple[Span, Unit]] = []
        """Recalled, or with a worker that died while it was on another message; no attempt is charged."""
        self.alone = False
        """Whether each of those returned gets a run of its own."""
        self.fatal: RunError | None = None
        """Ends the run."""
        self.count = 0
        self.seconds = 0.0
        self.last = False
