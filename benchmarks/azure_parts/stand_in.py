"""The tests' stand-in in a process of its own, and tables of rows that take turns on it."""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable

import orjson

TESTS = str(pathlib.Path(__file__).resolve().parents[2] / "tests")
BODY = orjson.dumps({"id": 123456, "name": "sensor-17", "text": "x" * 100, "values": [1.25, 2.5, 3.75], "ok": True})
SERVER = f"""
import json, resource, sys
sys.path.insert(0, {TESTS!r})
from amqp import AzureServer

with AzureServer() as azure:
    print(azure.connection_string, flush=True)
    for line in sys.stdin:
        kind, name, settings = json.loads(line)
        if kind is not None:
            getattr(azure, kind)(name, **settings)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, flush=True)
"""


class StandIn:
    """The stand-in, in a process of its own.

    Args:
        kind: What it makes for each row: `queue` or `hub`.
        settings: Of these.
    """

    def __init__(self, kind: str, **settings: object) -> None:
        self._kind = kind
        self._settings = settings
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.connection_string = self._said()
        self.host = self.connection_string.removeprefix("Endpoint=sb://").partition(";")[0]

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _ask(self, *words: object) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(words).decode() + "\n")
        self._process.stdin.flush()
        return float(self._said())

    def make(self) -> str:
        """Make a queue or hub; gives its name."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self._ask(self._kind, name, self._settings)
        return name

    def used(self) -> float:
        """Give the processor time that it has used, in seconds."""
        return self._ask(None, None, None)

    def close(self) -> None:
        """Stop it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


Row = Callable[[StandIn, str], float]
"""Works through a queue or hub; gives the seconds from the first message to the end."""
Fill = Callable[[StandIn, str], None]


def _measure(azure: StandIn, row: Row, fill: Fill | None, count: int) -> tuple[float, float, float]:
    """Run a row once: its rate, milliseconds of CPU for 1,000 messages, the stand-in's share of a processor."""
    name = azure.make()
    if fill is not None:
        fill(azure, name)
    theirs, ours = azure.used(), time.process_time()
    seconds = row(azure, name)
    theirs, ours = azure.used() - theirs, time.process_time() - ours
    return count / seconds, ours * 1e6 / count, theirs / seconds


def table(
    azure: StandIn, title: str, rows: dict[str, Row], *, count: int, turns: int, fill: Fill | None = None
) -> None:
    """Measure rows in turns, each turn in the other order, and print them.

    Ratios are to the first row, turn by turn, so that what the machine does beside falls on both.
    """
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in rows}
    for turn in range(turns):
        for name in list(rows)[:: -1 if turn % 2 else 1]:
            found[name].append(_measure(azure, rows[name], fill, count))
    base = [rate for rate, _, _ in found[next(iter(rows))]]
    print(f"\n{title}: {count:,} of {len(BODY)} bytes, medians of {turns} turns")
    print(f"{'':30} {'per second':>10} {'ratio':>6} {'CPU ms/1,000':>13} {'stand-in busy':>14}")
    for name, measured in found.items():
        ratio = statistics.median(rate / first for (rate, _, _), first in zip(measured, base, strict=True))
        rate, cpu, busy = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:30} {rate:10,.0f} {ratio:6.2f} {cpu:13.0f} {busy:14.0%}", flush=True)
