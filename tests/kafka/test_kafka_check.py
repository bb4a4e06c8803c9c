"""`eventflows check`, `peek` and `entities`: what is said of brokers, topics, group and workers; nobody joins."""

from __future__ import annotations

import datetime
import pathlib
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.errors import CoordinatorNotAvailableError

from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Browsable, Checkable, Finding, Listable
from eventflows.secret import Secret
from eventflows.testing import wait_until
from kafka_use import CLIENTS, administrator, committed, fresh_topic
from servers.kafka import PASSWORDS, KafkaServer, gate, shared
from servers.kafka_gate import FIND, Request
from servers.process import free_port

USER = {"username": "alice", "password": Secret(PASSWORDS["alice"])}


@pytest.fixture(scope="module")
def server() -> KafkaServer:
    """The broker that all share."""
    return shared()


@pytest.fixture(scope="module")
def topic(server: KafkaServer) -> str:
    """A topic of three partitions."""
    return fresh_topic(server, partitions=3)


@pytest.fixture
def group() -> str:
    """A group that nobody has used."""
    return f"check-{uuid.uuid4().hex[:8]}"


def said(adapter: object) -> list[Finding]:
    """Check it."""
    assert isinstance(adapter, Checkable)
    return list(adapter.check())


def texts(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Give the level, and the text or, where something is wrong, the fix."""
    return [(one.level, one.fix or one.text) for one in findings]


def test_check_of_a_good_source_says_what_it_found(server: KafkaServer, topic: str, group: str, client: str) -> None:
    """Brokers, topic with its partitions, group with its members: a line each, all of them ok."""
    url = f"kafka://{server.address()}/{topic}?group={group}"
    assert texts(said(open_subscriber(url, **CLIENTS[client]))) == [
        ("ok", f"{url}: the brokers answer, and accept who we are"),
        ("ok", f"topic {topic} has 3 partitions, and may be read"),
        ("ok", f"group {group} can be used, and has 0 members now"),
    ]


def test_check_of_a_good_destination_says_what_it_found(server: KafkaServer, topic: str, client: str) -> None:
    """Brokers and topic: a line each."""
    url = f"kafka://{server.address()}/{topic}"
    assert texts(said(open_publisher(url, **CLIENTS[client]))) == [
        ("ok", f"{url}: the brokers answer, and accept who we are"),
        ("ok", f"topic {topic} has 3 partitions, and may be written to"),
    ]


def test_check_of_what_is_missing_says_what_to_create(server: KafkaServer, group: str, client: str) -> None:
    """A topic that is not there is an error on both sides."""
    place = f"kafka://{server.address()}/no-such-topic"
    for adapter in (open_subscriber(place, group=group, **CLIENTS[client]), open_publisher(place, **CLIENTS[client])):
        assert ("error", "Create it, or correct the URL.") in texts(said(adapter))


def test_check_of_an_unreachable_broker_is_one_line(group: str, client: str) -> None:
    """Nothing else can be said then."""
    place = f"kafka://127.0.0.1:{free_port()}/topic"
    for adapter in (open_subscriber(place, group=group, **CLIENTS[client]), open_publisher(place, **CLIENTS[client])):
        assert [(one.level, one.fix) for one in said(adapter)] == [
            ("error", "Check hosts and ports of the URL, and that the broker runs.")
        ]


def test_check_finds_the_group_when_its_coordinator_comes_late(
    server: KafkaServer, topic: str, group: str, client: str
) -> None:
    """The first five times there is none, as in a cluster that makes its first, or loses one."""
    times = [5]

    def late(request: Request) -> int:
        times[0] -= request.api == FIND
        return CoordinatorNotAvailableError.errno if request.api == FIND and times[0] >= 0 else 0

    gate().refusals.append(late)
    try:
        url = f"kafka://{server.address('GATED')}/{topic}?group={group}"
        assert [one.level for one in said(open_subscriber(url, **CLIENTS[client]))] == ["ok"] * 3
    finally:
        gate().refusals.clear()
    assert times[0] < 0


@pytest.mark.trial
def test_check_of_a_cluster_that_no_group_has_used_yet_finds_nothing_wrong(group: str, client: str) -> None:
    """Who makes topics and checks the first flow finds a cluster that has no coordinator of groups yet."""
    new = KafkaServer()
    try:
        new.start()
        url = f"kafka://{new.address()}/{fresh_topic(new)}?group={group}"
        assert [one.level for one in said(open_subscriber(url, **CLIENTS[client]))] == ["ok"] * 3
    finally:
        new.remove()


@pytest.fixture
def rights(server: KafkaServer, topic: str, group: str) -> Iterator[list[ACL]]:
    """What alice may do by and by: see the topic, read it, use the group, write to the topic."""
    topics, groups = ResourcePattern(ResourceType.TOPIC, topic), ResourcePattern(ResourceType.GROUP, group)
    steps = [
        (topics, ACLOperation.DESCRIBE), (topics, ACLOperation.READ), (groups, ACLOperation.READ),
        (topics, ACLOperation.WRITE),
    ]  # fmt: skip
    rules = [ACL("User:alice", "*", operation, ACLPermissionType.ALLOW, pattern) for pattern, operation in steps]
    yield rules
    with administrator(server) as admin:
        admin.delete_acls(rules)


def test_check_names_the_acl_that_is_missing(
    server: KafkaServer, topic: str, group: str, rights: list[ACL], client: str
) -> None:
    """Each right that is granted makes one error less, and nothing is read or written to find out."""
    place = f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}"

    def wrong() -> list[str]:
        source = open_subscriber(place, group=group, **USER, **CLIENTS[client])
        findings = said(source) + said(open_publisher(place, **USER, **CLIENTS[client]))
        return [one.fix for one in findings if one.level == "error"]

    reading, using, writing = (f"Ask for an ACL on {one}." for one in ("it: READ", "the group: READ", "it: WRITE"))
    assert wrong() == [reading, using, writing]
    for right, left in zip(rights, ([reading, using, writing], [using, writing], [writing], []), strict=True):
        with administrator(server) as admin:
            admin.create_acls([right])
        assert wait_until(lambda left=left: wrong() == left, what=f"only {left} missing", every=0.1)


def test_check_says_how_many_members_are_too_many(server: KafkaServer, group: str, client: str) -> None:
    """A member without a partition is a warning, with what to do."""
    name = fresh_topic(server)
    url = f"kafka://{server.address()}/{name}?group={group}"
    with open_subscriber(url, **CLIENTS[client]) as first, open_subscriber(url, **CLIENTS[client]) as second:

        def both() -> bool:
            for one in (first, second):
                one.receive(1, max_bytes=1000, timeout=0.2)
            return first.ready and second.ready and len(said(first)) == 3 and said(first)[2].level == "warning"

        wait_until(both, 20, what="a warning")
        text = said(first)[2].text
    assert text == f"group {group} has 2 members for 1 partition: 1 idle"


FLOW = """
from eventflows import publisher, subscriber

@subscriber("kafka://{broker}/{topic}?group=g", dead_letter="kafka://{broker}/{dead}", order="lane", workers={workers})
@publisher("kafka://{broker}/no-such-topic")
def apply(input):
    return input
"""


@pytest.mark.parametrize(("workers", "level"), [(2, "ok"), (8, "warning")])
def test_command_compares_workers_with_partitions(
    server: KafkaServer, topic: str, tmp_path: pathlib.Path, workers: int, level: str
) -> None:
    """Source, workers, dead-letter topic and destination are looked at: a line each, and the fix of what is wrong."""
    text = FLOW.format(broker=server.address(), topic=topic, dead=fresh_topic(server), workers=workers)
    (tmp_path / "flowing.py").write_text(text)
    command = [sys.executable, "-m", "eventflows", "check", "flowing:apply"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    levels = [line.split()[0] for line in lines]
    assert (levels, done.returncode) == (["ok"] * 3 + [level] + ["ok"] * 3 + ["error"], 1), done.stdout + done.stderr
    assert f"{workers} workers for 3 partitions" in lines[3]


def test_peek_begins_at_the_position_of_the_group_and_moves_nothing(
    server: KafkaServer, group: str, client: str
) -> None:
    """What the group has not settled is shown, again and again; the group has no member, and its position stays."""
    name = fresh_topic(server)
    url = f"kafka://{server.address()}/{name}?group={group}"
    with open_publisher(f"kafka://{server.address()}/{name}", **CLIENTS[client]) as out:
        assert not any(one.error for one in out.publish([Message(b"%d" % number) for number in range(5)]))
    with open_subscriber(url, **CLIENTS[client]) as source:
        [chunk] = wait_until(lambda: source.receive(2, max_bytes=1000, timeout=1), what="two messages")
        assert not source.settle([Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, len(chunk)))])], durable=True)
    before = committed(server, group)
    browsing = open_subscriber(url, **CLIENTS[client])
    assert isinstance(browsing, Browsable)
    for _ in range(2):
        assert [one.message.body for one in browsing.peek(10, timeout=10)] == [b"2", b"3", b"4"]
    assert committed(server, group) == before
    assert said(browsing)[2].text.endswith("has 0 members now")


@pytest.mark.parametrize(
    ("begin", "seen"), [("latest", []), ("time", [b"2", b"3"]), ("earliest", [b"0", b"1", b"2", b"3"])]
)
def test_peek_of_a_new_group_begins_where_the_group_would(
    server: KafkaServer, group: str, client: str, begin: str, seen: list[bytes]
) -> None:
    """`from=` counts for a look, too, and a pattern is looked at topic by topic."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    with administrator(server) as admin:
        admin.create_topics({f"{group}-{last}": {"num_partitions": 1} for last in "ab"}, wait_for_metadata=True)
    for number in range(4):
        place = f"kafka://{server.address()}/{group}-{'ab'[number % 2]}"
        when = now - datetime.timedelta(minutes=40 - 10 * number)
        with open_publisher(place) as out:
            assert not any(one.error for one in out.publish([Message(b"%d" % number, options={"timestamp": when})]))
    start = now - datetime.timedelta(minutes=25) if begin == "time" else begin
    url = f"kafka://{server.address()}/{group}-[ab]?group={group}&pattern"
    looking = open_subscriber(url, from_=start, **CLIENTS[client])
    assert isinstance(looking, Browsable)
    assert [one.message.body for one in looking.peek(10, timeout=10)] == seen


def test_entities_are_the_topics_that_we_may_see(server: KafkaServer, topic: str, client: str) -> None:
    """An administrator sees the topic, and none of Kafka's own; alice, who may do nothing, does not see it."""
    seen = open_subscriber(f"kafka://{server.address()}/x", group="g", **CLIENTS[client])
    unseen = open_subscriber(f"kafka://{server.address('SASL_PLAINTEXT')}/x", group="g", **USER, **CLIENTS[client])
    assert isinstance(seen, Listable)
    assert isinstance(unseen, Listable)
    names = seen.entities()
    assert topic in names
    assert not [name for name in names if name.startswith("__")]
    assert topic not in unseen.entities()
