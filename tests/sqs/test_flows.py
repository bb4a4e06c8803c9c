"""Flows on SQS: what is held outlives a failed call, calls are few, members of a failing group are left alone."""

from __future__ import annotations

import collections
import functools
import logging
import threading
import time

import pytest

from eventflows import Delivery, InvalidMessageError, Message, RetryPolicy, open_publisher, open_subscriber, subscriber
from eventflows.errors import OutcomeUnknownError
from eventflows.policy import Settlement, Verdict
from eventflows.testing import wait_until
from eventflows.testing.cases import numbered
from servers.gate import refusal
from sqs_harness import ENVIRONMENT, SqsFifoHarness, SqsHarness
from sqs_use import counts, publish, read, read_until, receive, redriven

pytestmark = pytest.mark.broker

UP_TO = 60.0
BUSY = ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch")


@pytest.mark.parametrize("kind", ["broker", "fifo"])
@pytest.mark.parametrize("cut", [True, False], ids=["cut off", "refused"])
def test_work_is_done_once_when_calls_fail_beside_it(kind: str, cut: bool, request: pytest.FixtureRequest) -> None:
    """A call that fails costs that call alone: what is held is kept, renewed, and not run a second time."""
    broker: SqsHarness = request.getfixturevalue(kind)
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *(Message(b"%d" % number, key=f"k-{number % 3}") for number in range(12)))
    calls: collections.Counter[bytes] = collections.Counter()
    failed: set[str] = set()

    def rule(queue: str, action: str) -> object:
        if queue != name or action not in BUSY or action in failed or not calls:
            return True
        failed.add(action)
        return None if cut else refusal("InternalError", status=500)

    broker._gate.on_call.append(rule)  # type: ignore[arg-type]

    @subscriber(broker.source_url(name), visibility=2, workers=3)
    def apply(input: bytes) -> None:
        calls[input] += 1
        wait_until(lambda: failed >= set(BUSY[::2]), UP_TO, what="a poll and a renewal that failed")

    with apply.running():
        wait_until(lambda: len(calls) == 12 and counts(broker, name) == (0, 0), UP_TO, what="the end", every=0.1)
    assert (failed, set(calls.values())) == (set(BUSY), {1})


def test_calls_are_few_when_much_waits(broker: SqsHarness) -> None:
    """A busy queue costs at most 205 calls for 1,000 messages: tens are received, and tens deleted."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(1000))
    before = len(broker._gate.calls)
    flow = subscriber(broker.source_url(name))(lambda input: None)
    assert flow.run(limit=1000, signals=False).acked == 1000
    made = [action for action in broker._gate.calls[before:] if action in BUSY]
    assert len(made) <= 205, collections.Counter(made)


def test_leases_are_renewed_in_tens(broker: SqsHarness) -> None:
    """What is held is renewed together, not one by one."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(40))
    go = threading.Event()
    before = len(broker._gate.calls)

    @subscriber(broker.source_url(name), visibility=3, max_in_flight=40)
    def apply(input: bytes) -> None:
        go.wait(UP_TO)

    def renewals() -> int:
        return broker._gate.calls[before:].count("ChangeMessageVisibilityBatch")

    with apply.running():
        wait_until(lambda: counts(broker, name) == (0, 40), UP_TO, what="all of them held")
        seen, began = renewals(), time.monotonic()
        wait_until(lambda: renewals() >= seen + 8, UP_TO, what="two rounds of renewals")
        # 40 leases in tens, each renewed when 1.5 of its 3 seconds are over, and no sooner.
        most = 4 * ((time.monotonic() - began) / 1.0 + 2)
        assert renewals() - seen <= most
        go.set()


def test_a_lone_message_is_deleted_though_no_other_comes(broker: SqsHarness) -> None:
    """A trickle waits for nothing to fill a batch: received, handled and deleted before the next is sent."""
    name = broker.fresh()
    broker.create(name)
    seen: list[bytes] = []

    def is_done(count: int) -> bool:
        return len(seen) == count and counts(broker, name) == (0, 0)

    with subscriber(broker.source_url(name))(lambda input: seen.append(input)).running():
        for count in (1, 2, 3):
            publish(broker, name, Message(b"%d" % count))
            wait_until(functools.partial(is_done, count), UP_TO, what="the queue empty again")


