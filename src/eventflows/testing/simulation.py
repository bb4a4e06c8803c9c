"""Run a flow in milliseconds, on a broker that plays the real one, in a time of its own."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

import attrs

from eventflows.adapters.local import LocalBroker, forget, local_broker
from eventflows.codec import to_messages
from eventflows.errors import ConfigError, HaltedError
from eventflows.flow import Flow
from eventflows.locate import open_publisher, open_subscriber, parse
from eventflows.message import Delivery, Lane
from eventflows.observe import Observer
from eventflows.protocols import Browsable, Subscriber
from eventflows.runner.plan import Plan
from eventflows.testing.faults import ApplyRaises, Fault, LeasesEnd, PublishFails, Rebalance, Restart
from eventflows.testing.report import Call, Dead, Report
from eventflows.testing.world import Killed, World, WorldRunner, WorldSource

Played = Literal["kafka", "eventhubs", "sqs", "servicebus", "local"]

QUIET: Final = 5.0
"""Seconds without anything to do after which a simulation is over."""
LONGEST_LEASE: Final = 130.0
"""Seconds that are waited for messages to come back that a dead process held: twice the longest lease."""
ALL: Final = 1 << 30
_numbers: Final = itertools.count(1)


def simulate(
    flow: Flow[..., Any],
    messages: Sequence[object],
    *,
    emulate: Played | None = None,
    faults: Sequence[Fault] = (),
    seed: int = 0,
    seconds: float | Callable[[Delivery], float] = 0.001,
    options: Mapping[str, object] | None = None,
    until: float = 86_400.0,
) -> Report:
    """Run a flow on messages until nothing is left to do, and say what became of each.

    The runner is the real one: what it decides on retries, order, leases, dead letters and drain is decided here as
    in production. The brokers are the embedded one, which plays the real one; the time is the simulation's own, so
    delays and leases cost nothing. Everything runs on the caller's thread: one call of `apply` at a time, in an order
    that only the arguments decide, though in the simulation's time several workers are busy at once. `timeout=` and
    `executor="process"` have no effect here.

    Args:
        flow: With a source; its own brokers are neither needed nor touched.
        messages: Values, encoded as results of `apply` are, or `Message`s, with keys where order matters.
        emulate: Which broker the source plays; None: the one of the flow's own source.
        faults: What goes wrong.
        seed: Of everything that is left to chance.
        seconds: How long a call of `apply` takes in the simulation's time, one number or by delivery.
        options: Of the source, beside those that the broker has: `partitions`, `lease`.
        until: Seconds of the simulation's own after which it gives up.

    Returns:
        What happened. `print` it, or let a notebook show it.

    Raises:
        ConfigError: The flow has no source, or a fault names an input that there is not.
        CapabilityError: The broker cannot do what the flow asks: it would be refused at the start in production, too.
        LoadError: `load()` raised.
        SimulationError: It did not end in time.
    """
    simulation = _Simulation(flow, messages, emulate, faults, seed, seconds, options or {}, until)
    try:
        return simulation.run()
    finally:
        simulation.close()


class _Simulation:
    """One simulation: its brokers, its faults, its notes."""

    def __init__(
        self,
        flow: Flow[..., Any],
        messages: Sequence[object],
        emulate: Played | None,
        faults: Sequence[Fault],
        seed: int,
        seconds: float | Callable[[Delivery], float],
        options: Mapping[str, object],
        until: float,
    ) -> None:
        plan = flow.plan()
        self.world = World(until)
        self._faults = faults
        self._seconds = seconds
        self._names: list[str] = []
        self._inputs = [message for value in messages for message in to_messages(value)]
        self._indices: dict[str, int] = {}
        self._check_faults(plan)
        played = emulate or _played(plan.source)
        fifo = played == "sqs" and parse(plan.source).path.endswith(".fifo")
        self.played = "sqs fifo" if fifo else played
        self._options = dict(options)
        self.source, self._source_url = self._broker(played, seed, ".fifo" if fifo else "")
        self.destination = self._broker(_played(plan.destination), seed) if plan.destination else None
        self.letters = self._broker("local", seed) if plan.dead_letter_publisher else None
        self.notes = _Notes(self)
        self._plan = self._planned(plan, seed)
        for fault in self._faults:
            if isinstance(fault, PublishFails) and self.destination is not None:
                self.destination[0].faults.fail_message(lambda _: True, fault.error, times=fault.times)

    def _broker(self, played: str, seed: int, suffix: str = "") -> tuple[LocalBroker, str]:
        name = f"simulated-{next(_numbers)}{suffix}"
        self._names.append(name)
        parts = [] if played == "local" else [f"emulate={played}"]
        if "partitions" in self._options and not self._names[1:]:
            parts.append(f"partitions={self._options.pop('partitions')}")
        url = f"local://{name}" + (f"?{'&'.join(parts)}" if parts else "")
        return local_broker(url, clock=self.world.now, seed=seed), url

    def _planned(self, plan: Plan, seed: int) -> Plan:
        destination, letters = self.destination, self.letters
        return attrs.evolve(
            plan,
            subscriber=self._subscriber,
            publisher=None if destination is None else lambda: open_publisher(destination[1]),
            dead_letter_publisher=None if letters is None else lambda: open_publisher(letters[1]),
            prepare=lambda: self.notes.around(plan.prepare()),
            observers=[*plan.observers, self.notes],
            executor="thread",
            clock=self.world,
            luck=random.Random(seed).random,  # noqa: S311 - a jitter, not a secret
        )

    def _subscriber(self) -> Subscriber:
        return cast("Subscriber", WorldSource(self.world, open_subscriber(self._source_url, **self._options)))

    def _check_faults(self, plan: Plan) -> None:
        for fault in self._faults:
            if isinstance(fault, ApplyRaises) and not 0 <= fault.input < len(self._inputs):
                raise ConfigError(f"{fault!r}: there are {len(self._inputs)} inputs, counted from 0.")
            if isinstance(fault, PublishFails) and plan.destination is None:
                raise ConfigError(f"{fault!r}: the flow has no destination, so nothing is published.")

    def run(self) -> Report:
        """Run to the end, over every restart."""
        self._publish()
        hard = any(isinstance(fault, (LeasesEnd, Rebalance, Restart)) for fault in self._faults)
        while True:
            runner = WorldRunner(self.world, self._plan, until_idle=LONGEST_LEASE if hard else QUIET)
            runner.run_here()
            if not isinstance(runner.error, Killed):
                break
            self._bury()
        if runner.error is not None and not isinstance(runner.error, HaltedError):
            raise runner.error
        return self._report(None if runner.error is None else str(runner.error), runner.result().released)

    def _publish(self) -> None:
        batch = [attrs.evolve(one, id=one.id or f"input-{number}") for number, one in enumerate(self._inputs)]
        self._indices = {one.id or "": number for number, one in enumerate(batch)}
        with open_publisher(self._source_url) as publisher:
            for result in publisher.publish(batch):
                if result.error is not None:
                    raise result.error

    def _bury(self) -> None:
        """Let the broker find the process dead, and start another."""
        self.world.dying = False
        self.world.forget()
        self.notes.restarts += 1
        if self.source.is_log:
            self.source.log.expel("default")
        elif not self.source.emulate:
            self.source.expire()  # the embedded broker finds a dead owner at once, others wait for its leases
        self.world.sleep(1.0)

    def index(self, delivery: Delivery) -> int:
        """Say which input a delivery is."""
        return self._indices[delivery.message.id or ""]

    def strike(self, call: int, current: Sequence[Delivery]) -> None:
        """Do what is to go wrong during a call."""
        for fault in self._faults:
            if isinstance(fault, (LeasesEnd, Rebalance)) and fault.call == call:
                self._end_claims(in_good_order=isinstance(fault, Rebalance))
            elif isinstance(fault, Restart) and fault.call == call:
                self.world.dying = True
        if self.world.dying:
            raise Killed
        for place, fault in enumerate(self._faults):
            if isinstance(fault, ApplyRaises) and fault.input in map(self.index, current):
                done = self.notes.raised.get(place, 0)
                if fault.times is None or done < fault.times:
                    self.notes.raised[place] = done + 1
                    raise fault.error

    def _end_claims(self, *, in_good_order: bool) -> None:
        if not self.source.is_log:
            self.source.expire()
        elif in_good_order:
            self.source.log.revoke("default")
        else:
            self.source.log.expel("default")

    def took(self, current: Sequence[Delivery]) -> None:
        """Count the time of a call."""
        given = self._seconds
        self.world.spent += sum(given(one) for one in current) if callable(given) else given

    def _report(self, halted: str | None, released: int) -> Report:
        notes = self.notes
        source = open_subscriber(self._source_url, **self._options)
        return Report(
            played=self.played,
            inputs=len(self._inputs),
            calls=notes.calls,
            published=[one.message for one in _look(open_subscriber(self.destination[1]))] if self.destination else [],
            dead_lettered=notes.dead,
            left=sorted({self.index(delivery) for delivery in _look(source)}),
            committed={str(p): at for p, at in self.source.log.committed("default").items()}
            if self.source.is_log
            else {},
            retried=notes.retries,
            released=released,
            discarded=notes.discards,
            lost_claims=notes.lost,
            restarts=notes.restarts,
            halted=halted,
            seconds=self.world.now(),
        )

    def close(self) -> None:
        """Forget its brokers."""
        for name in self._names:
            forget(name)


class _Notes(Observer):
    """Writes down what happens, and lets things go wrong around `apply`."""

    def __init__(self, simulation: _Simulation) -> None:
        self._simulation = simulation
        self._current: list[Delivery] = []
        self._count = 0
        self.calls: list[Call] = []
        self.dead: list[Dead] = []
        self.raised: dict[int, int] = {}
        self.retries = self.discards = self.lost = self.restarts = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the function that is called with inputs."""

        def call(*args: object, **kwargs: object) -> object:
            self._count += 1
            self._simulation.took(self._current)
            self._simulation.strike(self._count, self._current)
            return function(*args, **kwargs)

        return call

    def started(self, *, flow: str, delivery: Delivery) -> None:
        """Note which input it is."""
        self._current.append(delivery)

    def finished(self, *, flow: str, delivery: Delivery, seconds: float, error: BaseException | None) -> None:
        """Note how it ended; a dead process ends nothing."""
        self._current = [one for one in self._current if one is not delivery]
        simulation = self._simulation
        if not simulation.world.dying:
            kind = None if error is None else type(error).__name__
            self.calls.append(Call(simulation.index(delivery), delivery.attempt, simulation.world.now(), kind))

    def retried(self, *, flow: str, delivery: Delivery, attempt: int, delay: float, error: BaseException) -> None:
        """Count it."""
        self.retries += 1

    def dead_lettered(
        self, *, flow: str, delivery: Delivery, reason: str, attempts: int, error: BaseException | None, to: str
    ) -> None:
        """Note it."""
        self.dead.append(Dead(self._simulation.index(delivery), reason, to))

    def discarded(self, *, flow: str, delivery: Delivery, count: int, reason: str) -> None:
        """Count them."""
        self.discards += count

    def lease_lost(self, *, flow: str, deliveries: Sequence[Delivery]) -> None:
        """Count them."""
        self.lost += len(deliveries)

    def lane_lost(self, *, flow: str, lane: Lane) -> None:
        """Count it."""
        self.lost += 1


def _played(url: str | None) -> str:
    """Say which broker a URL plays here: its scheme, or what a local one emulates."""
    location = parse(url or "local://x")
    scheme = location.query.get("emulate", "local") if location.scheme == "local" else location.scheme
    if scheme not in ("kafka", "eventhubs", "sqs", "servicebus", "local"):
        raise ConfigError(f"{scheme}:// cannot be played by the embedded broker; say emulate=.")
    return scheme


def _look(subscriber: Subscriber) -> Sequence[Delivery]:
    """Read everything that waits, and take none of it."""
    assert isinstance(subscriber, Browsable)
    return subscriber.peek(ALL, timeout=1.0)
