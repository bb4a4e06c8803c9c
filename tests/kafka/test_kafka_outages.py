"""Brokers that die, freeze and move, and networks that are slow or cut, while messages flow: work goes on by itself."""

from __future__ import annotations

import pytest

from eventflows.testing import wait_until
from eventflows.testing.conditions import pass_time
from kafka import TopicPartition
from kafka_stream import Stream
from kafka_use import administrator
from servers.kafka import link, shared
from servers.kafka_cluster import cluster

pytestmark = [
    pytest.mark.trial,
    pytest.mark.timeout(240),
    # The administrator here is kafka-python's own, which leaves sockets of refused connections to the collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"),
]
LONG = 12.0
"""Seconds: longer than a request may take."""
BRIEF = 3.0


def test_broker_that_is_killed_and_started_again_loses_nothing(client: str) -> None:
    """After a kill -9 and a new start the flow and the publisher go on, and all that was confirmed is there."""
    server = shared()
    with Stream(server, server.address(), client) as stream:
        server.kill()
        pass_time(1.0)
        server.start()
        stream.flows()
        stream.holds()


def test_broker_that_freezes_for_longer_than_a_request_may_take_loses_nothing(client: str) -> None:
    """A broker that does not answer, with every connection open, is waited for."""
    server = shared()
    with Stream(server, server.address(), client) as stream:
        server.freeze()
        try:
            pass_time(LONG)
        finally:
            server.thaw()
        stream.flows()
        stream.holds()


@pytest.mark.parametrize(
    ("kind", "seconds", "attributes"),
    [
        pytest.param("latency", BRIEF, {"latency": 300, "jitter": 200}, id="slow"),
        pytest.param("bandwidth", BRIEF, {"rate": 20}, id="narrow"),
        pytest.param("slicer", BRIEF, {"average_size": 60, "size_variation": 50, "delay": 500}, id="in-small-pieces"),
        pytest.param("reset_peer", BRIEF, {"timeout": 100}, id="reset"),
        pytest.param("timeout", LONG, {"timeout": 0}, id="silently-dropped"),
        pytest.param("down", BRIEF, {}, id="closed"),
    ],
)
def test_network_that_breaks_loses_nothing(client: str, kind: str, seconds: float, attributes: dict[str, int]) -> None:
    """A network that is slow, narrow, reset, silent or closed for a while is waited for."""
    server, way = shared(), link()
    with Stream(server, server.address("PROXIED"), client) as stream:
        with way.down() if kind == "down" else way.toxic(kind, **attributes):  # type: ignore[arg-type]
            pass_time(seconds)
        stream.flows()
        stream.holds()


def test_leaders_that_move_lose_nothing(client: str) -> None:
    """Every partition of both topics is led by another broker now, and then by a third."""
    brokers = cluster()
    with Stream(brokers, brokers.address(), client) as stream:
        for first in (2, 3):
            _lead(stream, [first, first % 3 + 1, (first + 1) % 3 + 1])
            stream.flows(f"messages, led by {first}")
        stream.holds()


def _lead(stream: Stream, replicas: list[int]) -> None:
    topics = {topic: list(range(4)) for topic in (stream.source, stream.destination)}
    with administrator(stream.server) as admin:
        partitions = [TopicPartition(topic, one) for topic, all in topics.items() for one in all]
        admin.alter_partition_reassignments(dict.fromkeys(partitions, replicas))
        admin.elect_leaders(0, topics, raise_errors=False)  # one that leads already is an error, too
        wait_until(lambda: _leaders(stream) == {replicas[0]}, 30, what=f"{replicas[0]} leads")


def _leaders(stream: Stream) -> set[int]:
    with administrator(stream.server) as admin:
        found = admin.describe_topics([stream.source, stream.destination])
    return {partition["leader_id"] for topic in found for partition in topic["partitions"]}


@pytest.mark.parametrize("role", ["leader", "coordinator"])
def test_killed_leader_or_coordinator_of_a_cluster_loses_nothing(client: str, role: str) -> None:
    """Others take over from a broker killed with -9, and it finds its place when it is started again."""
    brokers = cluster()
    with Stream(brokers, brokers.address(), client) as stream:
        if role == "leader":
            _lead(stream, [1, 2, 3])
        victim = 1 if role == "leader" else _coordinator(stream)
        brokers.nodes[victim].kill()
        try:
            stream.flows("messages, without one broker")
        finally:
            brokers.nodes[victim].start()
        stream.flows("messages, with all brokers")
        wait_until(lambda: _in_sync(stream), 60, what="all replicas in sync")
        stream.holds()


def _coordinator(stream: Stream) -> int:
    from kafka.consumer.group import KafkaConsumer

    consumer = KafkaConsumer(bootstrap_servers=stream.server.address(), group_id=stream.group)
    try:
        consumer._coordinator.ensure_coordinator_ready(timeout_ms=10_000)
        return int(str(consumer._coordinator.coordinator_id).rsplit("-", 1)[-1])
    finally:
        consumer.close(autocommit=False)


def _in_sync(stream: Stream) -> bool:
    with administrator(stream.server) as admin:
        found = admin.describe_topics([stream.source, stream.destination])
    return all(len(partition["isr_nodes"]) == 3 for topic in found for partition in topic["partitions"])
