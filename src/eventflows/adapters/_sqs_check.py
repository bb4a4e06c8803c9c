"""`eventflows check` for a queue: who we are, what we may do, and which line of policy is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from eventflows.adapters._lease_check import of_lease
from eventflows.adapters._sqs_client import client
from eventflows.adapters._sqs_errors import translate
from eventflows.adapters._sqs_place import Place
from eventflows.adapters._sqs_queue import Queue, connect
from eventflows.errors import (
    AuthenticationError,
    EventflowsError,
    PermissionDeniedError,
)
from eventflows.protocols import Finding

TIMEOUT: Final = 15.0
FEW_RECEIVES: Final = 10
"""Fewer are used up by restarts and a failing message's attempts together."""
_NOBODY: Final = "eventflows-check-no-such-receipt"
_SESSION: Final = re.compile(r"(arn:[a-z-]+):sts::(\d{12}):assumed-role/([^/]+)/.+")

Probe = Callable[[Any, str], object]

_SOURCE: Final[Mapping[str, Probe]] = {
    # Each with something that the service refuses once it has let us in: so nothing is taken, hidden or deleted.
    "sqs:ReceiveMessage": lambda made, url: made.receive_message(QueueUrl=url, MaxNumberOfMessages=11),
    "sqs:DeleteMessage": lambda made, url: made.delete_message(QueueUrl=url, ReceiptHandle=_NOBODY),
    "sqs:ChangeMessageVisibility": lambda made, url: made.change_message_visibility(
        QueueUrl=url, ReceiptHandle=_NOBODY, VisibilityTimeout=0
    ),
}
_DESTINATION: Final[Mapping[str, Probe]] = {
    "sqs:SendMessage": lambda made, url: made.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=901),
}


def check_source(place: Place, options: Mapping[str, object], shown: str, visibility: float) -> list[Finding]:
    """Look at a source."""
    findings, queue = _reached(place, options, shown, "dead-letter" in options)
    if queue is None:
        return findings
    try:
        findings += _permissions(queue, place, options, _SOURCE)
        findings.append(of_lease(visibility, "Give visibility="))
        findings += _redrive(queue, options, place)
        findings += _fifo(queue, place)
    finally:
        queue.client.close()
    return findings


def check_destination(place: Place, options: Mapping[str, object], shown: str) -> list[Finding]:
    """Look at a destination."""
    findings, queue = _reached(place, options, shown, dead=False)
    if queue is None:
        return findings
    try:
        findings += _permissions(queue, place, options, _DESTINATION)
        findings += _fifo(queue, place)
    finally:
        queue.client.close()
    return findings


def _reached(place: Place, options: Mapping[str, object], shown: str, dead: bool) -> tuple[list[Finding], Queue | None]:
    role = options.get("role_arn")
    try:
        queue = connect(place, options, timeout=TIMEOUT, dead=dead)
    except (PermissionDeniedError, AuthenticationError) as error:
        if role is not None and "AssumeRole" in str(error):
            fix = (
                f"Allow the caller {_line('sts:AssumeRole', str(role))}, and let the role's trust policy have "
                f"{_trust(_caller(place, options), options)}"
            )
            return [Finding("error", f"sts:AssumeRole of {role}: {error}", fix)], None
        if isinstance(error, PermissionDeniedError):
            arn = f"arn:aws:sqs:{place.region or '*'}:{place.account or '*'}:{place.name}"
            return [Finding("error", str(error), f"Allow {_line('sqs:GetQueueUrl', arn)}")], None
        return [Finding("error", str(error), "Mend what it says, then check again.")], None
    except EventflowsError as error:
        return [Finding("error", str(error), "Mend what it says, then check again.")], None
    findings = [Finding("ok", f"{shown} is {queue.url}")]
    if role is not None:
        findings.append(Finding("ok", f"sts:AssumeRole of {role}"))
    return findings, queue


