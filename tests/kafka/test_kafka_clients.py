"""Two clients, one adapter: what one does the other does, and members with either share a group."""

from __future__ import annotations

import random
import subprocess
import sys
import uuid
from typing import Final

import kafka.codec
import pytest

from eventflows import InvalidMessageError, MissingExtraError
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Message
from eventflows.testing import wait_until
from eventflows.testing.cases import PLENTY, spread
from kafka_use import CLIENTS, administrator, fresh_topic
from servers.kafka import KafkaServer, shared


@pytest.fixture
def server() -> KafkaServer:
    """The broker that all share."""
    return shared()


def test_both_clients_place_a_key_on_the_same_partition(server: KafkaServer) -> None:
    """Keys of every length and of any bytes; the Java client places them so, too."""
    seed = random.randrange(10**6)
    luck = random.Random(seed)
    keys = ["".join(chr(luck.randrange(1, 0x2FF)) for _ in range(size)) for size in range(1, 40) for _ in range(10)]
    topic = fresh_topic(server, partitions=7)
    places = []
    for options in CLIENTS.values():
        with open_publisher(f"kafka://{server.address()}/{topic}", **options) as out:
            found = out.publish([Message(b"x", key=key) for key in keys])
            places.append([str(one.id).partition(":")[0] for one in found])
    assert places[0] == places[1], f"seed {seed}"
    assert len(set(places[0])) == 7


JAVA: Final = {
    "": 31, "k": 12, "21": 40, "abc": 7, "table 4": 5, "foobar": 16, "a-little-bit-longer-string": 19,
    "\u00fc\u00df": 33, "\u65e5\u672c\u8a9e": 20, "\U0001f375 tea": 24, "\udcff\x00\udcfe": 10,
}  # fmt: skip
"""Key to partition of 50, as Kafka 4.1.2's own `BuiltInPartitioner` says; of the last the bytes are FF 00 FE."""


def test_keys_are_placed_where_the_java_client_places_them(server: KafkaServer, client: str) -> None:
    """Empty ones, and bytes above 127, which are negative numbers to Java, too."""
    topic = fresh_topic(server, partitions=50)
    with open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client]) as out:
        found = out.publish([Message(b"x", key=key) for key in JAVA])
    assert {key: int(str(one.id).partition(":")[0]) for key, one in zip(JAVA, found, strict=True)} == JAVA


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_compression_works_or_says_what_to_install(
    server: KafkaServer, client: str, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python needs a library for most of them; nothing waits for the first message to say so."""
    topic = fresh_topic(server)
    url = f"kafka://{server.address()}/{topic}?compression={codec}"
    there = client == "librdkafka" or codec == "gzip"
    if not there:
        monkeypatch.setitem(sys.modules, {"zstd": "zstandard"}.get(codec, codec), None)
        with pytest.raises(MissingExtraError, match=rf"kafka-python\[{codec}\].*compression=gzip.*client=librdkafka"):
            open_publisher(url, **CLIENTS[client])
        return
    with open_publisher(url, **CLIENTS[client]) as out:
        assert [one.error for one in out.publish([Message(bytes(1000))] * 3)] == [None] * 3
    with open_subscriber(url.partition("?")[0], group=topic, client="librdkafka") as reader:
        assert sum(len(one) for one in wait_until(lambda: reader.receive(3, max_bytes=PLENTY, timeout=1))) == 3


def test_a_topic_whose_compression_cannot_be_read_says_what_to_install(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may publish with a codec that kafka-python has no library for: reading it says so, and the way out."""
    topic = fresh_topic(server)
    with open_publisher(f"kafka://{server.address()}/{topic}?compression=zstd", client="librdkafka") as out:
        assert [one.error for one in out.publish([Message(bytes(1000))])] == [None]
    monkeypatch.setattr(kafka.codec, "zstd", None)
    with (
        open_subscriber(f"kafka://{server.address()}/{topic}", group=topic) as reader,
        pytest.raises(InvalidMessageError, match=r"pip install 'kafka-python.*client=librdkafka"),
    ):
        wait_until(lambda: reader.receive(1, max_bytes=PLENTY, timeout=1), 20)


def test_a_pattern_is_a_regular_expression_and_finds_topics_made_later(server: KafkaServer, client: str) -> None:
    r"""Written as Python's: `\d` is a digit with either client."""
    stem = f"pattern-{uuid.uuid4().hex[:8]}"
    url = f"kafka://{server.address()}/{stem}-\\d?group={stem}&pattern"
    with administrator(server) as admin, open_subscriber(url, **CLIENTS[client]) as source:
        admin.create_topics({f"{stem}-{last}": {"num_partitions": 1} for last in "0x"}, wait_for_metadata=True)
        wait_until(lambda: source.receive(0, max_bytes=0, timeout=0.2) or source.ready, what="a place in the group")
        assert source.backlog().by_lane == {f"{stem}-0/0": 0}
        topic = f"{stem}-1"
        admin.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
        with open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client]) as out:
            out.publish([Message(b"later")])

        def found() -> bool:
            taken = spread(source.receive(100, max_bytes=PLENTY, timeout=0.5))
            return any(one.delivery.position.startswith(f"{topic}/") for one in taken)

        wait_until(found, 30.0, what="the message of the topic that was made later")


def test_members_with_either_client_share_a_group(server: KafkaServer) -> None:
    """One group may be moved from one client to the other, member by member."""
    topic = fresh_topic(server, partitions=4)
    url = f"kafka://{server.address()}/{topic}?group={topic}&session_timeout=6"
    members = [open_subscriber(url, **options) for options in CLIENTS.values()]
    lanes: list[set[str]] = [set() for _ in members]
    try:
        for one in members:
            one.open()

        def shared_out() -> bool:
            with open_publisher(f"kafka://{server.address()}/{topic}") as out:
                out.publish([Message(b"x", options={"partition": number}) for number in range(4)])
            for seen, one in zip(lanes, members, strict=True):
                seen.clear()
                for _ in range(4):
                    seen.update(c.lane.name for c in one.receive(100, max_bytes=PLENTY, timeout=0.2) if c.lane)
            return [len(seen) for seen in lanes] == [2, 2] and not lanes[0] & lanes[1]

        wait_until(shared_out, 30.0, what="two partitions for each")
    finally:
        for one in members:
            one.close()


WITHOUT = """
import sys
sys.modules["{missing}"] = None
from eventflows.errors import MissingExtraError
from eventflows.locate import open_subscriber
try:
    open_subscriber("kafka://broker:9092/topic?group=g", client="{client}")
except MissingExtraError as error:
    print(error)
"""


def test_the_environment_chooses_a_client_where_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that says otherwise wins."""
    monkeypatch.setenv("EVENTFLOWS_KAFKA_CLIENT", "librdkafka")
    url = "kafka://broker:9092/topic?group=g"
    chosen = [open_subscriber(one).capabilities.min_slice for one in (url, f"{url}&client=kafka-python")]
    assert chosen == [0.02, 0.1]


@pytest.mark.parametrize(
    ("client", "missing", "extra", "other"),
    [
        ("librdkafka", "confluent_kafka", "eventflows[librdkafka]", "client=kafka-python"),
        ("kafka-python", "kafka", "eventflows[kafka]", "client=librdkafka"),
    ],
)
def test_without_the_client_the_error_names_its_extra_and_the_client_that_is_there(
    client: str, missing: str, extra: str, other: str
) -> None:
    """Nobody is given another client than the one that was asked for."""
    program = WITHOUT.format(missing=missing, client=client)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert extra in done.stdout, done.stderr
    assert other in done.stdout
