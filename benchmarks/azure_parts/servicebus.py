"""Service Bus on the tests' stand-in: this library against tuned hand-written loops over the same client, in one run.

The stand-in runs in a process of its own. Every row does the same work: receive, `orjson.loads`, a small change,
complete; or send, in batches, what `orjson.dumps` gave. Rows take turns and medians are shown: only ratios mean
anything. The stand-in's own share of a processor is shown beside: where it is near 100 %, it is what was measured.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from typing import Any

import orjson
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from stand_in import BODY, Row, StandIn, table

import eventflows
from eventflows import Message, Secret
from eventflows.adapters._servicebus_link import SLICE
from eventflows.locate import open_publisher, open_subscriber
from eventflows.policy import Settlement, Verdict

COUNT = int(os.environ.get("COUNT", "6000"))
TURNS = int(os.environ.get("TURNS", "7"))
IN_FLIGHT = 200
BATCH = 250
LOCK = 60.0


def apply(reading: dict[str, Any]) -> None:
    """Change it a little."""
    reading["seen"] = True


def receive_by_hand(azure: StandIn, name: str) -> float:
    """Receive, work, complete, on one thread; as much fetched ahead as may be in flight."""
    with ServiceBusClient.from_connection_string(azure.connection_string) as client:
        made = client.get_queue_receiver(name, prefetch_count=IN_FLIGHT, socket_timeout=SLICE)
        began, done = 0.0, 0
        with made as receiver:
            while done < COUNT:
                messages = receiver.receive_messages(IN_FLIGHT, max_wait_time=0.2)
                began = began or time.perf_counter()
                for message in messages:
                    apply(orjson.loads(b"".join(message.body)))
                    receiver.complete_message(message)
                done += len(messages)
            return time.perf_counter() - began


class Watch(eventflows.Observer):
    """Notes when the last message was settled."""

    ended = 0.0

    def settled(self, *, flow: str, verdict: object, count: int) -> None:
        """Note it."""
        self.ended = time.perf_counter()


def receive_by_library(azure: StandIn, name: str) -> float:
    """The library, at least once, with everything on."""
    began: list[float] = []

    def timed(reading: dict[str, Any]) -> None:
        if not began:
            began.append(time.perf_counter())
        apply(reading)

    watch = Watch()
    flow = eventflows.subscriber(
        f"servicebus://{azure.host}/{name}",
        connection_string=Secret(azure.connection_string), max_in_flight=IN_FLIGHT, name="bench", observers=[watch],
    )(timed)  # fmt: skip
    result = flow.run(limit=COUNT, signals=False)
    assert result.acked == COUNT
    return watch.ended - began[0]


def send_by_hand(azure: StandIn, name: str) -> float:
    """Fill one batch after another, as full as they get."""
    value = orjson.loads(BODY)
    client = ServiceBusClient.from_connection_string(azure.connection_string)
    with client, client.get_queue_sender(name) as sender:
        began = time.perf_counter()
        for start in range(0, COUNT, BATCH):
            batch = sender.create_message_batch()
            for _ in range(min(BATCH, COUNT - start)):
                batch.add_message(ServiceBusMessage(orjson.dumps(value), content_type="application/json"))
            sender.send_messages(batch, timeout=30)
        return time.perf_counter() - began


def send_by_library(azure: StandIn, name: str) -> float:
    """Publish the same, a batch at a time."""
    value = orjson.loads(BODY)
    secret = Secret(azure.connection_string)
    with open_publisher(f"servicebus://{azure.host}/{name}", connection_string=secret) as publisher:
        began = time.perf_counter()
        for start in range(0, COUNT, BATCH):
            made = [
                Message(orjson.dumps(value), content_type="application/json") for _ in range(min(BATCH, COUNT - start))
            ]
            assert not [one for one in publisher.publish(made) if one.error is not None]
        return time.perf_counter() - began


def fill(azure: StandIn, name: str) -> None:
    """Put the messages of one row into its queue."""
    secret = Secret(azure.connection_string)
    with open_publisher(f"servicebus://{azure.host}/{name}", connection_string=secret) as publisher:
        assert not [one for one in publisher.publish([Message(BODY)] * COUNT, timeout=120) if one.error]


def latency(azure: StandIn, count: int = 100) -> None:
    """Say how long settling takes on a queue where nothing else happens."""
    queue = azure.make()
    secret = Secret(azure.connection_string)
    url = f"servicebus://{azure.host}/{queue}"
    took = []
    with (
        open_publisher(url, connection_string=secret) as publisher,
        open_subscriber(url, connection_string=secret) as subscriber,
    ):
        for _ in range(count):
            publisher.publish([Message(BODY)])
            chunks = subscriber.receive(1, max_bytes=10**6, timeout=5)
            began = time.perf_counter()
            spans = [(chunk, slice(0, len(chunk))) for chunk in chunks]
            assert not subscriber.settle([Settlement(verdict=Verdict.ACK, spans=spans)], durable=True)
            took.append(time.perf_counter() - began)
    print(f"\nsettle on an idle queue: median {statistics.median(took) * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms")


def renewal(azure: StandIn, held: int = 100, seconds: float = 10.0) -> None:
    """Say what keeping 100 locks costs, each renewed at half its time as the core does; locks of `LOCK` seconds."""
    queue = azure.make()
    secret = Secret(azure.connection_string)
    url = f"servicebus://{azure.host}/{queue}"
    with open_publisher(url, connection_string=secret) as publisher:
        publisher.publish([Message(BODY)] * held)
    with open_subscriber(url, connection_string=secret) as subscriber:
        taken = []
        while len(taken) < held:
            for chunk in subscriber.receive(held - len(taken), max_bytes=10**6, timeout=5):
                taken += list(chunk)
        began, burnt = time.perf_counter(), time.process_time()
        rounds = 0
        while time.perf_counter() - began < seconds:
            assert all(one.until for one in subscriber.extend(taken, LOCK))
            rounds += 1
        each = (time.process_time() - burnt) / rounds
    print(f"renewal of {held} locks of {LOCK:g} s, every {LOCK / 2:g} s: {each / (LOCK / 2):.2%} of a processor")


def idle(azure: StandIn) -> None:
    """Say what an idle flow costs."""
    queue = azure.make()
    url = f"servicebus://{azure.host}/{queue}"
    made = eventflows.subscriber(url, connection_string=Secret(azure.connection_string), name="idle")(apply)
    with made.running():
        threading.Event().wait(3)
        burnt = time.process_time()
        threading.Event().wait(10)
        share = (time.process_time() - burnt) / 10
    print(f"idle flow: {share:.2%} of a processor")


def main() -> None:
    """Print the tables."""
    azure = StandIn("queue", lock=LOCK, max_delivery=1000)
    try:
        receiving: dict[str, Row] = {"hand-written": receive_by_hand, "eventflows": receive_by_library}
        table(azure, "receive, apply, complete", receiving, count=COUNT, turns=TURNS, fill=fill)
        sending: dict[str, Row] = {"hand-written batches": send_by_hand, "eventflows": send_by_library}
        table(azure, "send", sending, count=COUNT, turns=TURNS)
        latency(azure)
        renewal(azure)
        idle(azure)
    finally:
        azure.close()


if __name__ == "__main__":
    main()
