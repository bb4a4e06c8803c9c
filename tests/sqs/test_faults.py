"""What goes wrong on the way: partial failures, throttling, endpoints that flap, credentials and queues that go."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest

from eventflows import HaltedError, Message, open_publisher, open_subscriber, subscriber
from eventflows.errors import (
    BrokerError,
    ConnectionFailedError,
    InvalidMessageError,
    LeaseLostError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ThrottledError,
)
from eventflows.policy import RetryPolicy, Settlement, Verdict
from eventflows.testing import wait_until
from eventflows.testing.cases import PLENTY, Taken, numbered
from eventflows.testing.conditions import pass_time
from servers.gate import refusal
from sqs_harness import SqsFifoHarness, SqsHarness
from sqs_use import counts, publish, read, receive

pytestmark = pytest.mark.broker

UP_TO = 60.0


def say(adapter: Any, taken: Sequence[Taken], verdict: Verdict = Verdict.ACK) -> list[type[BrokerError]]:
    """Say a verdict; gives the classes of the errors."""
    said = Settlement(verdict=verdict, spans=[one.span for one in taken])
    return [type(one.error) for one in adapter.settle([said], durable=True)]


@pytest.mark.parametrize(
    ("code", "kind", "again"),
    [
        ("InternalError", BrokerError, True), ("ThrottlingException", ThrottledError, True),
        ("AccessDenied", PermissionDeniedError, False), ("InvalidMessageContents", InvalidMessageError, False),
        ("NewAndOurs", InvalidMessageError, False), ("NewAndTheirs", BrokerError, True),
    ],
)  # fmt: skip
def test_one_entry_that_is_refused_fails_alone(
    broker: SqsHarness, code: str, kind: type[BrokerError], again: bool
) -> None:
    """Of ten, the one that the service refuses has its error, worth trying again or not; the others are in."""
    name = broker.fresh()
    broker.create(name)
    broker._gate.on_entry.append(lambda action, entry: code if entry.get("MessageBody") == "4" else None)
    with open_publisher(broker.source_url(name)) as made:
        errors = [one.error for one in made.publish(numbered(10))]
    assert [(type(error), error.retryable) for error in errors if error is not None] == [(kind, again)]
    assert errors[4] is not None
    assert len(read(broker.source_url(name), 9)) == 9


def silent_on(broker: SqsHarness, silent: str) -> None:
    """Have one action done by the service, and nothing said of it."""
    broker._gate.on_answer.append(lambda action, content: b"{}" if action == silent else content)


def test_entry_that_the_answer_leaves_out_is_unknown(broker: SqsHarness) -> None:
    """An answer that says nothing of an entry is no confirmation."""
    name = broker.fresh()
    broker.create(name)
    silent_on(broker, "SendMessageBatch")
    with open_publisher(broker.source_url(name)) as made:
        results = made.publish(numbered(2))
    assert [type(one.error) for one in results] == [OutcomeUnknownError] * 2


@pytest.mark.parametrize(
    ("verdict", "action"),
    [(Verdict.ACK, "DeleteMessageBatch"), (Verdict.RETRY, "ChangeMessageVisibilityBatch")],
)
def test_verdict_that_the_answer_leaves_out_is_unknown(broker: SqsHarness, verdict: Verdict, action: str) -> None:
    """A deletion, or a new visibility, of which nothing is said is reported, to be said again."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(2))
    with open_subscriber(broker.source_url(name)) as adapter:
        taken = receive(adapter, 2)
        silent_on(broker, action)
        assert say(adapter, taken, verdict) == [OutcomeUnknownError] * 2


@pytest.mark.parametrize("verdict", [Verdict.ACK, Verdict.RETRY, Verdict.RELEASE])
@pytest.mark.parametrize(
    ("code", "kind", "again"),
    [
        ("InternalError", BrokerError, []), ("ThrottlingException", ThrottledError, []),
        ("AccessDenied", PermissionDeniedError, []), ("ReceiptHandleIsInvalid", LeaseLostError, [LeaseLostError]),
        ("MessageNotInflight", LeaseLostError, [LeaseLostError]),
    ],
)  # fmt: skip
def test_one_verdict_that_is_refused_fails_alone(
    broker: SqsHarness, verdict: Verdict, code: str, kind: type[BrokerError], again: list[type[BrokerError]]
) -> None:
    """A failed entry is reported with its kind; the next word on it works, unless the lease is lost."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(3))
    with open_subscriber(broker.source_url(name)) as adapter:
        taken = receive(adapter, 3)
        refuse = [taken[1].delivery.native["ReceiptHandle"]]  # type: ignore[index]
        broker._gate.on_entry.append(lambda action, entry: code if entry.get("ReceiptHandle") in refuse else None)
        assert say(adapter, taken, verdict) == [kind]
        refuse.clear()
        assert say(adapter, taken[1:2], verdict) == again


def test_one_renewal_that_is_refused_fails_alone(broker: SqsHarness) -> None:
    """The others have their new end."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(3))
    with open_subscriber(broker.source_url(name)) as adapter:
        taken = receive(adapter, 3)
        broker.faults(name).refuse_extension(ConnectionFailedError("injected"))
        results = adapter.extend([one.delivery for one in taken], 60)
    assert [one.until is None for one in results] == [True, False, False]


