"""`check`: what is allowed, what is not, and the line of policy to add."""

from __future__ import annotations

import json

import pytest

from eventflows import Message, open_publisher, open_subscriber
from eventflows.protocols import Checkable, Finding
from servers.elasticmq import ACCOUNT, REGION
from servers.gate import refusal
from sqs_harness import SqsFifoHarness, SqsHarness
from sqs_use import publish, read, redriven

pytestmark = pytest.mark.broker

ACTIONS = ("GetQueueAttributes", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility")


def queue(broker: SqsHarness) -> str:
    """Make a queue; gives its URL."""
    name = broker.fresh()
    broker.create(name)
    return broker.source_url(name)


def check(adapter: object) -> list[Finding]:
    """Check it."""
    assert isinstance(adapter, Checkable)
    return list(adapter.check())


def test_check_finds_nothing_wrong_with_a_good_queue(broker: SqsHarness) -> None:
    """Each permission is named; only the missing redrive policy is worth a warning."""
    findings = check(open_subscriber(queue(broker), visibility=60))
    texts = [one.text for one in findings]
    assert [one.level for one in findings if one.level != "ok"] == ["warning"]
    assert all(f"sqs:{action}" in texts for action in ACTIONS)


@pytest.mark.parametrize("action", ACTIONS)
def test_check_gives_the_line_for_what_is_denied(broker: SqsHarness, action: str) -> None:
    """A denied action is an error with the statement to add."""
    url = queue(broker)
    broker._gate.on_call.append(lambda _, called: called != action or refusal("AccessDenied", "no", 403))
    [found] = [one for one in check(open_subscriber(url)) if one.level == "error"]
    line = json.loads(found.fix.removeprefix("Allow "))
    assert (line["Effect"], line["Action"]) == ("Allow", f"sqs:{action}")
    assert line["Resource"].startswith("arn:aws:sqs:eu-west-1:000000000000:")


def test_check_takes_nothing(broker: SqsHarness) -> None:
    """What waits is still there, as its first delivery."""
    name = broker.fresh()
    broker.create(name)
    publish(broker, name, Message(b"x"))
    check(open_subscriber(broker.source_url(name)))
    check(open_publisher(broker.source_url(name)))
    assert [one.attempt for one in read(broker.source_url(name))] == [1]


def test_check_of_a_destination_names_send_message(broker: SqsHarness) -> None:
    """Publishing needs one action."""
    url = queue(broker)
    broker._gate.on_call.append(lambda _, called: called != "SendMessage" or refusal("AccessDenied", "no", 403))
    [found] = [one for one in check(open_publisher(url)) if one.level == "error"]
    assert '"sqs:SendMessage"' in found.fix


def test_check_names_a_queue_that_is_missing(broker: SqsHarness) -> None:
    """One error, and no more questions."""
    [found] = check(open_subscriber(broker.missing_url("source")))
    assert (found.level, "nobody-made-this" in found.text) == ("error", True)


def test_check_warns_of_a_short_lease(broker: SqsHarness) -> None:
    """A lease that a slow settlement could outlast is a warning."""
    findings = check(open_subscriber(queue(broker), visibility=5))
    assert [one.level for one in findings if "lease" in one.text] == ["warning"]


@pytest.mark.parametrize(("receives", "level"), [(3, "warning"), (10, "ok")])
def test_check_looks_at_the_redrive_policy(broker: SqsHarness, receives: int, level: str) -> None:
    """It says where dead letters go; a maxReceiveCount that restarts alone use up is a warning."""
    name, dead = redriven(broker, receives)
    [found] = [one for one in check(open_subscriber(broker.source_url(name))) if "dead letters go to" in one.text]
    assert (found.level, dead in found.text) == (level, True)


def test_check_says_that_dead_letters_cannot_be_sent(broker: SqsHarness) -> None:
    """The copy is sent by us, so it needs a permission of its own."""
    name, dead = redriven(broker)
    broker._gate.on_call.append(
        lambda queue, called: (queue, called) != (dead, "SendMessage") or refusal("AccessDenied", "no", 403)
    )
    [found] = [one for one in check(open_subscriber(broker.source_url(name))) if one.level == "error"]
    line = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{dead}"}
    assert json.loads(found.fix.removeprefix("Allow ")) == line


def test_check_says_that_the_dead_letters_queue_is_gone(broker: SqsHarness) -> None:
    """A policy that names a queue which is not there loses nothing, but halts the flow."""
    name, dead = redriven(broker)
    broker._direct.delete_queue(QueueUrl=broker.direct_url(dead))
    broker._made.remove(dead)
    [found] = [one for one in check(open_subscriber(broker.source_url(name))) if one.level == "error"]
    assert (dead in found.text, "correct the policy" in found.fix) == (True, True)


def test_check_gives_the_line_for_finding_a_queue_by_its_name(broker: SqsHarness) -> None:
    """The form without an account asks for a permission of its own."""
    broker._gate.on_call.append(lambda _, called: called != "GetQueueUrl" or refusal("AccessDenied", "no", 403))
    [found] = check(open_subscriber(f"sqs://{REGION}/orders?endpoint={broker._gate.endpoint}"))
    line = json.loads(found.fix.removeprefix("Allow "))
    assert (found.level, line["Action"], line["Resource"]) == (
        "error", "sqs:GetQueueUrl", f"arn:aws:sqs:{REGION}:*:orders",
    )  # fmt: skip


def test_check_says_what_fifo_can_do(fifo: SqsFifoHarness) -> None:
    """The limit of an ordinary FIFO queue is said."""
    assert [one for one in check(open_subscriber(queue(fifo))) if "300 calls" in one.text]