WAITING = 40
"""Sends that wait while every call that may be out is out."""


@pytest.mark.parametrize(("kind", "at_once"), [("broker", 4), ("fifo", 1)])
def test_sends_that_wait_share_their_calls(kind: str, at_once: int, request: pytest.FixtureRequest) -> None:
    """What waits for a call, whoever sent it, goes in tens, a FIFO queue's in order; and each has its own answer."""
    broker: SqsHarness = request.getfixturevalue(kind)
    name = broker.fresh()
    broker.create(name)
    calls, go = broker._gate.calls, threading.Event()
    began = calls.count("SendMessageBatch")
    broker._gate.on_call.append(lambda queue, action: action != "SendMessageBatch" or go.wait(UP_TO))
    broker.faults(name).fail_message(lambda message: message.body == b"17", InvalidMessageError("injected"))
    with open_publisher(broker.source_url(name)) as made:
        sent = []
        for number in range(at_once):
            sent.append(made.send([Message(b"first %d" % number, key="k")]))
            wait_until(lambda: calls.count("SendMessageBatch") == began + len(sent), UP_TO, what="its call")
        sent += [made.send([Message(b"%d" % number, key="k")]) for number in range(WAITING)]
        go.set()
        errors = [one.results(UP_TO)[0].error for one in sent]
    assert [index - at_once for index, error in enumerate(errors) if error is not None] == [17]
    assert calls.count("SendMessageBatch") - began == at_once + WAITING // 10
    wanted = [b"first %d" % number for number in range(at_once)] + [b"%d" % n for n in range(WAITING) if n != 17]
    bodies = read_until(broker.source_url(name), set(wanted))
    assert (bodies if kind == "fifo" else sorted(bodies)) == (wanted if kind == "fifo" else sorted(wanted))


def test_send_that_had_not_begun_in_time_is_never_made(fifo: SqsFifoHarness) -> None:
    """Its sender was told that it is not known what became of it: it must not come behind what is sent again."""
    name = fifo.fresh()
    fifo.create(name)
    begun, go = threading.Event(), threading.Event()

    def rule(queue: str, action: str) -> bool:
        if action == "SendMessageBatch":
            begun.set()
            go.wait(UP_TO)
        return True

    fifo._gate.on_call.append(rule)
    with open_publisher(fifo.source_url(name)) as made:
        first = made.send([Message(b"first", key="k")])
        assert begun.wait(UP_TO)
        [late] = made.publish([Message(b"late", key="k")], timeout=0.2)
        go.set()
        assert [one.error for one in (*first.results(UP_TO), *made.publish([Message(b"last", key="k")]))] == [None] * 2
    assert isinstance(late.error, OutcomeUnknownError)
    assert read_until(fifo.source_url(name), {b"first", b"last"}) == [b"first", b"last"]


def test_what_nobody_takes_goes_back_in_tens(broker: SqsHarness) -> None:
    """Messages that came, and that there was no room for, are shown again together."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, *numbered(10))
    with open_subscriber(broker.source_url(name), visibility=3600) as adapter:
        wait_until(lambda: adapter.receive(10, max_bytes=1, timeout=1.0), UP_TO, what="the first, alone by its bytes")
        before = len(broker._gate.calls)

        def are_back() -> bool:
            adapter.receive(0, max_bytes=0, timeout=0.0)
            return counts(broker, name) == (9, 1)

        wait_until(are_back, UP_TO, what="the others back")
        assert broker._gate.calls[before:].count("ChangeMessageVisibilityBatch") == 1


@pytest.mark.parametrize(("options", "seconds"), [({}, 60), ({"visibility": 7}, 7)])
def test_lease_has_the_length_that_is_asked_for(broker: SqsHarness, options: dict[str, int], seconds: int) -> None:
    """Each receive says it, whatever the queue's own is; we count on a little less, for the way took time, too."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, Message(b"x"))
    before = len(broker._gate.asked)
    with open_subscriber(broker.source_url(name), **options) as adapter:
        [one] = receive(adapter)
        left = one.delivery.lease_until - time.monotonic()  # type: ignore[operator]
    asked = [one["VisibilityTimeout"] for one in broker._gate.asked[before:] if "WaitTimeSeconds" in one]
    assert (set(asked), seconds * 0.8 < left < seconds * 0.95) == ({seconds}, True)


