"""A queue that is connected to: its client, its URL, its attributes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from eventflows.adapters._sqs_client import client
from eventflows.adapters._sqs_errors import translate
from eventflows.adapters._sqs_place import Place, sibling
from eventflows.adapters._sqs_threads import Threads, until
from eventflows.errors import (
    CapabilityError,
    ConnectionFailedError,
    EventflowsError,
    PermissionDeniedError,
)

T = TypeVar("T")

CONNECTIONS: Final = 16
"""Calls at once: polls, settlements and renewals; more connections than this are thrown away after use."""


class Queue:
    """One queue, connected to.

    Args:
        client: Of boto3.
        url: As the service knows it.
        attributes: As GetQueueAttributes gives them; None: we may not read them.
    """

    def __init__(self, client: Any, url: str, attributes: Mapping[str, str] | None) -> None:  # noqa: ANN401
        self.client = client
        self.url = url
        self.attributes = attributes

    @property
    def dead_letter_url(self) -> str | None:
        """Where the redrive policy puts dead letters; None: nowhere, or the policy cannot be read."""
        arn = self._policy.get("deadLetterTargetArn")
        return sibling(self.url, arn) if isinstance(arn, str) and arn.count(":") >= 5 else None

    @property
    def max_receives(self) -> int | None:
        """How often a message is received before the service itself moves it; None: no limit."""
        count = self._policy.get("maxReceiveCount")
        return None if count is None else int(str(count))

    @property
    def _policy(self) -> Mapping[str, object]:
        try:
            policy = json.loads((self.attributes or {}).get("RedrivePolicy", "{}"))
        except ValueError:
            return {}
        return policy if isinstance(policy, dict) else {}

    @property
    def largest(self) -> int | None:
        """Bytes of the largest message; None: we may not read it."""
        size = (self.attributes or {}).get("MaximumMessageSize")
        return None if size is None else int(size)


def connect(place: Place, options: Mapping[str, object], *, timeout: float, dead: bool = False) -> Queue:
    """Make a client, find the queue, read its attributes.

    Args:
        place: The queue.
        options: The adapter's.
        timeout: Seconds, at most.
        dead: Whether to connect to the queue that its redrive policy names.
    """

    def work() -> Queue:
        made = client(place, options, connections=CONNECTIONS)
        try:
            queue = Queue(made, url := _url(made, place), _attributes(made, url))
            if not dead:
                return queue
            if queue.dead_letter_url is None:
                raise CapabilityError(
                    f"{place.text} has no redrive policy that can be read, so it has no dead letters to read. "
                    "Set one, or allow sqs:GetQueueAttributes."
                )
            return Queue(made, queue.dead_letter_url, _attributes(made, queue.dead_letter_url))
        except BaseException:
            made.close()
            raise

    return bounded(work, place.text, "opening it", timeout)


def bounded(work: Callable[[], T], place: str, doing: str, timeout: float) -> T:
    """Make calls on a thread that is left behind when they take too long.

    Raises:
        BrokerError: By its class; `ConnectionFailedError` when there was no answer in time.
    """
    threads = Threads(1, "eventflows sqs call")
    [result] = until([threads.start(lambda: (work(),))], time.monotonic() + timeout)
    threads.close()
    if result is None:
        late = ConnectionFailedError(f"{place}: {doing} was not answered within {timeout:g} s. It is tried again.")
        late.__cause__ = TimeoutError(f"{timeout:g} s")
        raise late
    if isinstance(result, EventflowsError):
        raise result
    if isinstance(result, BaseException):
        raise translate(result, place, doing) from result
    return result[0]


def _url(made: Any, place: Place) -> str:  # noqa: ANN401
    return place.url if place.url is not None else str(made.get_queue_url(QueueName=place.name)["QueueUrl"])


def _attributes(made: Any, url: str) -> Mapping[str, str] | None:  # noqa: ANN401
    try:
        found: dict[str, str] = made.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]).get("Attributes", {})
    except Exception as error:
        ours = translate(error, url.rsplit("/", 1)[-1])
        # Not when it was the role that could not be taken.
        if isinstance(ours, PermissionDeniedError) and getattr(error, "operation_name", "") == "GetQueueAttributes":
            return None
        raise
    return found


def attributes(queue: Queue, place: str, timeout: float) -> Mapping[str, str] | None:
    """Read the attributes as they are now; None: we may not."""
    return bounded(lambda: _attributes(queue.client, queue.url), place, "GetQueueAttributes", timeout)
