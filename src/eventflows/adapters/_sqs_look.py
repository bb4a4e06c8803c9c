"""Looking at a queue: how much waits, what waits, which queues there are."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from eventflows.adapters._sqs_client import client
from eventflows.adapters._sqs_held import Holding
from eventflows.adapters._sqs_place import Place
from eventflows.adapters._sqs_polls import MOST
from eventflows.adapters._sqs_queue import Queue, attributes, bounded
from eventflows.errors import CapabilityError
from eventflows.message import Delivery
from eventflows.protocols import Backlog

LOOK: Final = 20
"""Seconds for which what is looked at stays hidden, at most: it is shown again as soon as it was read."""
_WAITING: Final = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed")
_HIDDEN: Final = "ApproximateNumberOfMessagesNotVisible"


def backlog(queue: Queue, place: str, holding: Holding, timeout: float) -> Backlog | None:
    """Say what waits, what others hold included; None: we may not read it.

    The service does not say how old the oldest is. What is held was sent first, as a rule: its age is given.
    """
    found = attributes(queue, place, timeout)
    if found is None:
        return None
    waiting = sum(int(found.get(name, 0)) for name in _WAITING)
    waiting += max(int(found.get(_HIDDEN, 0)) - holding.handed_over, 0)
    return Backlog(waiting=waiting, oldest_age=holding.oldest_age() if waiting else None)


def peek(queue: Queue, place: str, limit: int, start: str | None, timeout: float) -> list[Delivery]:
    """Receive what waits, give it back, and show it oldest first."""
    fifo = queue.url.endswith(".fifo")
    if start is not None:
        raise CapabilityError(f"{place}: a queue has no positions to begin after; leave start= out.")
    deadline = time.monotonic() + timeout
    natives: list[dict[str, Any]] = []
    try:
        while len(natives) < limit:
            call = functools.partial(_receive, queue, min(MOST, limit - len(natives)))
            more = bounded(call, place, "ReceiveMessage", max(deadline - time.monotonic(), 0.1))
            natives += more
            if not more or time.monotonic() >= deadline:
                break
    finally:
        _show(queue, natives)
    natives.sort(key=lambda native: (int(native["Attributes"].get("SentTimestamp", 0)), _number(native)))
    holding = Holding(place, queue.url, fifo)
    seen = [one for chunk in holding.chunks(holding.arrived(natives, LOOK)) for one in chunk]
    for one in seen:
        one.lease_until = None
    return seen


def _number(native: Mapping[str, Any]) -> tuple[int, str]:
    return int(native["Attributes"].get("SequenceNumber", 0)), str(native["MessageId"])


def _receive(queue: Queue, count: int) -> list[dict[str, Any]]:
    answer = queue.client.receive_message(
        QueueUrl=queue.url,
        MaxNumberOfMessages=count,
        WaitTimeSeconds=1,
        VisibilityTimeout=LOOK,
        MessageSystemAttributeNames=["All"],
        MessageAttributeNames=["All"],
    )
    found: list[dict[str, Any]] = answer.get("Messages", [])
    return found


def _show(queue: Queue, natives: Sequence[dict[str, Any]]) -> None:
    from eventflows.adapters._sqs_settle import Batches

    batches = Batches(queue.client, queue.url, queue.url)
    holding = Holding("", queue.url, fifo=False)
    entries = holding.arrived(natives, LOOK)
    batches.hide([(entry, 0) for entry in reversed(entries)], time.monotonic() + LOOK)
    batches.close()


def entities(place: Place, options: Mapping[str, object]) -> list[str]:
    """List the names of queues."""

    def work() -> list[str]:
        made = client(place, options, connections=1)
        try:
            pages = made.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 1000})
            return sorted(url.rsplit("/", 1)[-1] for page in pages for url in page.get("QueueUrls", ()))
        finally:
            made.close()

    return bounded(work, place.text, "ListQueues", 30.0)