def _permissions(
    queue: Queue, place: Place, options: Mapping[str, object], probes: Mapping[str, Probe]
) -> list[Finding]:
    arn = _arn(queue, place)
    findings = []
    if queue.attributes is None:
        findings.append(
            Finding("error", "sqs:GetQueueAttributes is denied: redrive policy, limits and backlog are unknown",
                    f"Allow {_line('sqs:GetQueueAttributes', arn)}")
        )  # fmt: skip
    else:
        findings.append(Finding("ok", "sqs:GetQueueAttributes"))
    made = client(place, options, connections=1)
    try:
        for action, probe in probes.items():
            denied = _denied(made, queue.url, probe)
            findings.append(
                Finding("ok", action)
                if denied is None
                else Finding("error", f"{action} is denied: {denied}", f"Allow {_line(action, arn)}")
            )
    finally:
        made.close()
    return findings


def _denied(made: Any, url: str, probe: Probe) -> str | None:  # noqa: ANN401
    try:
        probe(made, url)
    except Exception as error:  # noqa: BLE001 - every other refusal means that we were let in
        ours = translate(error, url)
        if isinstance(ours, (PermissionDeniedError, AuthenticationError)):
            return str(ours)
    return None


def _line(action: str, resource: str) -> str:
    return json.dumps({"Effect": "Allow", "Action": action, "Resource": resource})


def _trust(caller: str, options: Mapping[str, object]) -> str:
    line: dict[str, object] = {"Effect": "Allow", "Principal": {"AWS": caller}, "Action": "sts:AssumeRole"}
    if options.get("external_id") is not None:
        line["Condition"] = {"StringEquals": {"sts:ExternalId": str(options["external_id"])}}
    return json.dumps(line)


def _caller(place: Place, options: Mapping[str, object]) -> str:
    """Say who asks, as a trust policy names it; STS tells everybody."""
    own = {name: value for name, value in options.items() if name != "role_arn"}
    made = client(place, own, connections=1, service="sts")
    try:
        arn = str(made.get_caller_identity()["Arn"])
    except Exception:  # noqa: BLE001 - the statement is of use without it
        return "ARN of the caller"
    finally:
        made.close()
    session = _SESSION.fullmatch(arn)
    return f"{session[1]}:iam::{session[2]}:role/{session[3]}" if session else arn


def _arn(queue: Queue, place: Place) -> str:
    account, name = queue.url.split("/")[-2:]
    return (queue.attributes or {}).get("QueueArn") or f"arn:aws:sqs:{place.region or '*'}:{account}:{name}"


def _redrive(queue: Queue, options: Mapping[str, object], place: Place) -> Sequence[Finding]:
    if "dead-letter" in options or queue.attributes is None:
        return []
    if queue.dead_letter_url is None:
        return [
            Finding(
                "warning",
                "no redrive policy: a message that cannot be handled halts the flow",
                'Set one (RedrivePolicy: {"deadLetterTargetArn": "...", "maxReceiveCount": 10}), or give dead_letter=.',
            )
        ]
    try:
        made = connect(place, options, timeout=TIMEOUT, dead=True)
    except EventflowsError as error:
        text = f"the redrive policy's queue, {queue.dead_letter_url}: {error}"
        return [Finding("error", text, "Make it, or correct the policy.")]
    denied = _denied(made.client, made.url, _DESTINATION["sqs:SendMessage"])
    made.client.close()
    if denied is not None:
        fix = f"Allow {_line('sqs:SendMessage', _arn(made, place))}"
        return [Finding("error", f"sqs:SendMessage to the dead letters is denied: {denied}", fix)]
    count = queue.max_receives or 0
    text = f"dead letters go to {made.url}; the service moves a message itself after {count} receives"
    if count >= FEW_RECEIVES:
        return [Finding("ok", text)]
    fix = f"Each stop, crash and lost lease is a receive, too: set maxReceiveCount to {FEW_RECEIVES} or more."
    return [Finding("warning", text, fix)]


def _fifo(queue: Queue, place: Place) -> Sequence[Finding]:
    if not place.fifo or queue.attributes is None:
        return []
    scope = queue.attributes.get("DeduplicationScope", "queue")
    limit = queue.attributes.get("FifoThroughputLimit", "perQueue")
    if scope == "messageGroup" and limit == "perMessageGroupId":
        return [Finding("ok", "FIFO with high throughput")]
    return [
        Finding(
            "ok",
            f"FIFO; 300 calls a second of each action (deduplication by {scope}, throughput {limit}). For more, set "
            "DeduplicationScope=messageGroup and FifoThroughputLimit=perMessageGroupId.",
        )
    ]
