"""What the cases that run a flow stand on: flows whose calls are written down, and runs that cannot hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from eventflows.decorators import publisher, subscriber
from eventflows.flow import Flow
from eventflows.message import Message
from eventflows.policy import RetryPolicy
from eventflows.testing.cases import Cases, Taken, bodies
from eventflows.testing.conditions import Background, wait_until

if TYPE_CHECKING:
    from eventflows.runner import RunResult

QUICK = RetryPolicy(attempts=5, delay=0.05, factor=1, jitter=0)
IDLE = 0.5  # seconds without anything to do after which a case's flow drains


class Calls:
    """What an `apply` was called with, and when; safe from many threads.

    Args:
        work: Done in each call, with the body; what it returns is the result.
    """

    def __init__(self, work: Callable[[bytes], object] | None = None) -> None:
        self._work = work
        self._lock = threading.Lock()
        self.bodies: list[bytes] = []
        """In the order of the calls."""
        self.finished: list[bytes] = []
        """Those whose call returned, in the order of the returns."""
        self.begun: dict[bytes, list[float]] = {}
        """When each body's calls began."""
        self.running = 0
        self.most = 0
        """Calls running at once, at most."""

    def __call__(self, body: bytes) -> object:
        """Note the call, work, note its end."""
        with self._lock:
            self.bodies.append(body)
            self.begun.setdefault(body, []).append(time.monotonic())
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            result = None if self._work is None else self._work(body)
            with self._lock:
                self.finished.append(body)
            return result
        finally:
            with self._lock:
                self.running -= 1

    def count(self, body: bytes) -> int:
        """Say how often one body was seen."""
        with self._lock:
            return self.bodies.count(body)


class FlowCases(Cases):
    """Flows on the broker under test."""

    def flow(
        self,
        calls: Callable[[bytes], object],
        *,
        source: str | None = None,
        destination: str | None = None,
        group: str | None = None,
        options: Mapping[str, object] | None = None,
        key: str | Callable[[Any], str | None] | None = None,
        **settings: Any,  # noqa: ANN401 - the flow's own options
    ) -> Flow[..., Any]:
        """Make a flow of raw bodies, named by the case."""

        def apply(input: bytes) -> object:
            return calls(input)

        return self.connect(
            apply, source=source, destination=destination, group=group, options=options, key=key, **settings
        )

    def connect(
        self,
        apply: Callable[..., object],
        *,
        source: str | None = None,
        destination: str | None = None,
        group: str | None = None,
        options: Mapping[str, object] | None = None,
        key: str | Callable[[Any], str | None] | None = None,
        **settings: Any,  # noqa: ANN401 - the flow's own options
    ) -> Flow[..., Any]:
        """Make a flow of any `apply`, named by the case."""
        url, source_options = self.broker.source(source or self.topic, group, **(options or {}))
        given: dict[str, Any] = {"name": f"conformance-{self.case}", "retry": QUICK}
        given |= {**settings, **source_options}
        flow = subscriber(url, **given)(apply)
        if destination is not None:
            url, destination_options = self.broker.destination(destination)
            flow = publisher(url, key=key, **destination_options)(flow)
        return self.broker.flow(flow)

    def run(self, flow: Flow[..., Any], **how: Any) -> RunResult:  # noqa: ANN401 - the options of run()
        """Run a flow to its end; one that hangs is stopped, and fails the case."""
        how = ({} if how else {"until_idle": IDLE}) | {"signals": False} | how
        running: Background[RunResult] = Background(lambda: flow.run(**how))
        try:
            return running.result(self.broker.patience, f"run({', '.join(how)}) of {flow!r}")
        finally:
            if running.running:
                flow.stop()

    @contextmanager
    def running(self, flow: Flow[..., Any]) -> Iterator[Background[RunResult]]:
        """Run a flow while the body of the `with` goes on, then drain it; gives the run."""
        running: Background[RunResult] = Background(lambda: flow.run(signals=False))
        try:
            yield running
        finally:

            def drained() -> bool:
                # A run that has not begun yet knows of no stop: a body that waits for nothing may be that fast.
                flow.stop()
                return not running.running

            wait_until(drained, self.broker.patience, what=f"the drain of {flow!r}")
        running.result(self.broker.patience)

    def until_finished(self, calls: Calls, count: int, what: str = "the calls") -> None:
        """Wait until so many calls have returned."""
        wait_until(lambda: len(calls.finished) >= count, self.broker.patience, what=f"{what}: {count} returned")

    def left(self, group: str | None = None) -> list[bytes | None]:
        """Read what a flow left in its source, acknowledged by nobody."""
        return self._rest_of(group=group)

    def _rest_of(self, group: str | None = None, topic: str | None = None) -> list[bytes | None]:
        # Closed: one that stays in its group without being asked holds up whoever joins next.
        subscriber = self.opened(group, topic=topic)
        taken = self.rest(subscriber)
        subscriber.close()
        return bodies(taken)

    def arrived(self, topic: str, count: int) -> list[bytes | None]:
        """Read so many messages of a destination, and whatever comes after them."""
        subscriber = self.opened(topic=topic)
        taken: list[Taken] = []
        while len(taken) < count:
            more = self.take(subscriber, 1) + self.receive(subscriber, 1000, 0.1)
            self.acked(subscriber, more)
            taken += more
        return bodies(taken + self.rest(subscriber))

    def keyed(self, keys: int, each: int) -> list[Message]:
        """Make messages of several keys, mixed; bodies are `key:number`."""
        return [Message(b"%d:%d" % (key, number), key=f"key-{key}") for number in range(each) for key in range(keys)]

    def morgue(self) -> tuple[dict[str, Any], Callable[[], list[bytes | None]]]:
        """Give the flow options that make dead letters go somewhere, and a way to read their bodies there."""
        if self.can.dead_letter:

            def native() -> list[bytes | None]:
                return bodies(self.dead_letters(self.keep(self.broker.subscriber(self.topic))))

            return {}, native
        place = self.fresh()
        url, _ = self.broker.destination(place)
        return {"dead_letter": url}, lambda: self._rest_of(topic=place)


def per_key(seen: list[bytes] | list[bytes | None]) -> dict[bytes, list[int]]:
    """Split bodies written as `key:number` by their key, in order."""
    found: dict[bytes, list[int]] = {}
    for body in seen:
        key, _, number = (body or b"").partition(b":")
        found.setdefault(key, []).append(int(number))
    return found