def test_group_whose_entry_failed_is_sent_again_in_order(fifo: SqsFifoHarness) -> None:
    """What the queue took although a message before it failed comes again behind it, not swallowed as known."""
    name = fifo.fresh()
    fifo.create(name)
    batch = [Message(b"%d" % n, key="k", id=f"i-{n}") for n in range(3)]
    refuse = ["1"]
    fifo._gate.on_entry.append(
        lambda action, entry: "InternalError" if entry.get("MessageBody") in refuse and refuse.pop() else None
    )
    with open_publisher(fifo.source_url(name)) as made:
        assert [one.error is None for one in made.publish(batch)] == [True, False, True]
        assert [one.error for one in made.publish(batch[1:])] == [None, None]
    bodies = [one.message.body for one in read(fifo.source_url(name), 4)]
    assert bodies == [b"0", b"2", b"1", b"2"]


def test_nothing_of_a_group_follows_its_failure(fifo: SqsFifoHarness) -> None:
    """After a call that failed, later calls of the same batch leave that group out, and send the others."""
    name = fifo.fresh()
    fifo.create(name)
    batch = [Message(b"a%d" % n, key="a", id=f"a-{n}") for n in range(11)] + [Message(b"b", key="b", id="b")]
    fifo.faults(name).fail("publish", ConnectionFailedError("injected"))
    with open_publisher(fifo.source_url(name)) as made:
        errors = [one.error for one in made.publish(batch)]
    assert [error is None for error in errors] == [False] * 11 + [True]
    assert all(error is None or error.retryable for error in errors)
    assert [one.message.body for one in read(fifo.source_url(name))] == [b"b"]


def through(broker: SqsHarness, name: str, count: int, trouble: threading.Event | None = None) -> set[bytes]:
    """Run a flow until it has seen so many; gives what it saw."""
    seen: set[bytes] = set()

    # Whatever is handed back because a call failed has been received once more, and that counts.
    @subscriber(broker.source_url(name), visibility=6, retry=RetryPolicy(attempts=100))
    def apply(input: bytes) -> None:
        seen.add(input)
        if trouble is not None and len(seen) == count // 3:
            trouble.set()

    with apply.running():
        wait_until(lambda: len(seen) == count, UP_TO, what="all messages seen")
    return seen


@pytest.mark.parametrize(
    ("code", "status"), [("ThrottlingException", 400), ("InternalError", 500), ("ExpiredToken", 403)]
)
def test_flow_goes_on_when_the_service_refuses_for_a_while(broker: SqsHarness, code: str, status: int) -> None:
    """Throttled, failing, or with credentials that have run out until somebody renews them: nothing is lost."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(60))
    trouble, until = threading.Event(), [0.0]

    def rule(queue: str, action: str) -> object:
        if not trouble.is_set():
            return True
        until[0] = until[0] or time.monotonic() + 1.5
        return True if time.monotonic() > until[0] else refusal(code, status=status)

    broker._gate.on_call.append(rule)  # type: ignore[arg-type]
    assert len(through(broker, name, 60, trouble)) == 60
    assert until[0] > 0


def test_flow_goes_on_when_opening_again_fails_too(broker: SqsHarness) -> None:
    """Credentials run out, and while they are renewed the service fails, throttles and is cut off: it goes on."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(60))
    trouble = threading.Event()
    expired = [refusal("ExpiredToken", status=403)]
    opening = [None, refusal("ThrottlingException"), refusal("InternalError", status=500)]

    def rule(queue: str, action: str) -> object:
        if not trouble.is_set() or queue != name:
            return True
        if action == "ReceiveMessage" and expired:
            return expired.pop()
        return opening.pop() if action == "GetQueueAttributes" and opening else True

    broker._gate.on_call.append(rule)  # type: ignore[arg-type]
    assert len(through(broker, name, 60, trouble)) == 60
    assert (expired, opening) == ([], [])


def test_flow_goes_on_when_the_endpoint_flaps(broker: SqsHarness) -> None:
    """An endpoint that cuts every twelfth call off costs repetitions, and no message."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(60))
    count = [0]

    def rule(queue: str, action: str) -> object:
        count[0] += queue == name
        return None if queue == name and count[0] % 12 == 11 else True

    broker._gate.on_call.append(rule)  # type: ignore[arg-type]
    assert len(through(broker, name, 60)) == 60


def test_flow_does_not_repeat_its_words_at_once_when_the_service_is_away(broker: SqsHarness) -> None:
    """It pauses, longer each time: two seconds of an outage cost a few calls, not hundreds."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, Message(b"1"))
    said: list[float] = []

    def rule(queue: str, action: str) -> object:
        if (queue, action) != (name, "DeleteMessageBatch"):
            return True
        said.append(time.monotonic())
        return True if said[-1] > said[0] + 2.0 else None

    broker._gate.on_call.append(rule)  # type: ignore[arg-type]
    assert subscriber(broker.source_url(name))(lambda input: None).run(limit=1, signals=False).acked == 1
    assert 1 < len(said) < 30


