"""What a source's options mean on a real broker: topics, beginnings, isolation, membership; and odd messages."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from eventflows.errors import BrokerError
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Subscriber
from eventflows.testing import wait_until
from eventflows.testing.cases import PLENTY, Taken, spread
from kafka import KafkaProducer
from kafka_use import CLIENTS, administrator, ends, fresh_topic
from servers.kafka import KafkaServer, gate, shared
from servers.kafka_gate import LIST_OFFSETS, Request

BEGIN = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(hours=10)
"""Not so long ago that retention would take it."""
MIDDLE = BEGIN + datetime.timedelta(minutes=90)
NO_UTF_8 = b"\xff\x00\xfe"


@pytest.fixture
def server() -> KafkaServer:
    """The broker that all share."""
    return shared()


@pytest.fixture
def group() -> str:
    """A group that nobody has used."""
    return f"reading-{uuid.uuid4().hex[:8]}"


def source(server: KafkaServer, topics: str, group: str, client: str, **options: object) -> Subscriber:
    """Make a subscriber, not opened."""
    url = f"kafka://{server.address()}/{topics}"
    return open_subscriber(url, group=group, session_timeout=6, **CLIENTS[client], **options)


def publish(server: KafkaServer, topic: str, client: str, messages: Sequence[Message]) -> None:
    """Publish, confirmed."""
    with open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client]) as out:
        assert not any(one.error for one in out.publish(messages))


def hourly(bodies: Sequence[bytes]) -> list[Message]:
    """Make messages published an hour after each other."""
    return [
        Message(body, options={"timestamp": BEGIN + datetime.timedelta(hours=hour)}) for hour, body in enumerate(bodies)
    ]


def take(reader: Subscriber, count: int, within: float = 30.0) -> list[Taken]:
    """Receive so many."""
    taken: list[Taken] = []

    def enough() -> bool:
        taken.extend(spread(reader.receive(count - len(taken), max_bytes=PLENTY, timeout=0.5)))
        return len(taken) >= count

    wait_until(enough, within, what=f"{count} messages")
    return taken


def ready(reader: Subscriber) -> None:
    """Let it join."""

    def joined() -> bool:
        assert not spread(reader.receive(1, max_bytes=PLENTY, timeout=0.2))
        return reader.ready

    wait_until(joined, 30, what="a place in the group")


def test_several_topics_are_read_by_one_source_and_positions_name_them(
    server: KafkaServer, group: str, client: str
) -> None:
    """A position says of which topic it is, where there are several."""
    topics = [fresh_topic(server), fresh_topic(server)]
    for topic in topics:
        publish(server, topic, client, [Message(topic.encode())])
    with source(server, ",".join(topics), group, client) as reader:
        found = {one.delivery.position: one.body for one in take(reader, 2)}
    assert found == {f"{topic}/0:0": topic.encode() for topic in topics}


def test_new_group_begins_at_the_newest_message_when_told_so(server: KafkaServer, group: str, client: str) -> None:
    """What was there before it joined is not read."""
    topic = fresh_topic(server)
    publish(server, topic, client, [Message(b"before")])
    with source(server, topic, group, client, from_="latest") as reader:
        ready(reader)
        publish(server, topic, client, [Message(b"after")])
        assert [one.body for one in take(reader, 1)] == [b"after"]


def test_partition_that_is_made_later_is_read_from_its_beginning(server: KafkaServer, group: str, client: str) -> None:
    """The newest message is meant of what was there: of a new partition nothing is passed over in silence."""
    topic = fresh_topic(server)
    with source(server, topic, group, client, from_="latest") as reader:
        ready(reader)
        with administrator(server) as admin:
            admin.create_partitions({topic: 2})
        wait_until(lambda: len(ends(server, topic)) == 2, 10, what="the second partition")
        publish(server, topic, client, [Message(b"new", options={"partition": 1})])
        assert [one.body for one in take(reader, 1)] == [b"new"]


def test_topic_that_is_made_later_is_read_from_its_beginning(server: KafkaServer, group: str, client: str) -> None:
    """The newest message is meant of the topics that a pattern found at first."""
    first, later = (f"{group}-{word}" for word in ("first", "later"))
    with administrator(server) as admin:
        admin.create_topics({first: {"num_partitions": 1}}, wait_for_metadata=True)
        publish(server, first, client, [Message(b"before")])
        with source(server, f"{group}-.*", group, client, from_="latest", pattern=True) as reader:
            ready(reader)
            admin.create_topics({later: {"num_partitions": 1}}, wait_for_metadata=True)
            publish(server, later, client, [Message(b"new")])
            assert [one.body for one in take(reader, 1)] == [b"new"]


def test_new_group_misses_nothing_that_comes_before_its_first_position_is_committed(
    server: KafkaServer, group: str, client: str
) -> None:
    """The newest message is the newest when the source was opened, however long joining takes, and opening again."""
    topic = fresh_topic(server)
    with source(server, topic, group, client, from_="latest") as reader:
        publish(server, topic, client, [Message(b"after")])
        reader.open()
        assert [one.body for one in take(reader, 1)] == [b"after"]


def test_pattern_begins_at_a_time_when_told_so(server: KafkaServer, group: str, client: str) -> None:
    """Of every topic that matches, the first message is the first that was published then, or later."""
    topics = [f"{group}-{word}" for word in ("one", "other")]
    with administrator(server) as admin:
        admin.create_topics({topic: {"num_partitions": 2} for topic in topics}, wait_for_metadata=True)
    for topic in topics:
        publish(server, topic, client, hourly([b"0", b"1", b"2", b"3"]))
    with source(server, f"{group}-.*", group, client, from_=MIDDLE, pattern=True) as reader:
        assert sorted(one.body or b"" for one in take(reader, 4)) == [b"2", b"2", b"3", b"3"]


@pytest.mark.parametrize(
    "given", [MIDDLE.isoformat(), MIDDLE.isoformat().replace("+00:00", "Z"), MIDDLE], ids=["offset", "Z", "datetime"]
)
def test_new_group_begins_at_a_time_when_told_so(server: KafkaServer, group: str, client: str, given: Any) -> None:
    """The first message is the first that was published then, or later."""
    topic = fresh_topic(server)
    publish(server, topic, client, hourly([b"0", b"1", b"2", b"3"]))
    with source(server, topic, group, client, from_=given) as reader:
        assert [one.body for one in take(reader, 2)] == [b"2", b"3"]


def test_new_group_that_begins_at_a_time_misses_nothing_that_comes_meanwhile(
    server: KafkaServer, group: str, client: str
) -> None:
    """A message that comes while the broker is asked where to begin is one at, or after, that time."""
    topic, asked = fresh_topic(server), [None]
    publish(server, topic, client, hourly([b"0"]))

    def come(request: Request) -> bool:
        if request.api == LIST_OFFSETS and asked:
            asked.pop()
            publish(server, topic, "kafka-python", [Message(b"meanwhile")])
        return False

    gate().answer_rules.append(come)
    try:
        url = f"kafka://{server.address('GATED')}/{topic}"
        with open_subscriber(url, group=group, session_timeout=6, from_=MIDDLE, **CLIENTS[client]) as reader:
            assert [one.body for one in take(reader, 1)] == [b"meanwhile"]
    finally:
        gate().answer_rules.clear()


def test_group_goes_on_at_its_position_whatever_the_beginning_says(
    server: KafkaServer, group: str, client: str
) -> None:
    """A beginning is for groups that have committed nothing."""
    topic = fresh_topic(server)
    publish(server, topic, client, hourly([b"0", b"1", b"2"]))
    with source(server, topic, group, client) as reader:
        done = Settlement(verdict=Verdict.ACK, spans=[take(reader, 1)[0].span])
        assert not reader.settle([done], durable=True)
    with source(server, topic, group, client, from_="earliest") as reader:
        assert [one.body for one in take(reader, 2)] == [b"1", b"2"]


def test_tombstone_is_a_message_without_a_body(server: KafkaServer, group: str, client: str) -> None:
    """It keeps its key, and is no empty body."""
    topic = fresh_topic(server)
    publish(server, topic, client, [Message(None, key="gone"), Message(b"", key="empty")])
    with source(server, topic, group, client) as reader:
        found = [(one.delivery.message.key, one.delivery.message.body) for one in take(reader, 2)]
    assert found == [("gone", None), ("empty", b"")]


def test_keys_and_headers_that_are_no_utf_8_survive_a_copy(server: KafkaServer, group: str, client: str) -> None:
    """Received and published again, as a dead letter is, they are the same bytes."""
    came, went = fresh_topic(server), fresh_topic(server)
    raw = KafkaProducer(bootstrap_servers=server.address(), enable_idempotence=False)
    raw.send(came, b"x", key=NO_UTF_8, headers=[("odd", NO_UTF_8)]).get(10)
    raw.close()
    with source(server, came, group, client) as reader:
        publish(server, went, client, [take(reader, 1)[0].delivery.message])
    with source(server, went, group, client) as reader:
        [copy] = take(reader, 1)
    native: Any = copy.delivery.native
    key, headers = (native.key(), native.headers()) if client == "librdkafka" else (native.key, native.headers)
    assert (key, dict(headers)["odd"]) == (NO_UTF_8, NO_UTF_8)


@pytest.mark.parametrize(
    ("isolation", "expected"), [("read_committed", [b"after"]), ("read_uncommitted", [b"aborted", b"after"])]
)
def test_aborted_messages_are_read_only_when_asked_for(
    server: KafkaServer, group: str, client: str, isolation: str, expected: list[bytes]
) -> None:
    """`isolation=read_uncommitted` sees what a transaction took back."""
    topic = fresh_topic(server)
    raw = KafkaProducer(bootstrap_servers=server.address(), transactional_id=group, retry_backoff_ms=5)
    raw.init_transactions()
    raw.begin_transaction()
    raw.send(topic, b"aborted").get(10)
    raw.abort_transaction()
    raw.close()
    publish(server, topic, client, [Message(b"after")])
    with source(server, topic, group, client, isolation=isolation) as reader:
        assert [one.body for one in take(reader, len(expected))] == expected


@pytest.mark.parametrize(
    ("options", "protocol"), [({}, "cooperative-sticky"), ({"assignor": "range"}, "range")], ids=["default", "range"]
)
def test_members_share_the_partitions_as_told(
    server: KafkaServer, group: str, client: str, options: dict[str, str], protocol: str
) -> None:
    """Both have a share, together they read everything, and the group knows how they share."""
    topic = fresh_topic(server, partitions=4)
    with (
        source(server, topic, group, client, **options) as one,
        source(server, topic, group, client, **options) as other,
    ):
        lanes: dict[str, set[str]] = {"one": set(), "other": set()}
        number = iter(range(10**6))

        def shared_out() -> bool:
            bodies = [Message(b"x", options={"partition": next(number) % 4}) for _ in range(4)]
            publish(server, topic, client, bodies)
            for name, reader in (("one", one), ("other", other)):
                found = spread(reader.receive(100, max_bytes=PLENTY, timeout=0.5))
                lanes[name] = {taken.delivery.lane.name for taken in found if taken.delivery.lane is not None}
            return len(lanes["one"]) == len(lanes["other"]) == 2 and not lanes["one"] & lanes["other"]

        wait_until(shared_out, 60, what=f"two partitions for each: {lanes}")
        with administrator(server) as admin:
            assert admin.describe_groups([group])[group]["protocol_data"] == protocol


def test_static_member_is_ended_by_another_of_its_name_and_told_so(
    server: KafkaServer, group: str, client: str
) -> None:
    """The group goes on with the newer one; the older one is told which option to change, and not to try again."""
    topic = fresh_topic(server)
    with source(server, topic, group, client, instance="a") as older:
        ready(older)
        with source(server, topic, group, client, instance="a") as newer:
            told: list[BrokerError] = []

            def ended() -> bool:
                newer.receive(1, max_bytes=PLENTY, timeout=0.1)
                try:
                    older.receive(1, max_bytes=PLENTY, timeout=0.1)
                except BrokerError as error:
                    told.append(error)
                return bool(told)

            wait_until(ended, 30, what="the older one is told")
    assert (told[0].retryable, "instance=" in str(told[0])) == (False, True)
