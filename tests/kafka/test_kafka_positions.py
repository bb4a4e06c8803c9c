"""Where a group goes on: claims that ended badly, what retention removed, how old the oldest message is."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Iterator

import pytest

from eventflows import subscriber
from eventflows.message import Lane, Message
from eventflows.observe import Observer
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Subscriber
from eventflows.testing import wait_until
from eventflows.testing.cases import Taken, spread
from eventflows.testing.conditions import pass_time
from kafka import KafkaConsumer, TopicPartition
from kafka_harness import KafkaHarness, RdHarness
from kafka_use import administrator, ends, fresh_topic, positions
from servers.kafka import shared

pytestmark = pytest.mark.broker


class OnePartition(KafkaHarness):
    """Topics of one partition, so that there is one order."""

    partitions = 1


class OnePartitionThroughLibrdkafka(RdHarness):
    """The same through the other client."""

    partitions = 1


@pytest.fixture
def broker(client: str) -> Iterator[KafkaHarness]:
    """The broker that all share."""
    harness = OnePartitionThroughLibrdkafka() if client == "librdkafka" else OnePartition()
    yield harness
    harness.close()


@pytest.fixture
def topic(broker: KafkaHarness) -> str:
    """A topic with five messages."""
    name = broker.fresh()
    broker.create(name)
    with broker.publisher(name) as publisher:
        assert not any(one.error for one in publisher.publish([Message(b"%d" % number) for number in range(5)]))
    return name


def take(source: Subscriber, count: int) -> list[Taken]:
    """Receive so many."""
    taken: list[Taken] = []

    def enough() -> bool:
        taken.extend(spread(source.receive(count - len(taken), max_bytes=10_000, timeout=1)))
        return len(taken) == count

    wait_until(enough, what="messages")
    return taken


def ack(source: Subscriber, taken: list[Taken]) -> None:
    """Acknowledge, confirmed."""
    assert not source.settle([Settlement(verdict=Verdict.ACK, spans=[one.span for one in taken])], durable=True)


def attempts(broker: KafkaHarness, topic: str) -> list[int]:
    """Take two messages, tell their attempts, and close in good order."""
    with broker.subscriber(topic) as source:
        return [one.delivery.attempt for one in take(source, 2)]


def lose(broker: KafkaHarness, topic: str, *, done: int = 0) -> None:
    """Take messages, finish some, and lose the claim as a process does that is killed."""
    source = broker.subscriber(topic)
    source.open()
    ack(source, take(source, 2)[:done])
    broker.revoke(source)
    source.close()


def test_a_claim_that_was_lost_counts_as_an_attempt_of_its_first_message(broker: KafkaHarness, topic: str) -> None:
    """Each claim that ended badly is one; the message behind the first may never have been handed out."""
    lose(broker, topic)
    lose(broker, topic)
    assert attempts(broker, topic) == [3, 1]


def test_a_claim_that_ended_well_counts_nothing(broker: KafkaHarness, topic: str) -> None:
    """A member that leaves says so with its last commit."""
    attempts(broker, topic)
    assert attempts(broker, topic) == [1, 1]


def test_a_claim_that_got_on_counts_once_at_its_new_position(broker: KafkaHarness, topic: str) -> None:
    """What was lost before the position moved does not count for what comes after it."""
    lose(broker, topic)
    lose(broker, topic, done=1)
    assert attempts(broker, topic) == [2, 1]


def test_the_position_carries_the_count_in_its_metadata(broker: KafkaHarness, topic: str) -> None:
    """Administrators see it beside the position; librdkafka writes it with a zero at its end."""
    lose(broker, topic)
    [place] = positions(shared(), broker.group_of(None)).values()
    assert (place.offset, place.metadata.rstrip("\0")) == (0, "eventflows claims=1")


class Gaps(Observer):
    """Keeps what is told of gaps."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def gap(self, *, flow: str, lane: Lane, first: str, last: str) -> None:
        """Keep it."""
        self.seen.append((lane.name, first, last))


