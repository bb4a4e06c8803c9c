"""What goes wrong on the way: answers that never come, locks that end, idle links, messages that come beside a call."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from amqp import AzureServer
from eventflows import Message, RetryPolicy, Secret, publisher, subscriber
from eventflows.adapters._servicebus_queue import ServiceBusSubscriber
from eventflows.errors import BrokerError, ConnectionFailedError, LeaseLostError, OutcomeUnknownError
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Chunk
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Publisher
from eventflows.testing.conditions import pass_time, wait_until

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
UP_TO = 20.0
SHORT = 1.0
SLACK = 2.0  # seconds by which a call may overrun its time on a busy machine


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    """One stand-in for the module."""
    with AzureServer() as server:
        yield server


@pytest.fixture
def name(azure: AzureServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A queue of its own; nothing goes wrong behind the test."""
    made = f"q-{abs(hash(request.node.name))}"
    azure.queue(made, lock=30.0)
    yield made
    azure.call(azure.broker.faults.clear)


def writer(azure: AzureServer, name: str) -> Publisher:
    """Make a publisher."""
    return open_publisher(f"servicebus://{azure.host}/{name}", connection_string=Secret(azure.connection_string))


def reader(azure: AzureServer, name: str) -> ServiceBusSubscriber:
    """Make a subscriber."""
    made = open_subscriber(f"servicebus://{azure.host}/{name}", connection_string=Secret(azure.connection_string))
    assert isinstance(made, ServiceBusSubscriber)
    return made


def publish(azure: AzureServer, name: str, *messages: Message) -> None:
    """Publish, every message confirmed."""
    with writer(azure, name) as made:
        assert [one.error for one in made.publish(list(messages))] == [None] * len(messages)


def take(made: ServiceBusSubscriber, count: int) -> list[Chunk]:
    """Receive until so many messages are there."""
    chunks: list[Chunk] = []

    def enough() -> bool:
        chunks.extend(made.receive(count - sum(map(len, chunks)), max_bytes=10**6, timeout=0.5))
        return sum(map(len, chunks)) >= count

    wait_until(enough, UP_TO, what=f"{count} messages")
    return chunks


def ack(made: ServiceBusSubscriber, chunks: Sequence[Chunk], timeout: float = UP_TO) -> list[type[BrokerError]]:
    """Acknowledge; gives the classes of the errors."""
    said = Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, len(chunk))) for chunk in chunks])
    return [type(one.error) for one in made.settle([said], timeout=timeout)]


# What comes beside a call.


def given(azure: AzureServer, name: str) -> Callable[[], int]:
    """Count how often the queue hands a message to a receiver, from now on."""
    counted = []

    def listen() -> None:
        queue = azure.broker.queues[name]
        hand = queue._expire_at

        def count(lock: object) -> None:
            counted.append(lock)
            hand(lock)  # type: ignore[arg-type]

        queue._expire_at = count  # type: ignore[method-assign]

    azure.call(listen)
    return lambda: len(counted)


def test_each_message_crosses_once_when_the_queue_is_busy(azure: AzureServer, name: str) -> None:
    """What comes while others are settled is kept: the client by itself would send it back, again and again."""
    publish(azure, name, *[Message(b"%d" % number) for number in range(600)])
    handed = given(azure, name)

    @subscriber(
        f"servicebus://{azure.host}/{name}", connection_string=Secret(azure.connection_string), max_in_flight=100
    )
    def apply(body: bytes) -> None:
        pass

    assert apply.run(limit=600, signals=False).acked == 600
    assert handed() == 600


def test_no_more_is_locked_than_was_asked_for(azure: AzureServer, name: str) -> None:
    """What the client has at hand counts in the limit: of 50 messages, 10 at most are locked."""
    publish(azure, name, *[Message(b"x") for _ in range(50)])
    with reader(azure, name) as made:
        taken = [*made.receive(10, max_bytes=10**6, timeout=5)]
        for _ in range(10):
            made.receive(0, max_bytes=1, timeout=0.05)
            assert azure.counts(name)["locked"] <= 10
        left = 10 - sum(map(len, taken))
        assert sum(map(len, taken + (take(made, left) if left else []))) == 10


def test_what_nobody_took_goes_back_at_no_cost_when_it_is_closed(azure: AzureServer, name: str) -> None:
    """A message that came beside a call, and was not handed out, comes to the next one as its first attempt."""
    with reader(azure, name) as made:
        made.receive(5, max_bytes=10**6, timeout=0.3)
        publish(azure, name, Message(b"0"))
        take(made, 1)
        made.receive(5, max_bytes=10**6, timeout=0.3)  # so many may come now
        publish(azure, name, *[Message(b"%d" % number) for number in range(1, 4)])
    wait_until(lambda: azure.counts(name)["locked"] == 0, UP_TO, what="the end of every lock")
    with reader(azure, name) as made:
        attempts = {one.message.body: one.attempt for chunk in take(made, 4) for one in chunk}
    assert {body: attempt for body, attempt in attempts.items() if body != b"0"} == {b"1": 1, b"2": 1, b"3": 1}


