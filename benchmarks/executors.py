"""Worker processes and batches, each against the best that a bare loop does with the same work in the same run.

* A pure-Python `apply` of 5 ms, and one of 0.1 ms, in 2 worker processes, against 2 bare processes that only compute.
* A batched `apply` (a numpy matrix product over up to 64 inputs) against a loop over ready-made batches.
* The same at a trickle of 100 messages per second: the latency that is added to `batch_wait`.
"""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
import uuid
from multiprocessing.connection import Connection

import numpy
import orjson

import eventflows
from eventflows import Flow, Message, subscriber
from eventflows.message import Chunk
from eventflows.policy import Verdict

TURNS = 5
PROCESSES = 2
PLACE = f"local://{uuid.uuid4().hex}"
ROUNDS = {"slow": 0, "quick": 0}
"""Rounds of the loop that take 5 ms and 0.1 ms; measured once, by the first process, and sent to the others."""
WIDTHS = (256, 1024)
WEIGHTS = {width: numpy.random.default_rng(1).random((width, width)) for width in WIDTHS}


def work(rounds: int) -> int:
    """Compute for as long as so many rounds take."""
    total = 0
    for number in range(rounds):
        total += number * number % 7
    return total


def rounds_of(seconds: float) -> int:
    """Find how many rounds take so long."""
    rounds, took = 1000, 0.0
    while took < 0.05:
        rounds *= 2
        began = time.perf_counter()
        work(rounds)
        took = time.perf_counter() - began
    return max(int(rounds * seconds / took), 1)


@subscriber(f"{PLACE}-cpu", executor="process", workers=PROCESSES)
def compute(input: int) -> None:
    """Compute."""
    work(input)


def bare_process(connection: Connection) -> None:
    """Compute what comes, without a library."""
    while True:
        try:
            count, rounds = connection.recv()
        except EOFError:
            return
        for _ in range(count):
            work(rounds)
        connection.send(None)


class Bare:
    """Bare processes that compute, ready once made: the rounds are measured while nothing else runs."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = [context.Pipe() for _ in range(PROCESSES)]
        for _, theirs in self._pipes:
            context.Process(target=bare_process, args=(theirs,), daemon=True).start()
        self.seconds(PROCESSES, 1)

    def seconds(self, count: int, rounds: int) -> float:
        """Time so many messages' work, shared evenly."""
        began = time.perf_counter()
        for ours, _ in self._pipes:
            ours.send((count // PROCESSES, rounds))
        for ours, _ in self._pipes:
            ours.recv()
        return time.perf_counter() - began


class Settled(eventflows.Observer):
    """Notes when the first message came and when the last was settled: loading is not part of the comparison."""

    def __init__(self) -> None:
        self.first = self.last = 0.0

    def received(self, *, flow: str, chunk: Chunk) -> None:
        """Note the first."""
        self.first = self.first or time.perf_counter()

    def settled(self, *, flow: str, verdict: Verdict, count: int) -> None:
        """Note the last."""
        self.last = time.perf_counter()


def flow_seconds(flow: Flow[..., object], url: str, bodies: list[bytes]) -> float:
    """Time a flow over messages that wait."""
    from eventflows.flow import run_observed

    source = eventflows.open_publisher(url)
    for start in range(0, len(bodies), 1000):
        source.publish([Message(body) for body in bodies[start : start + 1000]])
    watch = Settled()
    run_observed([flow], [watch], limit=len(bodies), signals=False)
    return watch.last - watch.first


def processes(bare: Bare) -> None:
    """Print the rows of the worker processes."""
    for what, seconds, count, goal in (("5 ms", 0.005, 1200, 0.95), ("0.1 ms", 0.0001, 40_000, 0.85)):
        rounds = rounds_of(seconds)
        pairs = []
        for _ in range(TURNS):
            plain = bare.seconds(count, rounds)
            pairs.append((plain, flow_seconds(compute, f"{PLACE}-cpu", [b"%d" % rounds] * count)))
        ratio = statistics.median(plain / full for plain, full in pairs)
        plain, full = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(
            f"{PROCESSES} processes, {what:6} bare {count / plain:8,.0f}/s  flow {count / full:8,.0f}/s  "
            f"ratio {ratio:.2f} (goal {goal})"
        )


def product(vectors: list[list[float]]) -> numpy.ndarray:
    """Multiply up to 64 vectors by a matrix."""
    return numpy.asarray(vectors) @ WEIGHTS[len(vectors[0])]


@subscriber(f"{PLACE}-batch", batch=64)
def batched(input: list) -> None:  # plain JSON, as in the loop
    """Multiply."""
    product(input)


def batches() -> None:
    """Print the rows of the batches."""
    for width in WIDTHS:
        batches_of(width, 64 * 300 * 256 // width)


def batches_of(width: int, count: int) -> None:
    """Print the row of batches of 64 lists, each of so many numbers."""
    body = orjson.dumps([round(number, 3) for number in numpy.random.default_rng(2).random(width).tolist()])
    pairs = []
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(count // 64):
            product([orjson.loads(body) for _ in range(64)])
        plain = time.perf_counter() - began
        pairs.append((plain, flow_seconds(batched, f"{PLACE}-batch", [body] * count)))
    ratio = statistics.median(plain / full for plain, full in pairs)
    plain, full = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"batches, {width:4} wide   bare {count / plain:8,.0f}/s  flow {count / full:8,.0f}/s  "
        f"ratio {ratio:.2f} (goal 0.9)"
    )


def trickle() -> None:
    """Print the latency at 100 messages per second."""
    for wait in (0.0, 0.01):
        seen: dict[int, float] = {}
        url = f"{PLACE}-trickle-{wait}"

        @subscriber(url, batch=64, batch_wait=wait)
        def apply(input: list[int], seen: dict[int, float] = seen) -> None:
            now = time.perf_counter()
            seen.update(dict.fromkeys(input, now))

        sent: dict[int, float] = {}
        source = eventflows.open_publisher(url)
        with apply.running():
            for number in range(300):
                sent[number] = time.perf_counter()
                source.publish([Message(b"%d" % number)])
                threading.Event().wait(0.01)
            while len(seen) < 300:
                threading.Event().wait(0.01)
        added = statistics.median(seen[number] - sent[number] for number in sent) - wait
        print(f"trickle, batch_wait {wait * 1000:4.0f} ms: median added latency {added * 1000:.2f} ms (goal 2)")


def main() -> None:
    """Print the table."""
    print(f"{TURNS} turns, medians; bare and flow take turns")
    processes(Bare())
    batches()
    trickle()


if __name__ == "__main__":
    main()
