"""Dead letters by redrive policy: confirmed there, then deleted here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

from eventflows import CapabilityError, Message, open_subscriber, subscriber
from eventflows.errors import BrokerError, ConnectionFailedError, HaltedError, TooLargeError
from eventflows.policy import RetryPolicy, Settlement, Verdict
from eventflows.testing.cases import PLENTY, Taken
from sqs_harness import SqsFifoHarness, SqsHarness
from sqs_use import counts, publish, read, receive, redriven

pytestmark = pytest.mark.broker

ONCE = RetryPolicy(attempts=1)
WHY = {
    "ef-reason": "attempts used up", "ef-error-type": "ValueError", "ef-error": "an injected failure",
    "ef-attempts": "2",
}  # fmt: skip


def bury(adapter: Any, taken: Sequence[Taken], **more: str) -> list[type[BrokerError]]:
    """Say DEAD_LETTER; gives the classes of the errors."""
    said = Settlement(verdict=Verdict.DEAD_LETTER, spans=[one.span for one in taken], **{"reason": "no good", **more})
    return [type(one.error) for one in adapter.settle([said], durable=True)]


@pytest.mark.parametrize("kind", ["broker", "fifo"])
def test_dead_letter_goes_to_the_redrive_policy_s_queue(kind: str, request: pytest.FixtureRequest) -> None:
    """Body, headers and key are as they were, the reason beside them; the source is empty."""
    broker: SqsHarness = request.getfixturevalue(kind)
    name, dead = redriven(broker)
    publish(broker, name, Message(b"\x00\xff", headers={"mine": "kept"}, key="k", content_type="image/png"))
    with open_subscriber(broker.source_url(name)) as adapter:
        assert bury(adapter, receive(adapter), detail="at all") == []
        assert adapter.receive(1, max_bytes=PLENTY, timeout=1.0) == []
    [got] = read(broker.source_url(dead))
    headers = got.message.headers
    assert (got.message.body, got.key, got.message.content_type) == (b"\x00\xff", "k", "image/png")
    assert (headers["mine"], headers["ef-reason"], headers["ef-error"]) == ("kept", "no good", "at all")


def test_dead_letters_are_read_by_the_source_s_own_url(broker: SqsHarness) -> None:
    """`?dead-letter` finds the queue by the policy."""
    name, _ = redriven(broker)
    publish(broker, name, Message(b"bad"))
    with open_subscriber(broker.source_url(name)) as adapter:
        bury(adapter, receive(adapter))
    [got] = read(f"{broker.source_url(name)}&dead-letter")
    assert got.message.body == b"bad"


def test_copy_that_is_not_confirmed_leaves_the_message(broker: SqsHarness) -> None:
    """When the dead-letter queue refuses, nothing is deleted, and the next word works."""
    name, dead = redriven(broker)
    publish(broker, name, Message(b"bad"))
    with open_subscriber(broker.source_url(name)) as adapter:
        taken = receive(adapter)
        broker.faults(dead).fail_message(lambda _: True, ConnectionFailedError("injected"))
        [kind] = bury(adapter, taken)
        assert kind is not None
        assert bury(adapter, taken) == []
    assert [one.message.body for one in read(broker.source_url(dead))] == [b"bad"]


def test_copy_is_sent_once_when_only_the_delete_fails(broker: SqsHarness) -> None:
    """The second word deletes, and sends no second copy."""
    name, dead = redriven(broker)
    publish(broker, name, Message(b"bad"))
    with open_subscriber(broker.source_url(name)) as adapter:
        taken = receive(adapter)
        broker.faults(name).refuse_settlement(lambda _: True, ConnectionFailedError("injected"))
        assert len(bury(adapter, taken)) == 1
        assert bury(adapter, taken) == []
    assert [one.message.body for one in read(broker.source_url(dead))] == [b"bad"]
    assert (counts(broker, dead), counts(broker, name)) == ((0, 0), (0, 0))


def test_message_of_an_id_that_is_among_the_dead_has_a_copy_of_its_own(fifo: SqsFifoHarness) -> None:
    """Two messages of one id, the second sent when the first was forgotten, are two dead letters on FIFO, too."""
    name, dead = redriven(fifo)
    fifo._direct.send_message(
        QueueUrl=fifo.direct_url(dead), MessageBody="earlier", MessageGroupId="k", MessageDeduplicationId="i-1"
    )
    publish(fifo, name, Message(b"bad", key="k", id="i-1"))
    with open_subscriber(fifo.source_url(name)) as adapter:
        assert bury(adapter, receive(adapter)) == []
    assert counts(fifo, dead) == (2, 0)


def test_copy_that_is_too_large_gives_up_its_error_first(broker: SqsHarness) -> None:
    """A body near the limit keeps its reason, and loses the error's text."""
    name, dead = redriven(broker)
    body = os.urandom(3 * (1 << 18) - 400)
    publish(broker, name, Message(body))
    with open_subscriber(broker.source_url(name)) as adapter:
        assert bury(adapter, receive(adapter), detail="x" * 1000) == []
    [got] = read(broker.source_url(dead))
    assert (got.message.body == body, got.message.headers["ef-reason"]) == (True, "no good")
    assert "ef-error" not in got.message.headers


