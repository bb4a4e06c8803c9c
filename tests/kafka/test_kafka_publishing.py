"""What goes wrong with one record, one connection or one broker, and what of it the next record feels: nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.errors import (
    BrokerResponseError,
    InvalidProducerEpochError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumberError,
    UnknownProducerIdError,
)

from eventflows.errors import (
    BrokerError,
    InvalidMessageError,
    OutcomeUnknownError,
    PermissionDeniedError,
    TooLargeError,
)
from eventflows.locate import open_publisher
from eventflows.message import Message
from eventflows.protocols import Publisher, PublishResult
from eventflows.secret import Secret
from eventflows.testing import wait_until
from eventflows.testing.conditions import Background, pass_time
from kafka_stream import KEYS, overtaken
from kafka_use import CLIENTS, administrator, everything, fresh_topic
from servers.kafka import PASSWORDS, KafkaServer, gate, shared
from servers.kafka_gate import PRODUCE, Request

MANY = 400


@pytest.fixture
def server() -> KafkaServer:
    """The broker that all share."""
    return shared()


@pytest.fixture
def gated(server: KafkaServer) -> Iterator[str]:
    """Where the gate stands before the broker; it lets everything pass again afterwards."""
    one = gate()
    yield server.address("GATED")
    one.refusals.clear()
    one.rules.clear()
    one.answer_rules.clear()


def kinds(results: Sequence[PublishResult]) -> list[type[BrokerError] | None]:
    """Give the class of each error."""
    return [None if one.error is None else type(one.error) for one in results]


def threads() -> int:
    """Count the threads of this process, native ones included."""
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize(
    ("configs", "bad", "kind"),
    [
        pytest.param({"max.message.bytes": "2000"}, Message(bytes(5000)), TooLargeError, id="too-large-for-the-topic"),
        pytest.param({"cleanup.policy": "compact"}, Message(b"bad"), InvalidMessageError, id="no-key-when-compacted"),
    ],
)
def test_record_that_the_broker_refuses_harms_no_other(
    server: KafkaServer, client: str, configs: dict[str, str], bad: Message, kind: type[BrokerError]
) -> None:
    """It has its own error, after a round or two; those beside it are published when they are sent again."""
    topic = fresh_topic(server, **configs)
    left, refused = [Message(b"0", key="k"), bad, Message(b"1", key="k")], []
    with open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client]) as out:

        def published() -> bool:
            errors = [one.error for one in out.publish(left)]
            refused.extend(error for error in errors if isinstance(error, kind))
            left[:] = [
                message for message, error in zip(left, errors, strict=True)
                if error is not None and not isinstance(error, kind)
            ]  # fmt: skip
            assert all(error is None or error.retryable or isinstance(error, kind) for error in errors), errors
            return not left

        wait_until(published, what="all but one published")
        assert len(refused) == 1
        assert kinds(out.publish([Message(b"2", key="k")])) == [None]
    assert sorted(body for _, body in everything(server, topic)) == [b"0", b"1", b"2"]


def test_publisher_without_a_right_works_once_it_has_it(server: KafkaServer, client: str) -> None:
    """What is refused for want of an ACL is refused; after it is granted the same publisher publishes."""
    topic = fresh_topic(server)
    pattern = ResourcePattern(ResourceType.TOPIC, topic)
    reading, writing = (
        [ACL("User:alice", "*", operation, ACLPermissionType.ALLOW, pattern)]
        for operation in (ACLOperation.DESCRIBE, ACLOperation.WRITE)
    )
    user = {"username": "alice", "password": Secret(PASSWORDS["alice"])}
    with administrator(server) as admin:
        admin.create_acls(reading)
        with open_publisher(f"kafka://{server.address('SASL_PLAINTEXT')}/{topic}", **user, **CLIENTS[client]) as out:
            assert kinds(out.publish([Message(b"early")])) == [PermissionDeniedError]
            admin.create_acls(writing)
            wait_until(lambda: kinds(out.publish([Message(b"late")])) == [None], what="the granted right", every=0.2)
        admin.delete_acls(reading + writing)
    assert [body for _, body in everything(server, topic)] == [b"late"]


def sending(out: Publisher, first: int = 0) -> list[PublishResult]:
    """Publish numbers of some keys with several batches on their way; gives all results."""
    ways = []
    for start in range(first, first + MANY, 20):
        ways.append(out.send([Message(b"%d" % n, key=f"k{n % KEYS}") for n in range(start, start + 20)]))
        pass_time(0.005)
    return [result for way in ways for result in way.results(30.0)]


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_order_of_keys_holds_when_connections_break(server: KafkaServer, client: str, gated: str, lost: str) -> None:
    """Every second request to publish, or its answer, is lost with its connection: all arrive, none overtakes."""
    topic = fresh_topic(server, partitions=4)
    seen = [0]

    def every_second(request: Request) -> bool:
        seen[0] += request.api == PRODUCE
        return request.api == PRODUCE and seen[0] % 2 == 0

    with open_publisher(f"kafka://{gated}/{topic}", **CLIENTS[client]) as out:
        (gate().rules if lost == "request" else gate().answer_rules).append(every_second)
        results: list[PublishResult] = []
        while seen[0] < 4:  # of which two are lost; how much a request carries is a matter of time
            results += sending(out, len(results))
            assert kinds(results) == [None] * len(results)
    numbers = [int(body) for _, body in everything(server, topic)]
    assert (sorted(set(numbers)), overtaken(numbers)) == (list(range(len(results))), [])


def test_order_of_keys_holds_when_the_lead_of_partitions_moves(server: KafkaServer, client: str, gated: str) -> None:
    """Every third request is answered by a broker that leads no more: all arrive, none overtakes."""
    topic = fresh_topic(server, partitions=4)
    seen = [0]

    def every_third(request: Request) -> int:
        seen[0] += 1
        return 0 if seen[0] % 3 else NotLeaderForPartitionError.errno

    with open_publisher(f"kafka://{gated}/{topic}", **CLIENTS[client]) as out:
        gate().refusals.append(every_third)
        results: list[PublishResult] = []
        while seen[0] < 12:
            results += sending(out, len(results))
            assert kinds(results) == [None] * len(results)
    numbers = [int(body) for _, body in everything(server, topic)]
    assert (sorted(set(numbers)), overtaken(numbers)) == (list(range(len(results))), [])


@pytest.mark.parametrize("error", [OutOfOrderSequenceNumberError, UnknownProducerIdError, InvalidProducerEpochError])
def test_publisher_goes_on_when_the_broker_knows_nothing_of_its_producer(
    server: KafkaServer, gated: str, error: type[BrokerResponseError]
) -> None:
    """A broker forgets producers; what it refused for that is published when it is sent again, at the latest.

    Of kafka-python's producer it knows nothing at any time.
    """
    topic = fresh_topic(server)
    left, times = [Message(b"%d" % number, key="k") for number in range(5)], [2]

    def twice(request: Request) -> int:
        times[0] -= 1
        return error.errno if times[0] >= 0 else 0

    with open_publisher(f"kafka://{gated}/{topic}", client="librdkafka") as out:
        assert kinds(out.publish([Message(b"first")])) == [None]
        gate().refusals.append(twice)

        def published() -> bool:
            errors = [one.error for one in out.publish(left)]
            left[:] = [message for message, error in zip(left, errors, strict=True) if error is not None]
            assert all(error is None or error.retryable for error in errors), errors
            return not left

        wait_until(published, what="everything published")
    assert times[0] < 0
    assert [body for _, body in everything(server, topic)] == [b"first", b"0", b"1", b"2", b"3", b"4"]


@contextlib.contextmanager
def frozen(server: KafkaServer) -> Iterator[None]:
    """Have a broker that answers nothing while the body of the `with` runs."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def test_unconfirmed_bytes_are_bounded_when_nobody_answers(server: KafkaServer, client: str) -> None:
    """With 64 MiB on their way `send` waits, and goes on when the broker does."""
    topic = fresh_topic(server)
    body, limit = bytes(900_000), 64 * 1024 * 1024 // 900_000
    sent = []
    with open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client]) as out:
        assert kinds(out.publish([Message(b"first")])) == [None]
        with frozen(server):
            going = Background(lambda: [sent.append(out.send([Message(body)])) for _ in range(limit + 5)])
            wait_until(lambda: len(sent) >= limit, what="64 MiB on their way")
            pass_time(1.0)
            assert (going.running, len(sent)) == (True, limit)
        going.result(30.0, "the rest of the sends")
        assert [kinds(one.results(30.0)) for one in sent] == [[None]] * (limit + 5)


