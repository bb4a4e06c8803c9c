"""One worker keeps the order of every key, whatever fails, while nobody sorts what does not fail by key."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from eventflows import Delivery, Message
from eventflows.codec import decoder
from eventflows.message import Chunk, Lane
from eventflows.observe import Observers
from eventflows.runner.calling import Apply, Caller
from eventflows.runner.dispatch import Dispatch
from eventflows.runner.held import GONE, Held, Span
from eventflows.runner.runs import Report, Unit
from eventflows.runner.strips import Strips
from eventflows.runner.workers import ThreadWorker

LANE = Lane("images/0")
HOPELESS = 9


class ByHand(ThreadWorker):
    """A worker that works when it is told to."""

    def start(self) -> None:
        """Use no thread."""


class Line:
    """A dispatch with one worker, and what came of the messages, in order.

    Args:
        failures: How often each message fails before it succeeds; 3: it is given up after the third time; `HOPELESS`:
            after the first.
        batch: Inputs of a call.
    """

    def __init__(self, failures: list[int], batch: int | None) -> None:
        self.failures = failures
        self.left = list(failures)
        self.posted: list[Report] = []
        self.calls: list[int] = []
        self.ended: list[int] = []
        annotation = list[int] if batch else int
        call, decoded = (self.together if batch else self.one), decoder(annotation, batch=bool(batch))
        caller = Caller(Apply(call=call, decoder=decoded, batch=batch), Observers("line", []))
        self.worker = ByHand(caller, packer=None, post=self.posted.append, flow="", name="")
        self.begun = 0
        self.dispatch = Dispatch([self.worker], "key", batch=batch)

    def one(self, number: int) -> None:
        """Fail as often as asked for."""
        self.calls.append(number)
        if self.left[number] > 0:
            self.left[number] -= 1
            raise ValueError

    def together(self, numbers: list[int]) -> list[object]:
        """The same for a batch, each failing by itself."""
        answers: list[object] = []
        for number in numbers:
            try:
                self.one(number)
                answers.append("done")
            except ValueError as error:
                answers.append(error)
        return answers

    def work(self) -> None:
        """Do the oldest run that is not begun."""
        if self.begun < len(self.worker.runs):
            self.worker.do(self.worker.runs[self.begun])
            self.begun += 1

    def hear(self) -> None:
        """Take the oldest report, as the pump does."""
        if not self.posted:
            return
        report = self.posted.pop(0)
        self.dispatch.reported(report, 0.0)
        self.begun -= report.last
        for span in report.done:
            self.gone(span)
        self.dispatch.skipped(report.skipped)
        for held, index, _, _, unit in report.failed:
            number = int(held.chunk.bodies[index] or b"")
            if self.calls.count(number) < 3 and self.failures[number] != HOPELESS:
                self.dispatch.park(held, index, unit, 0.0)
            else:
                self.gone((held, index, index + 1))
        if report.last:
            self.dispatch.freed(report)

    def gone(self, span: Span) -> None:
        """Note what is over."""
        held, start, stop = span
        held.mark(start, stop, GONE)
        self.ended += [int(held.chunk.bodies[index] or b"") for index in range(start, stop)]


def held(first: int, keys: list[str | None], number: int) -> Held:
    """Make a chunk whose bodies are numbers from `first` on."""
    bodies: list[bytes | None] = [b"%d" % (first + index) for index in range(len(keys))]

    def build(index: int) -> Delivery:
        return Delivery(message=Message(bodies[index]), source="s", position=str(index), identity=str(first + index))

    return Held(Chunk(bodies, build, lane=LANE, keys=keys), number, 0.0)


TURNS = ["add", "add", "feed", "feed", "feed", "work", "work", "hear", "hear", "unpark"]
KEYS = st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=6)


@settings(max_examples=400, deadline=None)
@given(
    chunks=st.lists(KEYS, min_size=1, max_size=8),
    failures=st.lists(st.sampled_from([0, 0, 0, 1, 3, HOPELESS]), min_size=48, max_size=48),
    turns=st.lists(st.sampled_from(TURNS), max_size=60),
    batch=st.sampled_from([None, 2]),
)
def test_one_worker_keeps_the_order_of_keys_whatever_fails_and_whenever_it_is_heard_of(
    chunks: list[list[str | None]], failures: list[int], turns: list[str], batch: int | None
) -> None:
    """Of a key no message is begun before the one ahead of it is over, and everything is over in the end."""
    line = Line(failures, batch)
    keys = [key for part in chunks for key in part]
    waiting = list(enumerate(chunks))
    taken = 0
    for turn in [*turns, *["add"] * len(chunks), *["unpark", "feed", "work", "hear"] * (8 * len(keys))]:
        if turn == "add" and waiting:
            number, part = waiting.pop(0)
            line.dispatch.add(held(taken, part, number), 0, len(part))
            taken += len(part)
        elif turn == "feed":
            line.dispatch.feed(0.0)
        elif turn == "work":
            line.work()
        elif turn == "hear":
            line.hear()
        elif turn == "unpark":
            line.dispatch.unpark(0.0)
    assert sorted(line.ended) == list(range(len(keys)))
    assert (line.dispatch.waiting, line.dispatch.parked) == (0, 0)
    by_key: dict[Unit, list[int]] = defaultdict(list)
    for number in line.ended if batch else line.calls:  # what follows a failure in its batch was called, for nothing
        if keys[number] is not None:
            by_key[keys[number]].append(number)
    for calls in by_key.values():
        assert calls == sorted(calls)


def test_strips_are_in_the_order_of_arrival_when_runs_are_taken_back_one_after_another() -> None:
    """The run that was given first is taken back first, and is first again."""
    part, strips = held(0, ["a"] * 6, 0), Strips()
    strips.add((part, 0, 6))
    first, second = strips.cut(2)[0], strips.cut(2)[0]
    strips.put_back(first)
    strips.put_back(second)
    assert list(strips) == [(part, 0, 2), (part, 2, 4), (part, 4, 6)]