def test_flow_halts_when_its_queue_is_deleted(broker: SqsHarness) -> None:
    """A queue that goes away ends the flow, and the error names it."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(3))
    seen: list[bytes] = []

    @subscriber(broker.source_url(name))
    def apply(input: bytes) -> None:
        seen.append(input)
        if len(seen) == 3:
            broker._direct.delete_queue(QueueUrl=broker.direct_url(name))

    with pytest.raises(HaltedError) as caught:
        apply.run(signals=False)
    broker._made.remove(name)
    assert (isinstance(caught.value.__cause__, NotFoundError), name in str(caught.value)) == (True, True)


def test_stop_under_load_releases_what_was_not_begun(broker: SqsHarness) -> None:
    """At a stop, what was not begun is visible again at once, while the message at work goes on to its end."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(200))
    begun, go = threading.Event(), threading.Event()
    seen: list[bytes] = []

    @subscriber(broker.source_url(name), visibility=3600)
    def apply(input: bytes) -> None:
        begun.set()
        go.wait(UP_TO)
        seen.append(input)

    with apply.running():
        assert begun.wait(UP_TO)
        assert counts(broker, name)[1] > 1
        before = len(broker._gate.asked)
        apply.stop()
        wait_until(lambda: counts(broker, name) == (199, 1), UP_TO, what="all but the one at work back in the queue")
        released = [entry for one in broker._gate.asked[before:] for entry in one.get("Entries", ())]
        go.set()
    assert (len(seen), counts(broker, name)) == (1, (199, 0))
    assert {entry["VisibilityTimeout"] for entry in released} == {0}


def test_stop_releases_nothing_into_a_poll_that_is_out(broker: SqsHarness) -> None:
    """What is released costs one receive, not a second one by the poll of the flow that ends."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(3))
    begun, go = threading.Event(), threading.Event()

    def polls() -> int:
        return broker._gate.calls[before:].count("ReceiveMessage")

    @subscriber(broker.source_url(name), visibility=3600)
    def apply(input: bytes) -> None:
        begun.set()
        go.wait(UP_TO)

    before = len(broker._gate.calls)
    with apply.running():
        assert begun.wait(UP_TO)
        wait_until(lambda: counts(broker, name) == (0, 3), UP_TO, what="all three held")
        so_far = polls()
        wait_until(lambda: polls() > so_far, UP_TO, what="a poll that has just begun")
        apply.stop()
        wait_until(lambda: counts(broker, name) == (2, 1), UP_TO, what="two of them back")
        go.set()
    assert [one.attempt for one in read(broker.source_url(name), 2)] == [2, 2]


def test_foreign_attributes_of_every_type_arrive(broker: SqsHarness) -> None:
    """What another program sent arrives byte for byte, its attributes as headers."""
    name = broker.fresh()
    broker.create(name)
    broker._direct.send_message(
        QueueUrl=broker.direct_url(name), MessageBody="test",
        MessageAttributes={
            "n": {"DataType": "Number", "StringValue": "3"}, "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
        },
    )  # fmt: skip
    [got] = read(broker.source_url(name))
    assert (got.message.body, dict(got.message.headers)) == (b"test", {"n": "3", "b": "AP8="})


def test_queue_is_found_by_its_name_alone(broker: SqsHarness) -> None:
    """`sqs://region/queue` asks the service for the account's own queue."""
    name = broker.fresh()
    broker.create(name)
    url = f"sqs://eu-west-1/{name}?endpoint={broker._gate.endpoint}"
    with open_publisher(url) as made:
        assert made.publish([Message(b"x")])[0].error is None
    assert len(read(f"{broker._gate.endpoint}/000000000000/{name}")) == 1


def test_idle_subscriber_has_one_poll_out(broker: SqsHarness) -> None:
    """With four receivers and nothing to do there is one call at a time, and ever fewer."""
    name = broker.fresh()
    broker.create(name)
    with open_subscriber(broker.source_url(name), receivers=4) as adapter:
        before = len(broker._gate.calls)
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            assert adapter.receive(100, max_bytes=PLENTY, timeout=1.0) == []
        assert len(broker._gate.calls) - before <= 4


@pytest.mark.parametrize("receivers", [1, 3])
def test_as_many_polls_are_out_as_there_are_receivers(broker: SqsHarness, receivers: int) -> None:
    """While there is work, and room for it, `receivers` says how many calls wait at a time."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(100))
    out = most = 0

    def rule(queue: str, action: str) -> bool:
        nonlocal out, most
        if (queue, action) == (name, "ReceiveMessage"):
            with broker._gate.lock:
                out += 1
                most = max(most, out)
            pass_time(0.2)
            with broker._gate.lock:
                out -= 1
        return True

    broker._gate.on_call.append(rule)
    with open_subscriber(broker.source_url(name), receivers=receivers) as adapter:
        assert len(receive(adapter, 100)) == 100
    assert most == receivers
