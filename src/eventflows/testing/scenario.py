"""Scenarios: a flow's work and what goes wrong with it, written once, for the simulation and for real brokers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows.codec import to_messages
from eventflows.decorators import publisher, subscriber
from eventflows.errors import ConfigError, HaltedError
from eventflows.flow import Flow
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Delivery, Message
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy, Settlement, Verdict
from eventflows.testing.faults import ApplyRaises, Fault, LeasesEnd, PublishFails, Rebalance, Restart
from eventflows.testing.harness import Faults, Harness
from eventflows.testing.report import Call, Dead, Report
from eventflows.testing.simulation import Played, simulate

PLENTY: Final = 64 * 1024 * 1024
LONGEST_READ: Final = 60.0
"""Seconds for reading what was published."""


@attrs.frozen(kw_only=True)
class Scenario:
    """What a flow is given, what it does, and what goes wrong."""

    name: str
    """A sentence: what it is about."""
    apply: Callable[[Any], object]
    messages: Sequence[object]
    """Values, or `Message`s, with keys where order matters."""
    faults: Sequence[Fault] = ()
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    """Of `@subscriber`: `retry`, `order`, `workers`, ...; `dead_letter` where a broker has no place of its own."""

    def flow(
        self,
        source: str,
        destination: str,
        source_options: Mapping[str, object] | None = None,
        destination_options: Mapping[str, object] | None = None,
        **more: Any,  # noqa: ANN401 - options of @subscriber
    ) -> Flow[..., Any]:
        """Make the flow of this scenario on brokers."""
        given = {"name": "scenario", **self.settings, **(source_options or {}), **more}
        to: dict[str, Any] = dict(destination_options or {})
        return publisher(destination, **to)(subscriber(source, **given)(self.apply))

    def simulate(self, emulate: Played, *, seed: int = 0, source: str = "local://in") -> Report:
        """Run it in a simulation.

        Args:
            emulate: Which broker the source plays.
            seed: Of everything that is left to chance.
            source: Its URL; with `emulate="sqs"`, a name that ends in `.fifo` is a FIFO queue.
        """
        flow = self.flow(source, "local://out")
        return simulate(flow, self.messages, emulate=emulate, faults=self.faults, seed=seed)

    def run(
        self,
        source: str,
        destination: str,
        *,
        inputs: str | None = None,
        outputs: str | None = None,
        source_options: Mapping[str, object] | None = None,
        destination_options: Mapping[str, object] | None = None,
        outputs_options: Mapping[str, object] | None = None,
        source_faults: Faults | None = None,
        destination_faults: Faults | None = None,
        idle: float = 2.0,
        **more: Any,  # noqa: ANN401 - options of @subscriber
    ) -> Report:
        """Run it on real brokers, in real time. Topics or queues must be there, and empty.

        A restart is a stop and another start here: killing the process would end the test. Faults of the broker's own
        (`LeasesEnd`, `PublishFails`) cannot be brought about through its URL: without `source_faults` and
        `destination_faults` they are refused, and so is a `Rebalance` always.

        Args:
            source: To read from.
            destination: To publish to.
            inputs: Where the messages are published, so that the source has them; None: to the source's URL.
            outputs: Where the destination is read; None: from the destination's URL.
            source_options: Of source and inputs' reader.
            destination_options: Of everything that publishes.
            outputs_options: Of what reads the destination.
            source_faults: What a harness can break at the source.
            destination_faults: What a harness can break at the destination.
            idle: Seconds without anything to do after which it is over.
            more: Of `@subscriber`, beside the scenario's own settings.

        Raises:
            ConfigError: It has a fault that cannot be brought about here.
            EventflowsError: What `run()` of a flow raises; a halt excepted, which the report names.
        """
        expire = self._prepare(source, source_faults, destination_faults)
        given = dict(destination_options or {})
        batch = [message for value in self.messages for message in to_messages(value)]
        batch = [attrs.evolve(one, id=one.id or f"input-{number}") for number, one in enumerate(batch)]
        with open_publisher(inputs or source, **given) as sender:
            for result in sender.publish(batch):
                if result.error is not None:
                    raise result.error
        attempt = _Attempt(self, [one.id or "" for one in batch], expire)
        flow = attrs.evolve(self, apply=attempt.around(self.apply)).flow(
            source, destination, source_options, given, observers=[attempt], **more
        )
        halted = attempt.run(flow, idle)
        published = _drained(outputs or destination, dict(outputs_options or {}), min(idle, 0.5))
        return attempt.report(source, published, halted)

    def run_on(self, harness: Harness, *, idle: float | None = None) -> Report:
        """Run it on the broker of a harness, on a topic or queue of its own, its faults brought about there.

        Args:
            harness: Of an adapter under test.
            idle: Seconds without anything to do after which it is over; None: its `quiet`.

        Raises:
            ConfigError: It has a fault that this harness cannot bring about.
            EventflowsError: What `run()` of a flow raises; a halt excepted, which the report names.
        """
        came, went = harness.fresh(), harness.fresh()
        harness.create(came)
        harness.create(went)
        source, source_options = harness.source(came)
        destination, destination_options = harness.destination(went)
        outputs, outputs_options = harness.source(went)
        return self.run(
            source,
            destination,
            inputs=harness.destination(came)[0],
            outputs=outputs,
            source_options=source_options,
            destination_options=destination_options,
            outputs_options=outputs_options,
            source_faults=harness.faults(came),
            destination_faults=harness.faults(went),
            idle=harness.quiet if idle is None else idle,
        )

    def _prepare(
        self, source: str, source_faults: Faults | None, destination_faults: Faults | None
    ) -> Callable[[], None] | None:
        """Find a way to bring each fault about; gives how leases are ended."""
        expire: Callable[[], None] | None = getattr(source_faults, "expire_leases", None)
        refuse = getattr(destination_faults, "fail_message", None)
        for fault in self.faults:
            ways = {LeasesEnd: expire, PublishFails: refuse, Rebalance: None}
            if ways.get(type(fault), True) is None:
                raise ConfigError(
                    f"scenario {self.name!r}: {fault!r} cannot be brought about on {source}; simulate it."
                )
            if isinstance(fault, PublishFails) and refuse is not None:
                refuse(lambda _: True, fault.error, times=fault.times)
        return expire


class _Attempt(Observer):
    """One run of a scenario in real time; safe from many workers."""

    def __init__(self, scenario: Scenario, ids: Sequence[str], expire: Callable[[], None] | None) -> None:
        self._scenario = scenario
        self._expire = expire
        self._indices = {id: number for number, id in enumerate(ids)}
        self._local = threading.local()
        self._lock = threading.Lock()
        self._count = 0
        self._raised: dict[int, int] = {}
        self._stop: Callable[[], None] = lambda: None
        self._again = False
        self._calls: list[Call] = []
        self._dead: list[Dead] = []
        self._retries = self._restarts = 0

    def around(self, function: Callable[[Any], object]) -> Callable[[Any], object]:
        """Wrap `apply`, signature and annotations kept."""

        def apply(input: object) -> object:
            self._strike()
            return function(input)

        apply.__annotations__ = dict(getattr(function, "__annotations__", {}))
        return apply

    def _strike(self) -> None:
        with self._lock:
            self._count += 1
            for place, fault in enumerate(self._scenario.faults):
                if isinstance(fault, Restart) and fault.call == self._count:
                    self._again = True
                    self._stop()
                elif isinstance(fault, LeasesEnd) and fault.call == self._count and self._expire is not None:
                    self._expire()
                elif isinstance(fault, ApplyRaises) and fault.input == self._local.index:
                    done = self._raised.get(place, 0)
                    if fault.times is None or done < fault.times:
                        self._raised[place] = done + 1
                        raise fault.error

    def run(self, flow: Flow[..., Any], idle: float) -> str | None:
        """Run until nothing is left, over every restart; gives why it halted."""
        self._stop = flow.stop
        while True:
            try:
                flow.run(until_idle=idle, signals=False)
            except HaltedError as error:
                return str(error)
            if not self._again:
                return None
            self._again = False
            self._restarts += 1

    def report(self, source: str, published: Sequence[Message], halted: str | None) -> Report:
        """Say what happened."""
        return Report(
            played=source,
            inputs=len(self._indices),
            calls=self._calls,
            published=published,
            dead_lettered=self._dead,
            left=(),
            retried=self._retries,
            restarts=self._restarts,
            halted=halted,
        )

    def started(self, *, flow: str, delivery: Delivery) -> None:
        """Note which input this thread is on."""
        self._local.index = self._indices[delivery.message.id or ""]

    def finished(self, *, flow: str, delivery: Delivery, seconds: float, error: BaseException | None) -> None:
        """Note how it ended."""
        kind = None if error is None else type(error).__name__
        with self._lock:
            self._calls.append(Call(self._indices[delivery.message.id or ""], delivery.attempt, 0.0, kind))

    def retried(self, *, flow: str, delivery: Delivery, attempt: int, delay: float, error: BaseException) -> None:
        """Count it."""
        self._retries += 1

    def dead_lettered(
        self, *, flow: str, delivery: Delivery, reason: str, attempts: int, error: BaseException | None, to: str
    ) -> None:
        """Note it."""
        self._dead.append(Dead(self._indices[delivery.message.id or ""], reason, to))


def _drained(url: str, options: Mapping[str, object], quiet: float) -> list[Message]:
    """Read and acknowledge everything, until nothing comes and the broker knows of nothing."""
    found: list[Message] = []
    deadline = time.monotonic() + LONGEST_READ
    with open_subscriber(url, **options) as reader:
        while time.monotonic() < deadline:
            chunks = reader.receive(1000, max_bytes=PLENTY, timeout=quiet)
            found += [delivery.message for chunk in chunks for delivery in chunk]
            if chunks:
                reader.settle([Settlement(verdict=Verdict.ACK, spans=[(one, slice(0, len(one))) for one in chunks])])
                continue
            backlog = reader.backlog() if reader.ready else None
            if reader.ready and not (backlog is not None and backlog.waiting):
                break
    return found


def _double(input: int) -> int:
    return 2 * input


def _keyed(keys: int, each: int) -> list[Message]:
    return [Message(b"%d" % (number * keys + key), key=f"key-{key}") for number in range(each) for key in range(keys)]


_QUICK: Final = RetryPolicy(attempts=3, delay=0.05, jitter=0)

SCENARIOS: Final = (
    Scenario(name="everything goes well", apply=_double, messages=_keyed(5, 8)),
    Scenario(
        name="one message fails twice, and is done at the third attempt",
        apply=_double,
        messages=_keyed(3, 5),
        faults=[ApplyRaises(4, times=2)],
        settings={"retry": _QUICK},
    ),
    Scenario(
        name="one message always fails, and is dropped; those behind it are done",
        apply=_double,
        messages=_keyed(3, 5),
        faults=[ApplyRaises(4, times=None)],
        settings={"retry": _QUICK, "dead_letter": "drop"},
    ),
    Scenario(
        name="one message always fails, and halts the flow",
        apply=_double,
        messages=[Message(b"1", key="one")],
        faults=[ApplyRaises(0, times=None)],
        settings={"retry": _QUICK, "dead_letter": "halt"},
    ),
    Scenario(
        name="a process is restarted in the middle",
        apply=_double,
        messages=_keyed(5, 8),
        faults=[Restart(17)],
        settings={"retry": _QUICK},
    ),
)
"""For every adapter: what they come to on a real broker is what they come to in the simulation of it."""

FAULTY_SCENARIOS: Final = (
    Scenario(
        name="all leases end in the middle",
        apply=_double,
        messages=_keyed(5, 4),
        faults=[LeasesEnd(7)],
        settings={"retry": RetryPolicy(attempts=20, delay=0.05, jitter=0)},
    ),
    Scenario(
        name="outputs are refused for a while",
        apply=_double,
        messages=_keyed(5, 4),
        faults=[PublishFails(3)],
        settings={"retry": _QUICK},
    ),
)
"""The same, where a harness can break its broker."""