@pytest.mark.parametrize("how", ["settle", "close"])
def test_group_goes_back_last_first(fifo: SqsFifoHarness, how: str) -> None:
    """The head of a message group is shown when nothing behind it can overtake it."""
    name = fifo.fresh()
    fifo.create(name)
    publish(fifo, name, *(Message(b"%d" % number, key="one") for number in range(4)))
    with open_subscriber(fifo.source_url(name)) as adapter:
        taken = receive(adapter, 4)
        handles = [one.delivery.native["ReceiptHandle"] for one in taken]  # type: ignore[index]
        before = len(fifo._gate.asked)
        if how == "settle":
            adapter.settle([Settlement(verdict=Verdict.RELEASE, spans=[one.span for one in taken])])
    shown = [entry["ReceiptHandle"] for one in fifo._gate.asked[before:] for entry in one.get("Entries", ())]
    assert shown == handles[::-1]


def test_members_behind_a_failing_head_never_reach_the_redrive_policy_s_queue(fifo: SqsFifoHarness) -> None:
    """With maxReceiveCount 3 the head that fails three times goes there alone; the others are received once."""
    name, dead = redriven(fifo, 3)
    publish(fifo, name, *(Message(b"%d" % number, key="one") for number in range(6)))
    calls: list[tuple[bytes, int]] = []

    # The head takes two leases until it is given up: those behind it are renewed meanwhile.
    @subscriber(fifo.source_url(name), visibility=2, retry=RetryPolicy(attempts=3, delay=2, factor=1))
    def apply(input: bytes, *, delivery: Delivery | None = None) -> None:
        assert delivery is not None
        calls.append((input, delivery.attempt))
        if input == b"0":
            raise ValueError("an injected failure")

    result = apply.run(limit=6, signals=False)
    assert (result.acked, result.dead_lettered, result.released) == (5, 1, 0)
    assert calls == [(b"0", 1)] * 3 + [(b"%d" % number, 1) for number in range(1, 6)]
    assert [(one.message.body, one.message.headers["ef-attempts"]) for one in read(fifo.source_url(dead))] == [
        (b"0", "3")
    ]
    assert counts(fifo, dead) == (0, 0)


def test_no_secret_is_logged_by_a_flow_that_meets_trouble(
    broker: SqsHarness, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, cut off, retried, dead-lettered: neither keys nor token are in a log line, an error or a dead letter."""
    secrets = {
        name: f"hunter2-{name.lower()}" for name in (*(key for key in ENVIRONMENT if "KEY" in key), "AWS_SESSION_TOKEN")
    }
    for variable, value in secrets.items():
        monkeypatch.setenv(variable, value)
    name, dead = broker.fresh(), broker.fresh()
    for one in (name, dead):
        broker.create(one)
    publish(broker, name, *numbered(4))
    trouble = [refusal("ExpiredToken", status=403), refusal("InternalError", status=500), None]
    broker._gate.on_call.append(
        lambda queue, action: trouble.pop() if queue == name and action in BUSY and trouble else True
    )
    caplog.set_level(logging.DEBUG, "eventflows")

    @subscriber(broker.source_url(name), retry=RetryPolicy(attempts=2, delay=0.01), dead_letter=broker.source_url(dead))
    def apply(input: bytes) -> None:
        raise ValueError("an injected failure")

    apply.run(limit=4, signals=False)
    letters = [str(one.message.headers) for one in read(broker.source_url(dead), 4)]
    shown = "\n".join([caplog.text, repr(apply), str(apply.describe()), *letters])
    assert (len(letters), "ExpiredToken" in shown) == (4, True)
    assert [name for name, value in secrets.items() if value in shown] == []
