"""What the cases of both suites stand on: open, publish, take, settle, skip."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

import attrs
import pytest

from eventflows.errors import CapabilityError
from eventflows.message import Chunk, Delivery, Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Capabilities, DeadLettered, Publisher, SettleFailure, Subscriber
from eventflows.testing.conditions import Background
from eventflows.testing.harness import Harness

PLENTY = 64 * 1024 * 1024  # bytes: more than any case receives at once
START = 30.0  # seconds until another process has begun: none of it is the adapter's


@attrs.frozen
class Taken:
    """One delivery, with the place in its chunk that settling it needs."""

    chunk: Chunk
    index: int

    @property
    def delivery(self) -> Delivery:
        """The delivery itself."""
        return self.chunk[self.index]

    @property
    def body(self) -> bytes | None:
        """The body."""
        return self.chunk.bodies[self.index]

    @property
    def span(self) -> tuple[Chunk, slice]:
        """The stretch of one that a settlement names."""
        return self.chunk, slice(self.index, self.index + 1)


def spread(chunks: Sequence[Chunk]) -> list[Taken]:
    """Give every delivery of some chunks, in order."""
    return [Taken(chunk, index) for chunk in chunks for index in range(len(chunk))]


def bodies(taken: Sequence[Taken]) -> list[bytes | None]:
    """Give the bodies, in order."""
    return [one.body for one in taken]


def numbered(count: int, *, key: str | None = None, start: int = 0) -> list[Message]:
    """Make messages whose bodies are numbers, in order."""
    return [Message(b"%d" % number, key=key) for number in range(start, start + count)]


class Cases:
    """The ground of a suite. One harness and one fresh topic for each test, closed behind it."""

    harness: ClassVar[type[Harness]] = Harness
    """The broker under test."""
    prefix: ClassVar[str] = "c"
    """What the case numbers begin with in the names of the methods."""

    broker: Harness
    topic: str
    case: str

    def setup_method(self, method: Callable[..., object]) -> None:
        """Make the harness and a fresh topic."""
        found = re.match(rf"test_{self.prefix}(\d+)_", method.__name__)
        self.case = f"{self.prefix.upper()}{found[1]}" if found else method.__name__
        self._exit = contextlib.ExitStack()
        self.broker = self.harness()
        self._exit.callback(self.broker.close)
        self.topic = self.fresh()

    def teardown_method(self, method: Callable[..., object]) -> None:
        """Close what the test opened, and let go of it: pytest keeps the test until all have run."""
        try:
            self._exit.close()
        finally:
            self.__dict__.clear()

    # Skips, capabilities, faults.

    def skip(self, why: str) -> NoReturn:
        """Skip this case, or fail where the harness does not allow that.

        Args:
            why: What the broker or its harness lacks, to be read after its name.
        """
        allowed = self.broker.allowed_skips
        if allowed is not None and self.case not in allowed:
            pytest.fail(f"{self.case} may not be skipped: {self.broker.name} {why}")
        pytest.skip(f"{self.broker.name} {why if allowed is None else allowed[self.case]}")

    @property
    def can(self) -> Capabilities:
        """What the broker claims."""
        return self.broker.capabilities

    def fault(self, name: str, topic: str | None = None) -> Callable[..., None]:
        """Give one of the harness's faults, or skip."""
        found = getattr(self.broker.faults(topic or self.topic), name, None)
        if found is None:
            self.skip(f"cannot be made to {name.replace('_', ' ')} by its harness")
        call: Callable[..., None] = found
        return call

    def refuses(self, verdict: Verdict, **more: Any) -> None:  # noqa: ANN401 - fields of a Settlement
        """Check that a verdict outside the capabilities raises, and leaves the message settleable."""
        self.publish(b"refused")
        subscriber = self.opened()
        taken = self.take(subscriber, 1)
        with pytest.raises(CapabilityError):
            subscriber.settle([Settlement(verdict=verdict, spans=[taken[0].span], **more)])
        assert not self.ack(subscriber, taken), "the refused verdict settled the message"

    # Opening.

    def fresh(self) -> str:
        """Make a topic or queue that nobody has used."""
        name = self.broker.fresh()
        self.broker.create(name)
        return name

    def keep(self, adapter: Any) -> Any:  # noqa: ANN401 - anything with a close
        """Close an adapter after the test, whatever state it is in."""

        def close() -> None:
            with contextlib.suppress(Exception):  # the case has passed its verdict; this only cleans up
                adapter.close(timeout=5)

        self._exit.callback(close)
        return adapter

    def opened(
        self, group: str | None = None, *, topic: str | None = None, options: Mapping[str, object] | None = None
    ) -> Subscriber:
        """Open a subscriber."""
        subscriber: Subscriber = self.keep(self.broker.subscriber(topic or self.topic, group, **(options or {})))
        subscriber.open(timeout=self.broker.patience)
        return subscriber

    def opened_publisher(self, topic: str | None = None) -> Publisher:
        """Open a publisher."""
        publisher: Publisher = self.keep(self.broker.publisher(topic or self.topic))
        publisher.open(timeout=self.broker.patience)
        return publisher

    # Doing.

    def publish(self, *messages: Message | bytes, topic: str | None = None) -> None:
        """Publish, every message confirmed."""
        publisher = self.opened_publisher(topic)
        batch = [Message(one) if isinstance(one, bytes) else one for one in messages]
        results = publisher.publish(batch, timeout=self.broker.patience)
        assert [one.error for one in results] == [None] * len(batch)
        publisher.close()

    def receive(self, subscriber: Subscriber, limit: int, timeout: float) -> list[Taken]:
        """Receive once."""
        return spread(subscriber.receive(limit, max_bytes=PLENTY, timeout=timeout))

    def take(self, subscriber: Subscriber, count: int) -> list[Taken]:
        """Receive until so many messages are there, and no more than that."""
        taken: list[Taken] = []
        deadline = time.monotonic() + self.broker.patience
        while len(taken) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                pytest.fail(f"{len(taken)} of {count} messages within {self.broker.patience:g} s")
            taken += self.receive(subscriber, min(count - len(taken), 1000), min(left, 1.0))
        return taken

    def rest(self, subscriber: Subscriber) -> list[Taken]:
        """Receive until nothing more comes: silence counts from when the subscriber is ready, and a log says the same.

        A member of a group may get its lanes late, and the one before it may hold them for a while, so silence alone
        says little there.
        """
        taken: list[Taken] = []
        deadline = time.monotonic() + self.broker.patience
        while True:
            ready = subscriber.ready
            more = self.receive(subscriber, 1000, self.broker.quiet)
            taken += more
            waiting = 0 if more or not ready else self._waiting(subscriber)
            if ready and not more and not waiting:
                return taken
            if not more and time.monotonic() >= deadline:
                pytest.fail(f"after {self.broker.patience:g} s: ready: {subscriber.ready}, {waiting} said to wait")

    def _waiting(self, subscriber: Subscriber) -> int:
        """Ask a log what it has for us; queues count too roughly, and what others hold."""
        backlog = subscriber.backlog(timeout=self.broker.patience) if self.can.settle == "watermark" else None
        return (backlog.waiting or 0) if backlog is not None else 0

    def nothing(self, subscriber: Subscriber) -> None:
        """Check that nothing comes."""
        assert bodies(self.rest(subscriber)) == [], "a message that must not come"

    def settle(
        self,
        subscriber: Subscriber,
        verdict: Verdict,
        taken: Sequence[Taken],
        **more: Any,  # noqa: ANN401
    ) -> Sequence[SettleFailure]:
        """Settle, confirmed by the broker; gives the failures."""
        settlement = Settlement(verdict=verdict, spans=[one.span for one in taken], **more)
        return subscriber.settle([settlement], durable=True, timeout=self.broker.patience)

    def ack(self, subscriber: Subscriber, taken: Sequence[Taken]) -> Sequence[SettleFailure]:
        """Acknowledge, confirmed by the broker; gives the failures."""
        return self.settle(subscriber, Verdict.ACK, taken)

    def acked(self, subscriber: Subscriber, taken: Sequence[Taken]) -> None:
        """Acknowledge, and check that every message was."""
        assert [str(one.error) for one in self.ack(subscriber, taken)] == []

    def dead_letters(self, subscriber: Subscriber) -> list[Taken]:
        """Read and acknowledge everything in the broker's own dead-letter place."""
        assert isinstance(subscriber, DeadLettered), "dead_letter is claimed, but there is no dead_letters()"
        dead: Subscriber = self.keep(subscriber.dead_letters())
        dead.open(timeout=self.broker.patience)
        taken = self.rest(dead)
        self.acked(dead, taken)
        return taken

    def returns(self, seconds: float, call: Callable[[], object], what: str) -> None:
        """Check that a call comes back within its time-out; what it gives or raises does not matter."""
        background = Background(call)
        with contextlib.suppress(Exception):  # an error in time is an answer
            background.result(seconds + self.broker.slack, what)
        assert not background.running, f"{what}: still not back after {seconds:g} s and {self.broker.slack:g} s slack"

    def elsewhere(self, program: str, url: str, options: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
        """Run a program in another process, with `URL` and `OPTIONS` as its variables."""
        head = f"import json\nURL = {url!r}\nOPTIONS = json.loads({json.dumps(dict(options))!r})\n"
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", head + program],
            capture_output=True, text=True, timeout=START + self.broker.patience, check=False,
        )  # fmt: skip
