"""Commits that fail: for a while, and they are said again; for good, and what they would have settled comes again."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from eventflows import HaltedError, Messages, PermissionDeniedError, RunResult, publisher, subscriber
from eventflows.flow import Flow
from eventflows.locate import open_publisher
from eventflows.message import Message
from eventflows.secret import Secret
from eventflows.testing import wait_until
from eventflows.testing.conditions import Background, pass_time
from eventflows.testing.flows import Calls
from kafka_use import CLIENTS, administrator, committed, ends, fresh_topic
from servers.kafka import PASSWORDS, KafkaServer, gate, shared
from servers.kafka_gate import COMMIT, PRODUCE, Request


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    """The broker that all share, and its gate without rules afterwards."""
    one = gate()
    yield shared()
    one.rules.clear()
    one.answer_rules.clear()


@pytest.fixture
def group() -> str:
    """A group that nobody has used."""
    return f"commits-{uuid.uuid4().hex[:8]}"


def publish(server: KafkaServer, topic: str, numbers: range) -> None:
    """Publish numbers, in order."""
    with open_publisher(f"kafka://{server.address()}/{topic}") as out:
        assert not any(one.error for one in out.publish([Message(b"%d" % number, key="k") for number in numbers]))


def flow_of(url: str, calls: Calls, **options: object) -> Flow[..., object]:
    """Make a flow of raw bodies."""

    def apply(input: bytes) -> object:
        return calls(input)

    return subscriber(url, **options)(apply)


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_commits_that_fail_for_a_while_are_said_again(server: KafkaServer, group: str, client: str, lost: str) -> None:
    """Three commits, or their answers, are lost with their connections: all is settled, and nothing runs twice."""
    topic, calls, left = fresh_topic(server), Calls(), [None] * 3
    publish(server, topic, range(5))

    def rule(request: Request) -> bool:
        return request.api == COMMIT and bool(left) and left.pop() is None

    (gate().rules if lost == "request" else gate().answer_rules).append(rule)
    url = f"kafka://{server.address('GATED')}/{topic}"
    flow = flow_of(url, calls, group=group, **CLIENTS[client])
    with flow.running():
        wait_until(lambda: committed(server, group) == ends(server, topic) and not left, 30, what="all", every=0.2)
    assert calls.bodies == [b"0", b"1", b"2", b"3", b"4"]


def test_commits_that_go_on_to_fail_are_told(
    server: KafkaServer, group: str, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A flow whose positions cannot be committed says so in its log, goes on working, and commits them once it can."""
    topic, calls = fresh_topic(server), Calls()
    publish(server, topic, range(5))
    gate().rules.append(lambda request: request.api == COMMIT)
    flow = flow_of(f"kafka://{server.address('GATED')}/{topic}", calls, group=group, **CLIENTS[client])
    with flow.running():
        wait_until(lambda: "it is tried again" in caplog.text, 30, what="a line in the log")
        publish(server, topic, range(5, 10))
        wait_until(lambda: len(calls.finished) == 10, 20, what="all messages")
        assert committed(server, group) == {}
        gate().rules.clear()
        wait_until(lambda: committed(server, group) == ends(server, topic), 30, what="all positions", every=0.2)
    assert sorted(set(calls.bodies)) == [b"%d" % number for number in range(10)]


def test_commits_that_are_refused_for_good_halt_the_flow_and_lose_nothing(
    server: KafkaServer, group: str, client: str
) -> None:
    """Without the right to the group the flow halts; what it could not settle comes again once the right is back."""
    topic, before, after = fresh_topic(server), Calls(), Calls()
    topics, groups = ResourcePattern(ResourceType.TOPIC, topic), ResourcePattern(ResourceType.GROUP, group)
    reading, using = (
        [ACL("User:alice", "*", ACLOperation.READ, ACLPermissionType.ALLOW, pattern)] for pattern in (topics, groups)
    )
    url = f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}"
    user = {"username": "alice", "password": Secret(PASSWORDS["alice"])}
    # Without the right nobody may leave, either: the next member waits for the session of the first to end.
    options = {**user, "group": group, "session_timeout": 2, **CLIENTS[client]}
    publish(server, topic, range(3))
    with administrator(server) as admin:
        admin.create_acls(reading + using)
        flow = flow_of(url, before, **options)
        run: Background[RunResult] = Background(lambda: flow.run(signals=False))
        wait_until(lambda: sum(committed(server, group).values()) == 3, 30, what="the first position", every=0.2)
        admin.delete_acls(using)
        publish(server, topic, range(3, 6))
        with pytest.raises(HaltedError) as caught:
            run.result(30.0, "the halt")
        assert isinstance(caught.value.__cause__, PermissionDeniedError)
        admin.create_acls(using)
        flow_of(url, after, **options).run(limit=3, signals=False)
        admin.delete_acls(reading + using)
    assert (before.bodies[:3], after.bodies) == ([b"0", b"1", b"2"], [b"3", b"4", b"5"])


def test_position_does_not_pass_what_is_worked_on_however_much_is_done_behind_it(
    server: KafkaServer, group: str, client: str
) -> None:
    """While the third message is worked on, everything behind it is done, and the position stays before it."""
    topic, go = fresh_topic(server), threading.Event()
    publish(server, topic, range(200))
    calls = Calls(lambda body: go.wait(30.0) if body == b"2" else None)
    url = f"kafka://{server.address()}/{topic}"
    flow = flow_of(url, calls, group=group, order="none", workers=4, **CLIENTS[client])
    with flow.running():
        wait_until(lambda: len(calls.finished) == 199, 30, what="all others")
        wait_until(lambda: list(committed(server, group).values()) == [2], 20, what="a position of 2", every=0.2)
        go.set()
        wait_until(lambda: committed(server, group) == ends(server, topic), 20, what="the end", every=0.2)


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_position_waits_for_the_confirmation_of_every_output(
    server: KafkaServer, group: str, client: str, stopped: bool
) -> None:
    """Done and published is not enough, and neither is a stop: nothing is committed before the broker has answered."""
    topic, destination, go = fresh_topic(server), fresh_topic(server), threading.Event()
    calls = Calls(lambda body: body)

    def apply(input: bytes) -> Messages:
        calls(input)
        return Messages([input, b"more"])

    passing = publisher(f"kafka://{server.address('GATED')}/{destination}", **CLIENTS[client])(apply)
    url = f"kafka://{server.address()}/{topic}"
    flow = subscriber(url, group=group, drain_timeout=60.0, **CLIENTS[client])(passing)
    gate().answer_rules.append(lambda request: request.api == PRODUCE and not go.wait(30.0))
    publish(server, topic, range(6))
    run: Background[RunResult] = Background(lambda: flow.run(signals=False))
    try:
        wait_until(lambda: len(calls.finished) == 6, 20, what="all work")
        if stopped:
            flow.stop()
        pass_time(3.0)  # three times as long as settled work waits for its commit
        assert (sum(committed(server, group).values()), run.running) == (0, True)
    finally:
        go.set()
    wait_until(lambda: committed(server, group) == ends(server, topic), 20, what="the end", every=0.2)
    flow.stop()
    assert run.result(30.0, "the end of the run").acked == 6
