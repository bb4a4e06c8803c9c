"""Sessions on the stand-in: several at once, moved on from, and let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from amqp import AzureServer
from eventflows import Message, Secret
from eventflows import subscriber as flow_of
from eventflows.errors import ConfigError, InvalidMessageError
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Chunk
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Subscriber
from eventflows.testing.conditions import wait_until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
PATIENCE = 20.0


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    """A stand-in with queues of sessions, and one without."""
    with AzureServer() as server:
        server.queue("plain", lock=10.0)
        yield server


@pytest.fixture
def name(azure: AzureServer, request: pytest.FixtureRequest) -> str:
    """A queue with sessions."""
    made = f"q-{abs(hash(request.node.name))}"
    azure.queue(made, lock=10.0, sessions=True)
    return made


def options(azure: AzureServer, **more: object) -> dict[str, Any]:
    """What a subscriber or flow is given."""
    return {"connection_string": Secret(azure.connection_string), "sessions": 3, "session_idle": 0.2, **more}


def publish(azure: AzureServer, name: str, *messages: Message) -> list[Exception | None]:
    """Publish; gives the errors."""
    url = f"servicebus://{azure.host}/{name}"
    with open_publisher(url, connection_string=Secret(azure.connection_string)) as publisher:
        return [one.error for one in publisher.publish(list(messages))]


def taken(subscriber: Subscriber, count: int, *, room: int = 100) -> list[Chunk]:
    """Receive until so many messages are there, with room for so many in all."""
    chunks: list[Chunk] = []
    deadline = time.monotonic() + PATIENCE
    while sum(map(len, chunks)) < count:
        assert time.monotonic() < deadline, f"{sum(map(len, chunks))} of {count} messages"
        chunks += subscriber.receive(room - sum(map(len, chunks)), max_bytes=10**6, timeout=1)
    return chunks


def test_sessions_are_worked_on_at_once_when_several_are_asked_for(azure: AzureServer, name: str) -> None:
    """Three sessions run beside each other: each waits for the others."""
    meeting = threading.Barrier(3, timeout=PATIENCE)
    publish(azure, name, *[Message(b"x", key=key) for key in "abc"])

    def apply(input: bytes) -> None:
        meeting.wait()

    url = f"servicebus://{azure.host}/{name}"
    result = flow_of(url, name="meet", workers=3, **options(azure))(apply).run(limit=3, signals=False)
    assert result.acked == 3


def test_one_seat_serves_every_session_when_each_falls_idle(azure: AzureServer, name: str) -> None:
    """With one session at a time all of them are read, one after another, in order."""
    publish(azure, name, *[Message(b"%d" % n, key=f"s{n % 3}") for n in range(9)])
    seen: list[bytes] = []
    url = f"servicebus://{azure.host}/{name}"

    def apply(input: bytes) -> None:
        seen.append(input)

    flow_of(url, name="turns", **options(azure, sessions=1))(apply).run(limit=9, signals=False)
    assert sorted(seen[:3]) == seen[:3]
    assert len({int(one) % 3 for one in seen[:3]}) == 1
    assert sorted(seen) == [b"%d" % n for n in range(9)]


def test_a_session_is_free_at_once_and_costs_no_attempt_when_its_flow_closes(azure: AzureServer, name: str) -> None:
    """What was held of it comes to the next owner as its first attempt."""
    publish(azure, name, *[Message(b"%d" % n, key="one") for n in range(3)])
    url = f"servicebus://{azure.host}/{name}"
    first = open_subscriber(url, **options(azure))
    first.open()
    taken(first, 3)
    first.close()
    with open_subscriber(url, **options(azure)) as second:
        chunks = taken(second, 3)
        assert [body for chunk in chunks for body in chunk.bodies] == [b"0", b"1", b"2"]
        assert {one.attempt for chunk in chunks for one in chunk} == {1}


def test_a_session_is_let_go_when_its_flow_asks_for_nothing(azure: AzureServer, name: str) -> None:
    """An idle flow locks nobody out: another gets what comes later for the same session."""
    publish(azure, name, Message(b"0", key="one"))
    url = f"servicebus://{azure.host}/{name}"
    with open_subscriber(url, **options(azure)) as idle, open_subscriber(url, **options(azure)) as busy:
        [chunk] = taken(idle, 1)
        assert not idle.settle([Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, 1))])])
        publish(azure, name, Message(b"1", key="one"))
        [chunk] = taken(busy, 1)
        assert chunk.bodies == [b"1"]


def test_a_session_goes_to_another_reader_when_its_own_is_full(azure: AzureServer, name: str) -> None:
    """Messages at hand that a reader does not ask for, because it has enough, are let go and read by others."""
    publish(azure, name, Message(b"1", key="one"), Message(b"2", key="two"))
    url, queue = f"servicebus://{azure.host}/{name}", azure.queue(name)
    with open_subscriber(url, **options(azure)) as full, open_subscriber(url, **options(azure)) as other:
        [first] = taken(full, 1, room=1)
        wait_until(lambda: all(one.owner is not None for one in queue.sessions.values()), PATIENCE, what="both")
        rest: list[Chunk] = []
        deadline = time.monotonic() + PATIENCE
        while not rest:
            assert time.monotonic() < deadline
            full.receive(0, max_bytes=0, timeout=0.0)
            rest += other.receive(1, max_bytes=10**6, timeout=0.2)
        assert {*first.bodies, *rest[0].bodies} == {b"1", b"2"}


def test_room_is_left_for_other_sessions_when_one_has_many_messages(azure: AzureServer) -> None:
    """Of four in flight, three sessions at once: one session gets two at most until a quarter of its lock is over."""
    name = "long-locks"
    azure.queue(name, lock=60.0, sessions=True)
    publish(azure, name, *[Message(b"%d" % n, key="long") for n in range(10)])
    with open_subscriber(f"servicebus://{azure.host}/{name}", **options(azure)) as subscriber:
        held: list[Chunk] = []
        end = time.monotonic() + 4.0  # longer than a search for other sessions
        while time.monotonic() < end:
            held += subscriber.receive(4 - sum(map(len, held)), max_bytes=10**6, timeout=0.5)
        assert sum(map(len, held)) == 2
        publish(azure, name, Message(b"late", key="other"))
        deadline = time.monotonic() + PATIENCE
        while not any(chunk.bodies == [b"late"] for chunk in held):
            assert time.monotonic() < deadline
            held += subscriber.receive(4 - sum(map(len, held)), max_bytes=10**6, timeout=0.5)


def test_all_is_handed_out_when_it_has_waited_for_a_quarter_of_its_lock(azure: AzureServer, name: str) -> None:
    """One session alone gives everything that there is room for, in order, though it might leave some for others."""
    publish(azure, name, *[Message(b"%d" % n, key="alone") for n in range(4)])
    with open_subscriber(f"servicebus://{azure.host}/{name}", **options(azure)) as subscriber:
        chunks = taken(subscriber, 4, room=4)
    assert [body for chunk in chunks for body in chunk.bodies] == [b"0", b"1", b"2", b"3"]


def test_a_lane_is_renewed_whole_when_its_lock_is_short(azure: AzureServer) -> None:
    """`extend` of the lane keeps all its messages beyond their first lock."""
    azure.queue("short", lock=1.5, sessions=True)
    publish(azure, "short", *[Message(b"%d" % n, key="one") for n in range(3)])
    with open_subscriber(f"servicebus://{azure.host}/short", **options(azure)) as subscriber:
        chunks = taken(subscriber, 3)
        lane = chunks[0].lane
        assert lane is not None
        end = time.monotonic() + 3.5
        while time.monotonic() < end:
            [extended] = subscriber.extend([lane], 1.5)
            assert extended.until is not None
            subscriber.receive(0, max_bytes=1, timeout=0.4)
        spans = [(chunk, slice(0, len(chunk))) for chunk in chunks]
        assert not subscriber.settle([Settlement(verdict=Verdict.ACK, spans=spans)])


def test_a_queue_without_sessions_is_refused_when_sessions_are_asked_for(azure: AzureServer) -> None:
    """The error says which option to leave out."""
    made = open_subscriber(f"servicebus://{azure.host}/plain", **options(azure))
    with pytest.raises(ConfigError, match="leave sessions= out"):
        made.open(timeout=PATIENCE)


def test_a_message_without_a_key_fails_alone_when_the_queue_has_sessions(azure: AzureServer, name: str) -> None:
    """The others of its batch are published."""
    errors = publish(azure, name, Message(b"0", key="a"), Message(b"1"), Message(b"2", key="b"))
    assert [type(error) for error in errors] == [type(None), InvalidMessageError, type(None)]


def test_dead_letters_are_read_without_sessions(azure: AzureServer, name: str) -> None:
    """The queue's own dead-letter place has none."""
    publish(azure, name, Message(b"0", key="one"))
    with open_subscriber(f"servicebus://{azure.host}/{name}", **options(azure)) as subscriber:
        [chunk] = taken(subscriber, 1)
        dead = Settlement(verdict=Verdict.DEAD_LETTER, spans=[(chunk, slice(0, 1))], reason="no good")
        assert not subscriber.settle([dead])
        with subscriber.dead_letters() as letters:  # type: ignore[attr-defined]
            [chunk] = taken(letters, 1)
            assert chunk[0].message.headers["ef-reason"] == "no good"


def test_everything_is_read_in_order_when_a_session_is_lost_on_the_way(azure: AzureServer, name: str) -> None:
    """After the broker ends the locks, each session goes on from its first message that was not settled."""
    publish(azure, name, *[Message(b"%d" % n, key=f"s{n % 2}") for n in range(40)])
    seen: list[bytes] = []

    def apply(input: bytes) -> None:
        if len(seen) == 10:
            azure.expire_locks()
        seen.append(input)

    url = f"servicebus://{azure.host}/{name}"
    flow_of(url, name="lost", **options(azure))(apply).run(until_idle=3.0, signals=False)
    assert {*seen} == {b"%d" % n for n in range(40)}
    for session in range(2):
        first = list(dict.fromkeys(int(one) for one in seen if int(one) % 2 == session))
        assert first == sorted(first)
    assert azure.counts(name)["active"] == 0