def test_copy_that_does_not_fit_at_all_stays_where_it_is(broker: SqsHarness) -> None:
    """A message of exactly the limit cannot be copied with a reason: that is said, and it is not deleted."""
    name, _ = redriven(broker)
    publish(broker, name, Message(b"x" * (1 << 20)))
    with open_subscriber(broker.source_url(name)) as adapter:
        assert bury(adapter, receive(adapter)) == [TooLargeError]
    assert len(read(broker.source_url(name))) == 1


def test_flow_puts_what_fails_there(broker: SqsHarness) -> None:
    """A flow without dead_letter= uses the policy's queue, and says there what it would say in a copy."""
    name, dead = redriven(broker)
    publish(broker, name, Message(b"good"), Message(b"bad"))

    @subscriber(broker.source_url(name), retry=RetryPolicy(attempts=2, delay=0.01))
    def apply(input: bytes) -> None:
        if input == b"bad":
            raise ValueError("an injected failure")

    result = apply.run(limit=2, signals=False)
    assert (result.acked, result.dead_lettered) == (1, 1)
    [got] = read(broker.source_url(dead))
    assert {name: value for name, value in got.message.headers.items() if name in WHY} == WHY
    assert (got.message.headers["ef-flow"], got.message.headers["ef-source"]) == (apply.name, broker.source_url(name))


def test_dead_letter_option_wins_over_the_policy(broker: SqsHarness) -> None:
    """With dead_letter= the copy goes there, and the policy's queue gets nothing."""
    name, dead = redriven(broker)
    other = broker.fresh()
    broker.create(other)
    publish(broker, name, Message(b"bad"))

    @subscriber(broker.source_url(name), retry=ONCE, dead_letter=broker.source_url(other))
    def apply(input: bytes) -> None:
        raise ValueError("an injected failure")

    assert apply.run(limit=1, signals=False).dead_lettered == 1
    assert [one.message.body for one in read(broker.source_url(other))] == [b"bad"]
    assert (counts(broker, dead), counts(broker, name)) == ((0, 0), (0, 0))


@pytest.mark.parametrize(("receives", "warned"), [(4, True), (5, False)])
def test_flow_warns_when_the_service_gives_up_first(
    broker: SqsHarness, caplog: pytest.LogCaptureFixture, receives: int, warned: bool
) -> None:
    """More attempts than maxReceiveCount is worth one line at the start."""
    name, _ = redriven(broker, receives=receives)
    flow = subscriber(broker.source_url(name), retry=RetryPolicy(attempts=5))(lambda input: None)
    flow.run(until_idle=0.1, signals=False)
    assert [f"after {receives} deliveries" in one.getMessage() for one in caplog.records] == [True] * warned


def test_unreadable_policy_counts_as_none(broker: SqsHarness) -> None:
    """Without sqs:GetQueueAttributes the flow halts, the message unmoved, and reading dead letters is refused."""
    name, _ = redriven(broker)
    publish(broker, name, Message(b"bad"))
    broker._gate.on_call.append(lambda queue, action: action != "GetQueueAttributes" or (403, _DENIED))

    @subscriber(broker.source_url(name), retry=ONCE)
    def apply(input: bytes) -> None:
        raise ValueError("an injected failure")

    with pytest.raises(HaltedError):
        apply.run(limit=1, signals=False)
    with pytest.raises(CapabilityError, match="redrive"):
        open_subscriber(f"{broker.source_url(name)}&dead-letter").open()
    broker._gate.on_call.clear()
    assert [one.message.body for one in read(broker.source_url(name))] == [b"bad"]


_DENIED = b'{"__type": "com.amazonaws.sqs#AccessDenied", "message": "not authorized"}'
