"""Messages that flow without end: published by one, carried on by a flow, while something is broken."""

from __future__ import annotations

import threading
import uuid
from types import TracebackType
from typing import Self

from eventflows import RetryPolicy, RunResult, publisher, subscriber
from eventflows.errors import BrokerError
from eventflows.flow import Flow
from eventflows.locate import open_publisher
from eventflows.message import Message
from eventflows.protocols import Publisher
from eventflows.testing import wait_until
from eventflows.testing.conditions import Background, pass_time
from kafka_use import CLIENTS, Addressed, committed, ends, everything, fresh_topic

KEYS = 8
BATCH = 20
RESUMES = 90.0
"""Seconds after which work must have begun again by itself."""


class Stream:
    """Numbers, published to one topic, and carried to another by a flow.

    Args:
        server: Where topics are made and looked at.
        place: Host and port that the publisher and the flow are told: the way that is going to be broken.
        client: Of the adapter.
    """

    def __init__(self, server: Addressed, place: str, client: str) -> None:
        self.server = server
        self.source, self.destination = (fresh_topic(server, partitions=4) for _ in range(2))
        self.group = f"stream-{uuid.uuid4().hex[:8]}"
        self.confirmed = 0
        """Numbers below this one are confirmed."""
        self.finished: set[int] = set()
        """Numbers that `apply` was called with."""
        self._options = CLIENTS[client]
        self._place = place
        self._enough = threading.Event()
        self.flow = self._flow()

    def _flow(self) -> Flow[..., object]:
        def apply(input: int) -> int:
            self.finished.add(input)
            return input

        url = f"kafka://{self._place}/{self.source}"
        options = {"group": self.group, "session_timeout": 10, **self._options}
        passing = publisher(f"kafka://{self._place}/{self.destination}", **self._options)(apply)
        return subscriber(url, name="stream", retry=RetryPolicy(attempts=1000), **options)(passing)

    def __enter__(self) -> Self:
        """Start both, and wait until messages flow."""
        self._publishing: Background[None] = Background(self._publish)
        self._running: Background[RunResult] = Background(lambda: self.flow.run(signals=False))
        self.flows("the first messages")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both, if they still run."""
        self._enough.set()
        self.flow.stop()
        wait_until(lambda: not self._running.running and not self._publishing.running, 60, what="the end of both")

    def _publish(self) -> None:
        number = 0
        with open_publisher(f"kafka://{self._place}/{self.source}", **self._options) as out:
            while not self._enough.is_set():
                left = [Message(b"%d" % n, key=f"k{n % KEYS}") for n in range(number, number + BATCH)]
                while left:
                    left = self._left(out, left)
                number += BATCH
                self.confirmed = number
                pass_time(0.01)

    def _left(self, out: Publisher, left: list[Message]) -> list[Message]:
        """Publish, and give what must be sent again: what failed, and all behind it, so that keys keep their order."""
        try:
            errors = [one.error for one in out.publish(left, timeout=15.0)]
        except BrokerError as error:
            errors = [error]
        failed = next((place for place, error in enumerate(errors) if error is not None), None)
        if failed is None:
            return []
        error = errors[failed]
        assert error is not None
        assert error.retryable, error
        pass_time(0.1)
        return left[failed:]

    def flows(self, what: str = "messages") -> None:
        """Wait until numbers that are published from now on come through."""
        self._alive()
        before = self.confirmed

        def through() -> bool:
            self._alive()
            return self.confirmed > before + 5 * BATCH and before + BATCH in self.finished

        wait_until(through, RESUMES, what=f"{what} come through")

    def _alive(self) -> None:
        self._alive_flow()
        if not self._publishing.running:
            self._publishing.result(0.1, "a publisher that ended by itself")

    def _alive_flow(self) -> None:
        if not self._running.running:
            self._running.result(0.1, "a flow that ended by itself")
            raise AssertionError("the flow ended by itself")

    def holds(self) -> None:
        """End it, and check that nothing acknowledged was lost, nothing confirmed is missing, and keys kept order."""
        self._enough.set()
        self._publishing.result(RESUMES, "the publisher")
        wait_until(lambda: self.finished >= set(range(self.confirmed)), RESUMES, what="all that was confirmed")
        wait_until(self._settled, RESUMES, what="every position at its end", every=0.5)
        self.flow.stop()
        self._running.result(RESUMES, "the flow")
        arrived = [int(body) for _, body in everything(self.server, self.destination)]
        assert sorted(set(arrived)) == list(range(self.confirmed))
        assert overtaken(arrived) == []

    def _settled(self) -> bool:
        self._alive_flow()
        return committed(self.server, self.group) == ends(self.server, self.source)


def overtaken(numbers: list[int]) -> list[int]:
    """Give the numbers that came, for the first time, before one below them of their key."""
    seen: set[int] = set()
    early = []
    for number in numbers:
        if number >= KEYS and number not in seen and number - KEYS not in seen:
            early.append(number)
        seen.add(number)
    return early
