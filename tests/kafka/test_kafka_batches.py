"""Whole batches, above all for kafka-python: every record arrives as it was, and every answer is its own."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import pytest
from kafka.partitioner.default import murmur2

import eventflows
from eventflows.message import Message
from eventflows.protocols import PublishResult
from eventflows.testing import wait_until
from kafka import KafkaConsumer, TopicPartition
from kafka_harness import administrator
from servers.kafka import shared

pytestmark = pytest.mark.broker

WHEN = datetime.datetime.now(datetime.UTC).replace(microsecond=123000) - datetime.timedelta(hours=10)
"""Not so long ago that retention, which the broker looks after twice a second, would take what is alone in its log."""


def topic(**configs: str) -> str:
    """Make a topic of three partitions; gives its name."""
    name = f"batches-{uuid.uuid4().hex[:8]}"
    with administrator(shared()) as admin:
        admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1, "configs": configs}})
    return name


def found(name: str) -> dict[str, Any]:
    """Read all records of a topic, by their positions."""
    consumer = KafkaConsumer(bootstrap_servers=shared().address(), auto_offset_reset="earliest")
    try:
        places = [TopicPartition(name, number) for number in range(3)]
        consumer.assign(places)
        left = sum(consumer.end_offsets(places).values())
        records: list[Any] = []

        def all_of_them() -> bool:
            records.extend(one for some in consumer.poll(timeout_ms=500).values() for one in some)
            return len(records) >= left

        wait_until(all_of_them, 60, what=f"{left} records")
        return {f"{one.partition}:{one.offset}": one for one in records}
    finally:
        consumer.close()


def published(url: str, *batches: Sequence[Message]) -> list[PublishResult]:
    """Publish batches, all of them on their way at once; gives every answer."""
    with eventflows.open_publisher(url) as publisher:
        pending = [publisher.send(batch) for batch in batches]
        return [result for one in pending for result in one.results(30)]


@pytest.mark.parametrize(
    "more", ["", "?compression=gzip", "?linger=0.05", "?linger=0", "?client=librdkafka", "?client=librdkafka&linger=0"]
)
def test_each_position_is_that_of_its_message_when_batches_are_mixed(more: str) -> None:
    """Bodies of every size, tombstones, keys, headers, times and partitions are where the answers say."""
    name = topic()
    messages = [
        Message(
            None if number % 7 == 3 else bytes([number % 251]) * (number * 13 % 5000),
            key=f"k{number % 11}" if number % 7 in (1, 3) else None,
            headers={"a": "b" * (number % 300)} if number % 3 else {},
            id=f"id-{number}" if number % 5 else None,
            options={"partition": number % 3, "timestamp": WHEN} if number % 4 == 0 else {},
        )
        for number in range(400)
    ]
    results = published(f"kafka://{shared().address()}/{name}{more}", messages[:150], messages[150:151], messages[151:])

    records = found(name)
    assert len(records) == len(messages)
    for message, result in zip(messages, results, strict=True):
        assert result.error is None
        record = records[result.id]
        headers = dict(message.headers) | ({} if message.id is None else {"ef-id": message.id})
        assert record.value == message.body
        assert record.key == (None if message.key is None else message.key.encode())
        assert {name: value.decode() for name, value in record.headers} == headers
        if message.options:
            assert (record.partition, record.timestamp) == (
                message.options["partition"],
                round(WHEN.timestamp() * 1000),
            )
        elif record.key is not None:
            assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 3


def test_each_answer_is_its_own_when_the_client_splits_batches() -> None:
    """The topic takes less than a batch: what the client splits, more than once, is found again by the answers."""
    name = topic(**{"max.message.bytes": "20000"})
    messages = [Message(b"%06d" % number * 100, options={"partition": 1}) for number in range(300)]
    too_large = Message(b"x" * 30_000, options={"partition": 1})
    results = published(f"kafka://{shared().address()}/{name}", [*messages[:200], too_large, *messages[200:]])

    assert isinstance(results.pop(200).error, eventflows.TooLargeError)
    records = found(name)
    assert len(records) == len(messages)
    assert [records[result.id].value for result in results] == [message.body for message in messages]


def test_keyless_messages_use_every_partition_when_they_come_one_by_one() -> None:
    """What has no key is spread: one partition after another."""
    name = topic()
    results = published(f"kafka://{shared().address()}/{name}", *[[Message(b"x")] for _ in range(9)])

    assert sorted(str(result.id).partition(":")[0] for result in results) == [*"000111222"]


def test_a_partition_that_is_not_there_is_the_message_s_own_fault() -> None:
    """The others of its batch are published."""
    name = topic()
    messages = [Message(b"x", options={"partition": number}) for number in (0, 7, 2)]
    results = published(f"kafka://{shared().address()}/{name}", messages)

    assert [type(result.error) for result in results] == [type(None), eventflows.InvalidMessageError, type(None)]
