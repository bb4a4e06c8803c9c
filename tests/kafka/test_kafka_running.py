"""What happens to a topic, a position or a membership while a flow runs."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator

import pytest

from eventflows import ConfigError, HaltedError, InvalidMessageError, NotFoundError, RunResult, subscriber
from eventflows.flow import Flow
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Delivery, Lane, Message
from eventflows.observe import Observer
from eventflows.testing import wait_until
from eventflows.testing.conditions import Background, pass_time
from eventflows.testing.flows import Calls
from kafka import TopicPartition
from kafka_use import CLIENTS, administrator, committed, ends, fresh_topic
from servers.kafka import KafkaServer, gate, shared
from servers.kafka_gate import JOIN


@pytest.fixture
def server() -> KafkaServer:
    """The broker that all share."""
    return shared()


@pytest.fixture
def group() -> str:
    """A group that nobody has used."""
    return f"running-{uuid.uuid4().hex[:8]}"


class Told(Observer):
    """Keeps what a flow tells of lanes and gaps."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.gaps: list[tuple[str, str]] = []

    def lane_lost(self, *, flow: str, lane: Lane) -> None:
        """Keep it."""
        self.lost.append(lane.name)

    def gap(self, *, flow: str, lane: Lane, first: str, last: str) -> None:
        """Keep it."""
        self.gaps.append((first, last))


def publish(server: KafkaServer, topic: str, bodies: list[bytes]) -> None:
    """Publish bodies, in order."""
    with open_publisher(f"kafka://{server.address()}/{topic}") as out:
        assert not any(one.error for one in out.publish([Message(body, key="k") for body in bodies]))


def flow_of(
    server: KafkaServer, topic: str, group: str, client: str, work: Callable[[bytes], object], **more: object
) -> Flow[..., object]:
    """Make a flow of raw bodies."""

    def apply(input: bytes) -> object:
        return work(input)

    return subscriber(f"kafka://{server.address()}/{topic}", group=group, **CLIENTS[client], **more)(apply)


@contextlib.contextmanager
def running(flow: Flow[..., object]) -> Iterator[Background[RunResult]]:
    """Run a flow while the body of the `with` goes on; gives the run, which may have ended."""
    run: Background[RunResult] = Background(lambda: flow.run(signals=False))
    try:
        yield run
    finally:
        flow.stop()
        wait_until(lambda: not run.running, 40, what="the end of the run")


@pytest.mark.trial
@pytest.mark.timeout(180)
def test_work_of_several_poll_intervals_runs_once(server: KafkaServer, group: str, client: str) -> None:
    """An `apply` of 60 s in a group whose members must poll every 10 s: one call, no claim lost, and it is settled."""
    topic, told = fresh_topic(server), Told()
    publish(server, topic, [b"0", b"1"])
    calls = Calls(lambda body: pass_time(60.0) if body == b"0" else None)
    options = {"session_timeout": 6, "poll_interval": 10}
    flow_of(server, topic, group, client, calls, observers=[told], **options).run(limit=2, signals=False)
    assert (calls.bodies, told.lost) == ([b"0", b"1"], [])
    assert committed(server, group) == ends(server, topic)


def test_member_that_does_not_poll_loses_its_claims(server: KafkaServer, group: str, client: str) -> None:
    """A process that hangs is out after `poll_interval`, though it sends heartbeats; the next poll learns it."""
    topic = fresh_topic(server)
    publish(server, topic, [b"0"])
    options = {"session_timeout": 2, "poll_interval": 2, **CLIENTS[client]}
    with open_subscriber(f"kafka://{server.address()}/{topic}", group=group, **options) as source:
        [chunk] = wait_until(lambda: source.receive(1, max_bytes=1000, timeout=1), what="the message")
        pass_time(3.0)

        def out() -> bool:
            source.receive(0, max_bytes=0, timeout=0.2)
            return chunk.lane is not None and chunk.lane.lost

        wait_until(out, what="the claim's end")


def test_topic_that_is_deleted_while_in_use_halts_the_flow(server: KafkaServer, group: str, client: str) -> None:
    """The flow does not wait in silence for what will not come: it halts, and names the topic."""
    topic = fresh_topic(server)
    publish(server, topic, [b"0"])
    calls = Calls()
    with running(flow_of(server, topic, group, client, calls)) as run:
        wait_until(lambda: calls.finished, 20, what="the first message")
        with administrator(server) as admin:
            admin.delete_topics([topic])
        with pytest.raises(HaltedError, match=rf"{topic}.* Create (it|the topic)") as caught:
            run.result(30.0, "the halt")
    assert isinstance(caught.value.__cause__, NotFoundError)


@pytest.mark.trial
def test_publishing_to_a_topic_that_was_deleted_says_so(server: KafkaServer, client: str) -> None:
    """The error is of the destination's kind, not of the message: nothing is dead-lettered, nothing more received."""
    topic = fresh_topic(server)
    with open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client]) as out:
        assert [one.error for one in out.publish([Message(b"0")])] == [None]
        with administrator(server) as admin:
            admin.delete_topics([topic])

        def missing() -> bool:
            try:
                [result] = out.publish([Message(b"1")], timeout=2.0)
            except NotFoundError:
                return True
            assert not isinstance(result.error, InvalidMessageError)
            return isinstance(result.error, NotFoundError)

        wait_until(missing, 15, what="NotFoundError")