def test_lock_that_ended_before_its_message_was_handed_out_is_dropped_and_counted(
    azure: AzureServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The message comes again as a later attempt, and is handed out once."""
    azure.queue("brief", lock=1.0)
    with reader(azure, "brief") as made:
        publish(azure, "brief", Message(b"x" * 10))
        assert ack(made, take(made, 1)) == []  # from here on a message is taken for one of ten bytes
        publish(azure, "brief", Message(b"1" * 600), Message(b"2" * 600))
        wait_until(lambda: azure.counts("brief")["active"] == 2, UP_TO, what="both messages")
        first = take_at_most(made, 700)
        wait_until(lambda: made._ahead, UP_TO, what="a message that did not fit")
        pass_time(1.2)
        again = take(made, 1)
    assert len(first) == 1
    assert made.expired == 1
    assert "locks ended" in caplog.text
    assert {one.attempt for chunk in again for one in chunk} == {2}


def take_at_most(made: ServiceBusSubscriber, max_bytes: int) -> list[bytes | None]:
    """Receive once, so many bytes at most, of whatever comes."""
    found: list[bytes | None] = []

    def came() -> bool:
        found.extend(body for chunk in made.receive(10, max_bytes=max_bytes, timeout=0.5) for body in chunk.bodies)
        return bool(found)

    wait_until(came, UP_TO, what="a message")
    return found


# Calls that could hang.


def test_opening_keeps_its_time_when_no_token_is_answered(azure: AzureServer, name: str) -> None:
    """Both halves give up in time, and open once they are answered."""
    azure.freeze("open", "$cbs")
    for made in (reader(azure, name), writer(azure, name)):
        began = time.monotonic()
        with pytest.raises(ConnectionFailedError):
            made.open(timeout=SHORT)
        assert time.monotonic() - began < SHORT + SLACK
    azure.thaw("open")
    for made in (reader(azure, name), writer(azure, name)):
        made.open(timeout=UP_TO)
        made.close()


@pytest.mark.parametrize("make", [reader, writer])
def test_opening_keeps_its_time_when_its_session_ends_meanwhile(azure: AzureServer, name: str, make: Any) -> None:
    """The client hears of it, and waits on; the next time it opens."""
    azure.call(lambda: setattr(azure.broker.faults, "endings", 1))
    made, began = make(azure, name), time.monotonic()
    with pytest.raises(ConnectionFailedError):
        made.open(timeout=SHORT)
    assert time.monotonic() - began < SHORT + SLACK
    made.open(timeout=UP_TO)
    made.close()


def test_publishing_keeps_its_time_when_a_refusal_cannot_be_read(azure: AzureServer, name: str) -> None:
    """The client fails inside its own callback, and waits for ever; the publisher goes on without it."""
    with writer(azure, name) as made:
        azure.call(lambda: setattr(azure.broker.faults, "terse", True))
        azure.plan("publish", "com.microsoft:argument-error", entity=name)
        began = time.monotonic()
        [result] = made.publish([Message(b"x")], timeout=SHORT)
        assert (type(result.error), time.monotonic() - began < SHORT + SLACK) == (OutcomeUnknownError, True)
        [result] = made.publish([Message(b"y")], timeout=UP_TO)
        assert result.error is None


def test_publishing_keeps_its_time_when_it_is_taken_without_an_answer(azure: AzureServer, name: str) -> None:
    """Nobody knows what became of it, and the publisher goes on."""
    with writer(azure, name) as made:
        azure.mute(name)
        began = time.monotonic()
        [result] = made.publish([Message(b"x")], timeout=SHORT)
        assert (type(result.error), time.monotonic() - began < SHORT + SLACK) == (OutcomeUnknownError, True)
        azure.call(azure.broker.faults.clear)
        [result] = made.publish([Message(b"y")], timeout=UP_TO)
        assert result.error is None


def test_settling_keeps_its_time_when_it_is_not_confirmed(azure: AzureServer, name: str) -> None:
    """The client would wait for a minute; what it was is said, and closing keeps its time, too."""
    publish(azure, name, Message(b"x"))
    made = reader(azure, name)
    chunks = take(made, 1)
    azure.freeze("settle", name)
    began = time.monotonic()
    assert ack(made, chunks, SHORT) == [OutcomeUnknownError]
    made.close(timeout=SHORT)
    assert time.monotonic() - began < 2 * SHORT + SLACK


@pytest.mark.parametrize("operation", ["extend", "peek"])
def test_management_keeps_its_time_when_it_is_not_answered(azure: AzureServer, name: str, operation: str) -> None:
    """Renewing and looking give up in time."""
    publish(azure, name, Message(b"x"))
    with reader(azure, name) as made:
        [chunk] = take(made, 1)
        azure.freeze(operation, name)
        began = time.monotonic()
        if operation == "extend":
            [extended] = made.extend([chunk[0]], 30, timeout=SHORT)
            assert extended.until is None
        else:
            with pytest.raises(BrokerError):
                made.peek(1, timeout=SHORT)
        assert time.monotonic() - began < SHORT + SLACK


# Locks and links.


def test_lock_lost_at_the_broker_is_said_and_the_message_comes_again(azure: AzureServer, name: str) -> None:
    """Its settlement and its renewal fail, neither raises, and the others of its chunk are settled."""
    publish(azure, name, Message(b"one"), Message(b"two"))
    with reader(azure, name) as made:
        chunks = take(made, 2)
        azure.expire_locks(lambda message: message.body == b"one")
        assert ack(made, chunks) == [LeaseLostError]
        [again] = take(made, 1)
        assert (again.bodies, again[0].attempt) == ([b"one"], 2)


def test_lock_lost_by_the_clock_is_said(azure: AzureServer, name: str) -> None:
    """Nobody renewed it: settling it is harmless, and it comes again."""
    azure.queue("quick", lock=1.0)
    publish(azure, "quick", Message(b"x"))
    with reader(azure, "quick") as made:
        chunks = take(made, 1)
        pass_time(1.2)
        assert ack(made, chunks) == [LeaseLostError]
        [again] = take(made, 1)
        assert ack(made, [again]) == []


def test_work_of_five_locks_runs_once(azure: AzureServer, name: str) -> None:
    """It is renewed, and so is what waits behind it: every delivery is the first."""
    azure.queue("long", lock=1.0)
    publish(azure, "long", *[Message(b"%d" % number) for number in range(3)])
    calls: list[bytes] = []

    @subscriber(f"servicebus://{azure.host}/long", connection_string=Secret(azure.connection_string), workers=3)
    def apply(body: bytes) -> None:
        calls.append(body)
        pass_time(5.0)

    assert apply.run(limit=3, signals=False).acked == 3
    assert sorted(calls) == [b"0", b"1", b"2"]


def test_traffic_goes_on_when_idle_links_are_dropped(azure: AzureServer, name: str) -> None:
    """The service detaches what is idle; the next publication and the flow meet it without a loss."""
    seen: set[bytes] = set()
    secret = Secret(azure.connection_string)

    @subscriber(f"servicebus://{azure.host}/{name}", connection_string=secret, retry=RetryPolicy(delay=0.1))
    def apply(body: bytes) -> None:
        seen.add(body)

    with apply.running(), writer(azure, name) as made:

        def said(body: bytes) -> bool:
            return made.publish([Message(body)], timeout=UP_TO)[0].error is None

        assert said(b"before")
        wait_until(lambda: seen == {b"before"}, UP_TO, what="the message before")
        assert azure.detach("amqp:link:detach-forced", match=lambda link: name in link.address) > 0
        wait_until(lambda: said(b"after"), UP_TO, what="a publication after it")
        wait_until(lambda: seen == {b"before", b"after"}, UP_TO, what="the message after")


def test_message_that_is_refused_fails_alone(azure: AzureServer, name: str) -> None:
    """Of a batch of ten, the one at fault has its error; the others are in."""
    azure.plan("publish", "com.microsoft:argument-error", times=4, match=lambda one: one.body == b"4", entity=name)
    with writer(azure, name) as made:
        errors = [one.error for one in made.publish([Message(b"%d" % number) for number in range(10)])]
    assert [index for index, error in enumerate(errors) if error is not None] == [4]
    assert azure.counts(name)["active"] == 9


# What a publisher can ask of the service.


def test_message_with_a_delay_comes_later(azure: AzureServer, name: str) -> None:
    """By seconds, or by a moment; until then it is scheduled, not locked, not lost."""
    due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1.5)
    publish(azure, name, Message(b"a", options={"delay": 1.5}), Message(b"b", options={"scheduled_at": due}))
    assert azure.counts(name)["scheduled"] == 2
    with reader(azure, name) as made:
        assert made.receive(2, max_bytes=1000, timeout=0.2) == []
        chunks = take(made, 2)
        assert datetime.datetime.now(datetime.UTC) >= due - datetime.timedelta(milliseconds=50)
        assert sorted(body or b"" for chunk in chunks for body in chunk.bodies) == [b"a", b"b"]


def test_message_of_an_id_that_was_there_is_dropped_by_the_service(azure: AzureServer, name: str) -> None:
    """Both are confirmed, and one is there: so the ids of outputs deduplicate downstream."""
    azure.queue("once", duplicates=60)

    @publisher(f"servicebus://{azure.host}/once", connection_string=Secret(azure.connection_string))
    def say(body: bytes) -> Message:
        return Message(body, id="the same")

    say(b"one")
    say(b"two")
    say.close()
    with reader(azure, "once") as made:
        assert [body for chunk in take(made, 1) for body in chunk.bodies] == [b"one"]
        assert made.receive(1, max_bytes=1000, timeout=0.3) == []
