"""What SQS takes and what it does not: bodies, attributes and sizes, on a server that is as strict."""

from __future__ import annotations

import time

import pytest

from eventflows import InvalidMessageError, Message, TooLargeError, open_publisher, open_subscriber
from eventflows.testing import wait_until
from sqs_harness import SqsFifoHarness, SqsHarness
from sqs_use import counts, publish, read, receive

MIB = 1 << 20
ELEVEN = {f"name-{number}": f"value {number}" for number in range(11)}
ODD = {
    "control characters": Message(bytes(range(32)) + b"\x7f"),
    "a lone surrogate": Message(b"\xed\xa0\x80"),
    "no character at all": Message("\ufffe\uffff".encode()),
    "empty": Message(b""),
    "what stands for empty": Message(b"(empty)"),
    "base64 by nature": Message(b"dGVzdA=="),
    "eleven attributes": Message(b"x", headers=ELEVEN),
    "odd headers": Message(b"x", headers={"": "", "AWS.x": "1", "sp ace": "\x00", "empty": "", **ELEVEN}),
    "a mebibyte of text": Message(b"x" * MIB),
    "a mebibyte, the key counted": Message(b"x" * (MIB - len("ef-key") - len("String") - 1), key="k"),
}


@pytest.mark.parametrize("kind", ["broker", "fifo"])
@pytest.mark.parametrize("case", sorted(ODD))
def test_message_goes_through_as_it_is(case: str, kind: str, request: pytest.FixtureRequest) -> None:
    """Body and headers come out byte for byte, whatever the service forbids."""
    broker: SqsHarness = request.getfixturevalue(kind)
    name = broker.fresh()
    broker.create(name)
    with broker.publisher(name) as made:
        assert [one.error for one in made.publish([ODD[case]])] == [None]
    [got] = read(broker.source_url(name))
    assert (got.message.body, dict(got.message.headers)) == (ODD[case].body, dict(ODD[case].headers))


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (Message(b"x" * (MIB + 1)), TooLargeError),
        (Message(b"x" * MIB, key="k"), TooLargeError),
        (Message("é".encode() * (MIB // 2) + b"x"), TooLargeError),
        (Message(b"x", headers={"a": "\ud800"}), InvalidMessageError),
    ],
    ids=["one byte over", "the key over", "over in bytes, not in characters", "a surrogate in a header"],
)
def test_message_that_cannot_be_sent_fails_alone(broker: SqsHarness, message: Message, kind: type[Exception]) -> None:
    """It has its error, nothing of it is sent, and its neighbours go."""
    name = broker.fresh()
    broker.create(name)
    with open_publisher(broker.source_url(name)) as made:
        errors = [one.error for one in made.publish([Message(b"before"), message, Message(b"after")])]
    assert [type(error) for error in errors] == [type(None), kind, type(None)]
    assert {one.message.body for one in read(broker.source_url(name), 2)} == {b"before", b"after"}


def test_limit_is_the_service_s_own(broker: SqsHarness) -> None:
    """A mebibyte is taken by the service, and one byte more is not: the adapter refuses neither more nor less."""
    name = broker.fresh()
    broker.create(name)
    broker._direct.send_message(QueueUrl=broker.direct_url(name), MessageBody="x" * MIB)
    with pytest.raises(broker._direct.exceptions.ClientError):
        broker._direct.send_message(QueueUrl=broker.direct_url(name), MessageBody="x" * (MIB + 1))


def test_batches_are_cut_by_bytes(broker: SqsHarness) -> None:
    """Ten messages of 200 kB go in two calls, since a call takes a mebibyte."""
    name = broker.fresh()
    broker.create(name)
    with open_publisher(broker.source_url(name)) as made:
        before = len(broker._gate.calls)
        assert [one.error for one in made.publish([Message(b"%d" % n + b"x" * 200_000) for n in range(10)])] == [
            None
        ] * 10
        assert broker._gate.calls[before:].count("SendMessageBatch") == 2
    assert len(read(broker.source_url(name), 10)) == 10


def test_backlog_says_how_old_what_is_held_is(broker: SqsHarness) -> None:
    """With one message held and others waiting, the age is that of the one held; with none held there is none."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, Message(b"0"), Message(b"1"), Message(b"2"))
    with open_subscriber(broker.source_url(name)) as adapter:
        before = adapter.backlog()
        while not adapter.receive(1, max_bytes=MIB, timeout=1.0):
            pass
        after = adapter.backlog()
    assert before is not None
    assert after is not None
    assert (before.waiting, before.oldest_age, after.waiting) == (3, None, 2)
    assert after.oldest_age is not None


def test_backlog_counts_what_others_hold(broker: SqsHarness) -> None:
    """It may come again; what we hold ourselves does not wait."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, Message(b"0"), Message(b"1"), Message(b"2"))
    with open_subscriber(broker.source_url(name)) as ours, open_subscriber(broker.source_url(name)) as other:
        receive(other, 2)
        seen = [one.backlog() for one in (ours, other)]
    assert [one.waiting for one in seen if one is not None] == [3, 1]


def test_backlog_counts_what_has_arrived_and_was_not_handed_over(broker: SqsHarness) -> None:
    """A flow that runs until it is idle would end with messages in its hands that it never looked at."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, Message(b"0"), Message(b"1"), Message(b"2"))
    with open_subscriber(broker.source_url(name)) as adapter:
        assert not adapter.receive(10, max_bytes=MIB, timeout=0.0)  # begins a poll, and does not wait for it
        wait_until(lambda: counts(broker, name) == (0, 3), 20, what="the poll's answer on its way")
        seen = [adapter.backlog() for _ in range(50)]
        taken = receive(adapter, 3)
        after = adapter.backlog()
    assert {one.waiting for one in seen if one is not None} == {3}
    assert (len(taken), after is not None and after.waiting) == (3, 0)


def test_fifo_queue_takes_no_message_without_a_key(fifo: SqsFifoHarness) -> None:
    """It is the message's own fault, and nothing is sent."""
    name = fifo.fresh()
    fifo.create(name)
    with open_publisher(fifo.source_url(name)) as made:
        [result] = made.publish([Message(b"x")])
    assert isinstance(result.error, InvalidMessageError)


def test_fifo_queue_takes_an_id_once(fifo: SqsFifoHarness) -> None:
    """The key is the group and the id the deduplication id: what is sent again is confirmed, and there once."""
    name = fifo.fresh()
    fifo.create(name)
    for _ in range(2):
        publish(fifo, name, Message(b"a", key="k", id="i-1"), Message(b"b", key="k", id="i-2"))
    assert counts(fifo, name) == (2, 0)
    assert [(one.message.body, one.key, one.message.id) for one in read(fifo.source_url(name), 2)] == [
        (b"a", "k", "i-1"), (b"b", "k", "i-2"),
    ]  # fmt: skip


def test_text_can_be_read_by_anybody(broker: SqsHarness) -> None:
    """What is text stands in the body as text, and headers are attributes; only other bytes are in base64."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, Message('{"tea": "☕"}'.encode(), headers={"mine": "kept"}), Message(b"\x00"))
    found = broker._direct.receive_message(
        QueueUrl=broker.direct_url(name), MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )["Messages"]
    seen = {
        one["Body"]: {key: value["StringValue"] for key, value in one["MessageAttributes"].items()} for one in found
    }
    assert seen == {'{"tea": "☕"}': {"mine": "kept"}, "AA==": {"ef-encoding": "base64"}}


def test_delayed_message_comes_when_its_delay_is_over(broker: SqsHarness) -> None:
    """It waits at the service, and counts as waiting."""
    name = broker.fresh()
    broker.create(name)
    began = time.monotonic()
    publish(broker, name, Message(b"later", options={"delay": 2}))
    with open_subscriber(broker.source_url(name)) as adapter:
        backlog = adapter.backlog()
        taken = receive(adapter)
        assert [one.delivery.message.body for one in taken] == [b"later"]
    assert (backlog is not None and backlog.waiting, time.monotonic() - began >= 1.9) == (1, True)