def test_retention_that_overtakes_a_running_flow_is_told_as_a_gap(server: KafkaServer, group: str, client: str) -> None:
    """What was removed while the flow was busy is named, what is left is done, and the flow goes on."""
    topic, told, go = fresh_topic(server), Told(), threading.Event()
    count, size, kept = 600, 100_000, 5
    publish(server, topic, [b"%d" % number + bytes(size) for number in range(count)])
    offsets: list[int] = []

    def apply(input: bytes, *, delivery: Delivery | None = None) -> None:
        assert delivery is not None
        offsets.append(int(delivery.position.partition(":")[2]))
        go.wait(30.0)

    url = f"kafka://{server.address()}/{topic}"
    flow = subscriber(url, group=group, max_in_flight=1, observers=[told], **CLIENTS[client])(apply)
    with running(flow):
        wait_until(lambda: offsets, 20, what="the first message")
        with administrator(server) as admin:
            admin.delete_records({TopicPartition(topic, 0): count - kept})
        go.set()
        wait_until(lambda: count - 1 in offsets, 30, what="the last message")
        publish(server, topic, [b"new"])
        wait_until(lambda: count in offsets, 20, what="a message after it")
    [(first, last)] = told.gaps
    removed = range(int(first.partition(":")[2]), int(last.partition(":")[2]) + 1)
    assert sorted([*offsets, *removed]) == list(range(count + 1))
    assert removed[-1] == count - kept - 1


def test_topic_made_anew_is_read_from_its_beginning_by_a_running_flow(
    server: KafkaServer, group: str, client: str
) -> None:
    """Messages of a topic of the same name are new messages, though their offsets were seen before; each comes once."""
    topic = fresh_topic(server)
    publish(server, topic, [b"old-%d" % number for number in range(5)])
    calls = Calls()
    with running(flow_of(server, topic, group, client, calls)):
        wait_until(lambda: len(calls.finished) == 5, 20, what="the old messages")
        with administrator(server) as admin:
            admin.delete_topics([topic])
            wait_until(lambda: topic not in admin.list_topics(), 10, what="the topic is gone")
            admin.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
        publish(server, topic, [b"new-0", b"new-1"])
        wait_until(lambda: calls.bodies[5:] == [b"new-0", b"new-1"], 30, what="the new messages")
        pass_time(6.0)  # so long it may take until it is known that it is another topic, which is no news here
        assert calls.bodies[5:] == [b"new-0", b"new-1"]


def test_topic_made_anew_loses_nothing_when_it_has_more_messages_than_the_old_one_had(
    server: KafkaServer, group: str, client: str
) -> None:
    """The next offset to be read is there, too, and is another message: those before it are read all the same."""
    topic, other = fresh_topic(server), fresh_topic(server)
    new = {b"new-%d" % number for number in range(10)}
    publish(server, topic, [b"old-%d" % number for number in range(5)])
    calls = Calls()
    with running(flow_of(server, f"{topic},{other}", group, client, calls)), administrator(server) as admin:
        wait_until(lambda: len(calls.finished) == 5, 20, what="the old messages")
        pass_time(2.0)  # so long may nobody know which topic it is that was claimed
        admin.delete_topics([topic])
        wait_until(lambda: topic not in admin.list_topics(), 10, what="the topic is gone")
        admin.create_topics({topic: {"num_partitions": 1}}, wait_for_metadata=True)
        publish(server, topic, sorted(new))
        wait_until(lambda: new <= set(calls.bodies), 20, what="every new message")
        wait_until(lambda: committed(server, group) == ends(server, topic) | ends(server, other), 20, what="the end")


def test_new_partitions_are_claimed_when_the_join_ends_between_two_polls(
    server: KafkaServer, group: str, client: str
) -> None:
    """A topic gets more partitions, and the answer to the join takes longer than a poll: it is seen all the same."""
    topic, one = fresh_topic(server), gate()
    options = {"session_timeout": 6, **CLIENTS[client]}
    with open_subscriber(f"kafka://{server.address('GATED')}/{topic}", group=group, **options) as source:

        def ready() -> bool:
            source.receive(0, max_bytes=0, timeout=0.1)
            return source.ready

        wait_until(ready, 20, what="the claim of the first partition")
        one.answer_rules.append(lambda request: request.api == JOIN and pass_time(0.4) is not None)
        try:
            with administrator(server) as admin:
                admin.create_partitions({topic: 2})
            wait_until(lambda: len(ends(server, topic)) == 2, 10, what="the second partition")
            with open_publisher(f"kafka://{server.address()}/{topic}") as out:
                assert not any(one.error for one in out.publish([Message(b"new", options={"partition": 1})]))
            [chunk] = wait_until(lambda: source.receive(1, max_bytes=1000, timeout=0.1), 30, what="its message")
        finally:
            one.answer_rules.clear()
    assert list(chunk.bodies) == [b"new"]


def test_poll_interval_below_the_session_is_refused(client: str) -> None:
    """A member would be out for silence before it is out for not polling."""
    with pytest.raises(ConfigError, match="poll_interval"):
        open_subscriber("kafka://broker/topic", group="g", poll_interval=30, **CLIENTS[client])