def test_messages_that_retention_removed_are_told_as_a_gap(broker: KafkaHarness, topic: str) -> None:
    """The flow goes on at the first message that is left, and its observers learn which are gone."""
    with broker.subscriber(topic) as source:
        ack(source, take(source, 1))
    with administrator(shared()) as admin:
        admin.delete_records({TopicPartition(topic, 0): 3})
    gaps, seen = Gaps(), []
    url, options = broker.source(topic)
    subscriber(url, observers=[gaps], **options)(seen.append).run(limit=2, signals=False)
    assert (seen, gaps.seen) == ([3, 4], [(f"{topic}/0", "0:1", "0:2")])


def test_what_compaction_removed_is_not_waited_for(broker: KafkaHarness) -> None:
    """A compacted log has gaps wherever a key came again; the position reaches its end all the same."""
    configs = {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.0",
               "segment.ms": "1"}  # fmt: skip
    name = fresh_topic(shared(), 1, **configs)
    with broker.publisher(name) as publisher:
        for round in range(5):
            assert not any(
                one.error for one in publisher.publish([Message(b"%d" % round, key=f"k{n}") for n in range(50)])
            )
            pass_time(0.05)
    wait_until(lambda: len(everything_now(name)) < 150, 60, what="compaction", every=0.5)
    with broker.subscriber(name) as source:
        left = everything_now(name)
        taken = take(source, len(left))
        assert [one.delivery.position for one in taken] == left
        ack(source, taken)
    assert list(broker.committed(name).values()) == list(ends(shared(), name).values())


def everything_now(topic: str) -> list[str]:
    """Give the positions that a topic has messages at."""
    consumer = KafkaConsumer(bootstrap_servers=shared().address(), auto_offset_reset="earliest")
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        [end] = consumer.end_offsets([partition]).values()
        found: list[str] = []
        while consumer.position(partition) < end:
            found += [f"0:{one.offset}" for some in consumer.poll(200).values() for one in some]
        return found
    finally:
        consumer.close()


def test_the_backlog_tells_the_age_of_its_oldest_message(broker: KafkaHarness) -> None:
    """It is the age of the first message not received, whatever is behind it."""
    name = broker.fresh()
    broker.create(name)
    now = datetime.datetime.now(datetime.UTC)
    ages = (3600, 60, 5)
    with broker.publisher(name) as publisher:
        publisher.publish([Message(b"x", options={"timestamp": now - datetime.timedelta(seconds=age)}) for age in ages])
    with broker.subscriber(name) as source:
        before = source.backlog()
        take(source, 1)
        after = source.backlog()
    assert before is not None
    assert after is not None
    assert [round((one.oldest_age or 0) / 30) for one in (before, after)] == [120, 2]


def test_a_backlog_of_nothing_has_no_age(broker: KafkaHarness) -> None:
    """An empty topic has no oldest message."""
    name = broker.fresh()
    broker.create(name)
    with broker.subscriber(name) as source:
        backlog = source.backlog()
    assert backlog is not None
    assert (backlog.waiting, backlog.oldest_age) == (0, None)


WITHOUT = """
import sys
sys.modules["kafka"] = None
from eventflows import subscriber
from eventflows.errors import MissingExtraError
from eventflows.locate import open_publisher, open_subscriber
flow = subscriber("kafka://broker:9092/topic?group=g")(lambda input: None)
for make in (lambda: open_subscriber("kafka://broker:9092/topic?group=g"), lambda: open_publisher("kafka://broker:9092/topic"),
             lambda: flow.run(signals=False)):
    try:
        make()
    except MissingExtraError as error:
        print("eventflows[kafka]" in str(error))
"""


def test_without_the_client_the_error_names_the_extra() -> None:
    """Decorating needs no client; opening and running say what to install."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["True"] * 3, done.stderr
