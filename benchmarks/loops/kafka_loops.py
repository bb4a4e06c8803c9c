"""Hand-written Kafka loops, each as fast as its client allows: what the library is measured against.

All do the same work as a flow: decode, change a little, note the id; commit every 2,000 messages, without waiting, what
is done, and at the end with waiting. Publishing waits for all replicas and looks at every answer; a position is
committed when the outputs of all before it are confirmed.
"""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final

import attrs
import orjson
from confluent_kafka import Consumer, KafkaError, Message, Producer

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata

COMMIT_EVERY: Final = 2000
POLL: Final = 2000  # kafka-python: the best of 500, 1,000 and 2,000
CONSUME: Final = 500  # confluent-kafka: the best of 200 to 2,000
BATCH: Final = 1000
WINDOW: Final = 5
"""Batches on their way."""
Loads = Callable[[bytes], Any]


@attrs.frozen
class Place:
    """Where a row works."""

    broker: str
    topic: str
    out: str
    group: str
    count: int


class Work:
    """What is done with each message, and what was done.

    Args:
        count: Messages, whose ids are below it.
    """

    def __init__(self, count: int) -> None:
        self.seen = bytearray(count)

    def note(self, reading: dict[str, Any]) -> None:
        """Change it a little."""
        reading["seen"] = True
        self.seen[reading["id"]] += 1

    def change(self, reading: dict[str, Any]) -> dict[str, Any]:
        """Change it a little, and give it on."""
        reading["seen"] = True
        self.seen[reading["id"]] += 1
        return reading


def python_consumer(place: Place) -> KafkaConsumer:
    """Make kafka-python's consumer, a member of the group; it waits less than by default for idle partitions."""
    return KafkaConsumer(
        place.topic, bootstrap_servers=place.broker, group_id=place.group, enable_auto_commit=False,
        auto_offset_reset="earliest", metrics_enabled=False, fetch_max_wait_ms=50,
    )  # fmt: skip


def python_producer(place: Place, linger: int = 5) -> KafkaProducer:
    """Make kafka-python's producer: as safe as the library's, lingering and in large batches."""
    return KafkaProducer(
        bootstrap_servers=place.broker, acks="all", enable_idempotence=False, max_in_flight_requests_per_connection=1,
        linger_ms=linger, batch_size=131_072, metrics_enabled=False,
    )  # fmt: skip


def confluent_consumer(place: Place) -> Consumer:
    """Make librdkafka's consumer, which does not stop fetching for a second when much waits."""
    consumer = Consumer({
        "bootstrap.servers": place.broker, "group.id": place.group, "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 10,
    })  # fmt: skip
    consumer.subscribe([place.topic])
    return consumer


def confluent_producer(place: Place) -> Producer:
    """Make librdkafka's producer: idempotent, so that its order holds with several requests in flight."""
    return Producer({
        "bootstrap.servers": place.broker, "acks": "all", "enable.idempotence": True, "linger.ms": 5,
        "queue.buffering.max.messages": 1_000_000,
    })  # fmt: skip


def ends(polled: dict[Any, list[Any]]) -> dict[Any, OffsetAndMetadata]:
    """Give what is committed once all of this is done."""
    return {place: OffsetAndMetadata(records[-1].offset + 1, "", -1) for place, records in polled.items()}


def python_consume(loads: Loads) -> Callable[[Place, Work], float]:
    """Consume, work, commit, with kafka-python."""

    def run(place: Place, work: Work) -> float:
        consumer, note = python_consumer(place), work.note
        began, left, since, done = 0.0, place.count, 0, {}
        while left:
            polled = consumer.poll(timeout_ms=500, max_records=POLL)
            began = began or (time.perf_counter() if polled else 0.0)
            for records in polled.values():
                for record in records:
                    note(loads(record.value))
                left -= len(records)
                since += len(records)
            done |= ends(polled)
            if since >= COMMIT_EVERY:
                consumer.commit_async(done)
                since, done = 0, {}
        if done:
            consumer.commit(done)
        consumer.close(autocommit=False)
        return time.perf_counter() - began

    return run


def confluent_consume(place: Place, work: Work) -> float:
    """Consume, work, commit, with confluent-kafka and orjson."""
    consumer, note, loads = confluent_consumer(place), work.note, orjson.loads
    began, left, since = 0.0, place.count, 0
    while left:
        messages = consumer.consume(CONSUME, 0.5)
        began = began or (time.perf_counter() if messages else 0.0)
        assert not any(map(Message.error, messages))
        for value in map(Message.value, messages):
            note(loads(value))
        left -= len(messages)
        since += len(messages)
        if since >= COMMIT_EVERY:
            consumer.commit()  # all that `consume` gave, and all of that is done
            since = 0
    if since:
        consumer.commit(asynchronous=False)
    consumer.close()
    return time.perf_counter() - began


