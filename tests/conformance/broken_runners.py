"""Runners with one thing wrong each, made by altering the plan that the runner is given."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import attrs

import broken
from eventflows.flow import Flow
from eventflows.message import Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import PublishResult, SettleFailure
from eventflows.runner import Plan
from eventflows.testing import Harness

Alter = Callable[[Plan], Plan]


class AlteredFlow(Flow[..., Any]):
    """A flow whose plan is altered before it runs."""

    alter: Alter

    def plan(self) -> Plan:
        return self.alter(super().plan())


def running(alter: Alter, base: type[Harness]) -> type[Harness]:
    """Make a harness whose flows run by altered plans."""

    class AlteringHarness(base):  # type: ignore[misc,valid-type]
        def flow(self, flow: Flow[..., Any]) -> Flow[..., Any]:
            altered = AlteredFlow(flow.__wrapped__, flow._source, flow._destination)
            altered.alter = alter
            return altered

    return AlteringHarness


def _publishing(plan: Plan, kind: Callable[[Any], Any]) -> Plan:
    make = plan.publisher
    return plan if make is None else attrs.evolve(plan, publisher=lambda: kind(make()))


class _GivesUp(broken.Publisher):
    """Takes an output for published when it has failed three times."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.failures = 0

    def answers(self, batch: Sequence[Message], found: list[PublishResult]) -> list[PublishResult]:
        self.failures += any(one.error is not None and one.error.retryable for one in found)
        return [PublishResult("invented")] * len(found) if self.failures >= 3 else found


def acks_before_publish(plan: Plan) -> Plan:
    """Acknowledge inputs whose outputs were never confirmed."""
    return _publishing(plan, _GivesUp)


class _OtherIds(broken.Publisher):
    def altered(self, message: Message) -> Message:
        return broken.remade(message, id=None)


def invents_ids(plan: Plan) -> Plan:
    """Publish every output with a new id."""
    return _publishing(plan, _OtherIds)


class _AcksTheUntouched(broken.Subscriber):
    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        changed = [
            Settlement(verdict=Verdict.ACK, spans=one.spans)
            if one.verdict is Verdict.RELEASE and len(one.spans[0][0]) > 50
            else one
            for one in settlements
        ]
        return self.inner.settle(changed, **how)


def drops_on_drain(plan: Plan) -> Plan:
    """Acknowledge what no worker has begun when the flow is stopped."""
    return attrs.evolve(plan, subscriber=lambda: _AcksTheUntouched(plan.subscriber()))


def retries_in_a_loop(plan: Plan) -> Plan:
    """Try again at once."""
    return attrs.evolve(plan, retry=attrs.evolve(plan.retry, delay=0.0))


def shards_by_hash(plan: Plan) -> Plan:
    """Give each message to the worker of its hash, busy or not."""
    shards = [threading.Lock(), threading.Lock()]

    def prepare() -> Callable[..., Any]:
        apply = plan.prepare()

        def one_at_a_time(value: Any, *more: Any, **named: Any) -> Any:
            with shards[zlib.crc32(repr(value).encode()) % 2]:
                return apply(value, *more, **named)

        return one_at_a_time

    return attrs.evolve(plan, prepare=prepare)


class _Waiting(broken.Subscriber):
    """Does nothing while something is being published."""

    lock: threading.Lock

    def receive(self, limit: int, **how: Any) -> Any:
        with self.lock:
            return self.inner.receive(limit, **how)

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Any:
        with self.lock:
            return self.inner.settle(settlements, **how)

    def extend(self, held: Any, seconds: float, **how: Any) -> Any:
        with self.lock:
            return self.inner.extend(held, seconds, **how)


class _Holding(broken.Publisher):
    """Holds the pump while it publishes."""

    lock: threading.Lock

    def send(self, batch: Sequence[Message]) -> Any:
        with self.lock:
            return self.inner.send(batch)

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        with self.lock:
            return super().publish(batch, timeout=timeout)


def publishes_on_the_pump(plan: Plan) -> Plan:
    """Let the pump stand still while an output is published."""
    lock = threading.Lock()

    def subscriber() -> Any:
        waiting = _Waiting(plan.subscriber())
        waiting.lock = lock
        return waiting

    def publisher(inner: Any) -> Any:
        holding = _Holding(inner)
        holding.lock = lock
        return holding

    return attrs.evolve(_publishing(plan, publisher), subscriber=subscriber)


def ignores_the_order(plan: Plan) -> Plan:
    """Let messages of one key overtake each other."""
    return attrs.evolve(plan, order="none")


def ignores_the_cap(plan: Plan) -> Plan:
    """Take as much as there is."""
    return attrs.evolve(plan, max_in_flight=500, max_in_flight_bytes=None)


def swallows_a_halt(plan: Plan) -> Plan:
    """Drop what would have halted the flow."""
    return attrs.evolve(plan, dead_letter="drop") if plan.dead_letter == "halt" else plan


def forgets_the_timeout(plan: Plan) -> Plan:
    """Let a call take as long as it likes."""
    return attrs.evolve(plan, timeout=None)


def acknowledges_late(plan: Plan) -> Plan:
    """Acknowledge after `apply`, though at most once was asked for."""
    return attrs.evolve(plan, guarantee="at-least-once")


def fails_the_whole_batch(plan: Plan) -> Plan:
    """Blame every input of a batch for one."""
    if plan.batch is None:
        return plan

    def prepare() -> Callable[..., Any]:
        apply = plan.prepare()

        def all_or_nothing(values: list[Any], **named: Any) -> Any:
            try:
                return apply(values, **named)
            except ValueError as error:
                return [error] * len(values)

        return all_or_nothing

    return attrs.evolve(plan, prepare=prepare)


def mixes_up_a_batch(plan: Plan) -> Plan:
    """Take the results of what is behind a failed one of its key."""
    return plan if plan.batch is None else attrs.evolve(plan, order="none")
