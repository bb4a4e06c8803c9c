"""Event Hubs on the tests' stand-in: this library against hand-written loops over the same client, in one run.

The stand-in runs in a process of its own. Every row does the same work: receive, `orjson.loads`, a small change, a
checkpoint for each 500 events in the same kind of store; or send, in batches, what `orjson.dumps` gave. Rows take turns
and medians are shown: only ratios mean anything. The stand-in's own share of a processor is shown beside: where it is
near 100 %, it is what was measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import orjson
from azure.eventhub import EventData, EventHubProducerClient
from azure.eventhub.aio import EventHubConsumerClient
from stand_in import BODY, StandIn, table

import eventflows
from eventflows import Message, Secret
from eventflows.adapters._eventhubs_store import SqliteStore
from eventflows.locate import open_publisher

COUNT = int(os.environ.get("COUNT", "16000"))
TURNS = int(os.environ.get("TURNS", "7"))
PARTITIONS = 4
BATCH = 250
CHECKPOINT = 500
AHEAD = 600
"""Events of a partition that are fetched ahead, here as in the library; the client's own default is 300."""


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


@contextlib.contextmanager
def positions() -> Iterator[str]:
    """Give the name of a new file for positions."""
    with tempfile.TemporaryDirectory(prefix="eventflows-bench-") as folder:
        yield f"{folder}/checkpoints.db"


def by_hand(azure: StandIn, hub: str) -> float:
    """Receive batches with the asyncio client, and a checkpoint for each 500 events of a partition."""
    clock, since = Clock(), dict[str, int]()

    async def run(file: str) -> None:
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

        reading = asyncio.ensure_future(client.receive_batch(on_events, starting_position="-1", prefetch=AHEAD))
        await finished.wait()
        reading.cancel()
        await client.close()

    with positions() as file:
        asyncio.run(run(file))
    return clock.seconds


def by_flow(azure: StandIn, hub: str) -> float:
    """The library, at least once, with everything on."""
    clock = Clock()
    with positions() as file:
        flow = eventflows.subscriber(
            f"eventhubs://{azure.host}/{hub}?group=$Default",
            checkpoints=file, dead_letter="halt", connection_string=Secret(azure.connection_string),
        )(clock.apply)  # fmt: skip
        result = flow.run(limit=COUNT, signals=False)
    assert result.acked == COUNT
    return clock.seconds


def send_by_hand(azure: StandIn, hub: str) -> float:
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


def send_by_library(azure: StandIn, hub: str) -> float:
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


def main() -> None:
    """Print the tables."""
    azure = StandIn("hub", partitions=PARTITIONS)
    try:
        reading = {"hand-written receive_batch": by_hand, "eventflows": by_flow}
        table(azure, "receive, apply, checkpoint", reading, count=COUNT, turns=TURNS, fill=fill)
        sending = {"hand-written send_batch": send_by_hand, "eventflows publish": send_by_library}
        table(azure, "send", sending, count=COUNT, turns=TURNS)
    finally:
        azure.close()


if __name__ == "__main__":
    main()
