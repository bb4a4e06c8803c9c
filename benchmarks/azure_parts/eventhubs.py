"""Event Hubs on the tests' stand-in: this library against hand-written loops over the same client, in one run.

The stand-in runs in a process of its own. Every row does the same work: receive, `orjson.loads`, a small change, a
checkpoint for each 500 events in the same kind of store; or send, in batches, what `orjson.dumps` gave. Rows take turns
and medians are shown: only ratios mean anything. The stand-in's own share of a processor is shown beside: where it is
near 100 %, it is what was measured.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.aio import EventHubConsumerClient

import eventflows
from eventflows import Message, Secret
from eventflows.adapters._eventhubs_store import SqliteStore
from eventflows.locate import open_publisher

TESTS = str(pathlib.Path(__file__).resolve().parents[2] / "tests")
COUNT = int(os.environ.get("COUNT", "8000"))
TURNS = int(os.environ.get("TURNS", "5"))
PARTITIONS = 4
BATCH = 250
CHECKPOINT = 500
BODY = orjson.dumps({"id": 123456, "name": "sensor-17", "text": "x" * 100, "values": [1.25, 2.5, 3.75], "ok": True})
SERVER = f"""
import resource, sys
sys.path.insert(0, {TESTS!r})
from amqp import AzureServer

with AzureServer() as azure:
    print(azure.connection_string, flush=True)
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        if word == "hub":
            azure.hub(name, partitions={PARTITIONS})
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, flush=True)
"""


class StandIn:
    """The stand-in, in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.connection_string = self._said()
        self.host = self.connection_string.removeprefix("Endpoint=sb://").partition(";")[0]

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, text: str) -> float:
        """Tell it something; gives the processor time that it has used, in seconds."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        return float(self._said())

    def hub(self) -> str:
        """Make a hub; gives its name."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self.ask(f"hub {name}")
        return name

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)


class Clock:
    """Times the work only, from the first event on: opening and closing cost the client seconds."""

    def __init__(self) -> None:
        self.began = 0.0
        self.ended = 0.0
        self.done = 0

    def apply(self, reading: dict[str, Any]) -> None:
        """Change it a little, and count."""
        if not self.done:
            self.began = time.perf_counter()
        reading["seen"] = True
        self.done += 1
        if self.done == COUNT:
            self.ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


Row = Callable[[StandIn, str, str], float]
"""Works through a hub, positions in a file; gives seconds."""


def by_hand(azure: StandIn, hub: str, file: str) -> float:
    """Receive batches with the asyncio client, and a checkpoint for each 500 events of a partition."""
    clock, since = Clock(), dict[str, int]()

    async def run() -> None:
        client = EventHubConsumerClient.from_connection_string(
            azure.connection_string, "$Default", eventhub_name=hub, checkpoint_store=SqliteStore(file)
        )
        finished = asyncio.Event()

        async def on_events(context: Any, events: list[EventData]) -> None:  # noqa: ANN401 - the client's
            for event in events:
                clock.apply(orjson.loads(b"".join(event.body)))
            since[context.partition_id] = since.get(context.partition_id, 0) + len(events)
            if since[context.partition_id] >= CHECKPOINT:
                since[context.partition_id] = 0
                await context.update_checkpoint(events[-1])
            if clock.done >= COUNT:
                finished.set()

        reading = asyncio.ensure_future(client.receive_batch(on_events, starting_position="-1", prefetch=300))
        await finished.wait()
        reading.cancel()
        await client.close()

    asyncio.run(run())
    return clock.seconds


def by_flow(azure: StandIn, hub: str, file: str) -> float:
    """The library, at least once, with everything on."""
    clock = Clock()
    flow = eventflows.subscriber(
        f"eventhubs://{azure.host}/{hub}?group=$Default",
        checkpoints=file,
        connection_string=Secret(azure.connection_string),
    )(clock.apply)
    result = flow.run(limit=COUNT, signals=False)
    assert result.acked == COUNT
    return clock.seconds


def send_by_hand(azure: StandIn, hub: str, file: str) -> float:
    """Send full batches, one after another."""
    value = orjson.loads(BODY)
    with EventHubProducerClient.from_connection_string(azure.connection_string, eventhub_name=hub) as client:
        client.create_batch()
        began = time.perf_counter()
        for start in range(0, COUNT, BATCH):
            batch = client.create_batch()
            for _ in range(min(BATCH, COUNT - start)):
                batch.add(EventData(orjson.dumps(value)))
            client.send_batch(batch)
        return time.perf_counter() - began


def send_by_library(azure: StandIn, hub: str, file: str) -> float:
    """Publish as many at a time."""
    value = orjson.loads(BODY)
    secret = Secret(azure.connection_string)
    with open_publisher(f"eventhubs://{azure.host}/{hub}", connection_string=secret) as publisher:
        publisher.open()
        began = time.perf_counter()
        for start in range(0, COUNT, BATCH):
            batch = [Message(orjson.dumps(value)) for _ in range(min(BATCH, COUNT - start))]
            assert not [one for one in publisher.publish(batch) if one.error is not None]
        return time.perf_counter() - began


def fill(azure: StandIn, hub: str) -> None:
    """Put the events of one row into its hub, evenly."""
    secret = Secret(azure.connection_string)
    with open_publisher(f"eventhubs://{azure.host}/{hub}", connection_string=secret) as publisher:
        for start in range(0, COUNT, BATCH):
            options = {"partition": str(start // BATCH % PARTITIONS)}
            batch = [Message(BODY, options=options) for _ in range(min(BATCH, COUNT - start))]
            assert not [one for one in publisher.publish(batch) if one.error is not None]


def measure(azure: StandIn, row: Row, *, full: bool) -> tuple[float, float, float]:
    """Run a row once on a hub of its own: its rate, milliseconds of CPU per 1,000 events, the stand-in's share."""
    hub = azure.hub()
    if full:
        fill(azure, hub)
    with tempfile.TemporaryDirectory(prefix="eventflows-bench-") as folder:
        theirs, ours = azure.ask("used"), time.process_time()
        seconds = row(azure, hub, f"{folder}/checkpoints.db")
        theirs, ours = azure.ask("used") - theirs, time.process_time() - ours
    return COUNT / seconds, ours * 1e6 / COUNT, theirs / seconds


def table(azure: StandIn, title: str, rows: dict[str, Row], *, full: bool) -> None:
    """Measure rows in turns and print them; ratios are to the first."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in rows}
    for _, (name, row) in itertools.product(range(TURNS), rows.items()):
        found[name].append(measure(azure, row, full=full))
    print(f"\n{title}: {COUNT:,} events of {len(BODY)} bytes, medians of {TURNS} turns")
    print(f"{'':36} {'per second':>10} {'ratio':>6} {'CPU ms/1,000':>13} {'stand-in':>9}")
    base = 0.0
    for name in rows:
        rate, cpu, share = (statistics.median(column) for column in zip(*found[name], strict=True))
        base = base or rate
        print(f"{name:36} {rate:10,.0f} {rate / base:6.2f} {cpu:13.0f} {share:9.0%}")


def main() -> None:
    """Print the tables."""
    azure = StandIn()
    try:
        reading = {"hand-written receive_batch": by_hand, "eventflows": by_flow}
        table(azure, "receive, apply, checkpoint", reading, full=True)
        sending = {"hand-written send_batch": send_by_hand, "eventflows publish": send_by_library}
        table(azure, "send", sending, full=False)
    finally:
        azure.close()


if __name__ == "__main__":
    main()