def test_close_ends_in_time_and_leaves_no_thread_when_nobody_answers(server: KafkaServer, client: str) -> None:
    """What is on its way to a frozen broker does not keep `close` from closing."""
    topic = fresh_topic(server)
    before = threads()
    out = open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client])
    assert kinds(out.publish([Message(b"first")])) == [None]
    with frozen(server):
        out.send([Message(b"%d" % number) for number in range(100)])
        begun = time.monotonic()
        Background(lambda: out.close(timeout=1.0)).result(4.0, "close")
        assert time.monotonic() - begun < 3.0
        wait_until(lambda: threads() <= before + 1, what="the end of the client's threads")  # one is `Background`'s


@pytest.mark.trial
@pytest.mark.timeout(120)
def test_records_that_expire_harm_no_other(server: KafkaServer, client: str) -> None:
    """What a frozen broker did not take in 30 s is unknown; the same publisher goes on once it answers."""
    topic = fresh_topic(server)
    with open_publisher(f"kafka://{server.address()}/{topic}", **CLIENTS[client]) as out:
        assert kinds(out.publish([Message(b"first")])) == [None]
        with frozen(server):
            lost = out.send([Message(b"lost", key="k")] * 3)
            assert set(kinds(lost.results(45.0))) == {OutcomeUnknownError}
            assert lost.results(0.0)[0].error is not None
        assert kinds(out.publish([Message(b"next", key="k")] * 3)) == [None] * 3
        assert kinds(out.publish([Message(b"last", key="k")])) == [None]
    assert [body for _, body in everything(server, topic)][-4:] == [b"next"] * 3 + [b"last"]
