"""Two clients, one adapter: what one does the other does, and members with either share a group."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Message
from eventflows.testing import wait_until
from eventflows.testing.cases import PLENTY, spread
from kafka_use import CLIENTS, fresh_topic
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


def test_a_pattern_is_a_regular_expression_and_finds_topics_made_later(server: KafkaServer, client: str) -> None:
    r"""Written as Python's: `\d` is a digit with either client."""
    first = fresh_topic(server)
    url = f"kafka://{server.address()}/fault-[0-9a-f]\\w+?group={first}&pattern"
    with open_subscriber(url, **CLIENTS[client]) as source:
        wait_until(lambda: source.receive(0, max_bytes=0, timeout=0.2) or source.ready, what="a place in the group")
        topic = fresh_topic(server)
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