def python_pipe(loads: Loads, dumps: Callable[[Any], bytes]) -> Callable[[Place, Work], float]:
    """Consume, work, publish, commit, with kafka-python; the next poll is worked on while outputs are on their way."""

    def run(place: Place, work: Work) -> float:
        consumer, producer, change = python_consumer(place), python_producer(place), work.change
        began, left = 0.0, place.count
        sent: deque[tuple[list[Any], dict[Any, OffsetAndMetadata]]] = deque()

        def confirm() -> None:
            futures, done = sent.popleft()
            for future in futures:
                future.get(30)
            consumer.commit_async(done)

        while left:
            polled = consumer.poll(timeout_ms=500, max_records=POLL)
            began = began or (time.perf_counter() if polled else 0.0)
            records = list(chain.from_iterable(polled.values()))
            if not records:
                continue
            send, topic = producer.send, place.out
            sent.append(([send(topic, dumps(change(loads(record.value)))) for record in records], ends(polled)))
            left -= len(records)
            if len(sent) > 1:
                confirm()
        while sent:
            confirm()
        consumer.commit()
        consumer.close(autocommit=False)
        producer.close()
        return time.perf_counter() - began

    return run


def confluent_pipe(place: Place, work: Work) -> float:
    """Consume, work, publish, commit, with confluent-kafka and orjson."""
    consumer, producer, change = confluent_consumer(place), confluent_producer(place), work.change
    loads, dumps, topic = orjson.loads, orjson.dumps, place.out
    began, left, since = 0.0, place.count, 0
    failed: list[KafkaError] = []

    def answered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    while left:
        messages = consumer.consume(CONSUME, 0.5)
        began = began or (time.perf_counter() if messages else 0.0)
        assert not any(map(Message.error, messages))
        for value in map(Message.value, messages):
            producer.produce(topic, dumps(change(loads(value))), on_delivery=answered)
        producer.poll(0)
        left -= len(messages)
        since += len(messages)
        if since >= COMMIT_EVERY * WINDOW:
            producer.flush()
            assert not failed
            consumer.commit()
            since = 0
    producer.flush()
    assert not failed
    consumer.commit(asynchronous=False)
    consumer.close()
    return time.perf_counter() - began


def values(count: int) -> Iterable[list[dict[str, Any]]]:
    """Give the values to publish, a batch at a time."""
    for start in range(0, count, BATCH):
        yield [reading(number) for number in range(start, min(start + BATCH, count))]


def reading(number: int) -> dict[str, Any]:
    """Give one value; 200 bytes of JSON."""
    return {"id": number, "name": "sensor-17", "text": "x" * 113, "values": [1.25, 2.5, 3.75, 5.0], "ok": True}


def python_publish(place: Place, _: Work) -> float:
    """Publish batches with kafka-python, some of them on their way at any time."""
    producer = python_producer(place)
    producer.partitions_for(place.out)
    began = time.perf_counter()
    sent: deque[list[Any]] = deque()
    for batch in values(place.count):
        sent.append([producer.send(place.out, orjson.dumps(value)) for value in batch])
        if len(sent) >= WINDOW:
            for future in sent.popleft():
                future.get(30)
    for future in chain.from_iterable(sent):
        future.get(30)
    producer.close()
    return time.perf_counter() - began


def confluent_publish(place: Place, _: Work, keys: int = 0) -> float:
    """Publish batches with confluent-kafka, with so many keys; 0: without."""
    producer = confluent_producer(place)
    producer.list_topics(place.out)
    began = time.perf_counter()
    failed: list[KafkaError] = []

    def answered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    for batch in values(place.count):
        for value in batch:
            key = b"sensor-%d" % (value["id"] % keys) if keys else None
            producer.produce(place.out, orjson.dumps(value), key, on_delivery=answered)
        producer.poll(0)
    producer.flush()
    assert not failed
    return time.perf_counter() - began


def begin(ticker: subprocess.Popen[str]) -> None:
    """Let the ticker publish."""
    assert ticker.stdin is not None
    ticker.stdin.write("go\n")
    ticker.stdin.flush()


def python_latency(place: Place, ticker: subprocess.Popen[str]) -> list[float]:
    """Take each message as soon as it is there, with kafka-python; gives the delays in seconds."""
    consumer = python_consumer(place)
    while not consumer.assignment():
        consumer.poll(timeout_ms=100)
    begin(ticker)
    delays: list[float] = []
    committed = time.monotonic()
    while len(delays) < place.count:
        for records in consumer.poll(timeout_ms=500).values():
            delays += [time.time() - orjson.loads(record.value)["at"] for record in records]
        if time.monotonic() - committed > 1:
            consumer.commit_async()
            committed = time.monotonic()
    consumer.close(autocommit=False)
    return delays


def confluent_latency(place: Place, ticker: subprocess.Popen[str]) -> list[float]:
    """Take each message as soon as it is there, with confluent-kafka; gives the delays in seconds."""
    consumer = confluent_consumer(place)
    while not consumer.assignment():
        consumer.poll(0.1)
    begin(ticker)
    delays: list[float] = []
    committed = time.monotonic()
    while len(delays) < place.count:
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None
            delays.append(time.time() - orjson.loads(message.value() or b"")["at"])
        if time.monotonic() - committed > 1:
            consumer.commit()
            committed = time.monotonic()
    consumer.close()
    return delays
