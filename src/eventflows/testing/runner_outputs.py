"""R1 to R3, R22, R29, R32 and R38: outputs first, then the acknowledgement."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from eventflows.errors import (
    ConnectionFailedError,
    DrainTimeoutError,
    HaltedError,
    PermissionDeniedError,
    RunError,
    TooLargeError,
)
from eventflows.message import Delivery, Message, Messages
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy
from eventflows.protocols import Subscriber
from eventflows.testing.cases import Taken, bodies, numbered
from eventflows.testing.conditions import Background, wait_until
from eventflows.testing.flows import Calls, FlowCases

FOREVER = 10_000


class Discards(Observer):
    """Counts outputs that were not published, because their input is not ours any more."""

    def __init__(self) -> None:
        self.count = 0
        self.lost = threading.Event()

    def lease_lost(self, *, flow: str, deliveries: Sequence[Delivery]) -> None:
        """Note that the flow knows."""
        self.lost.set()

    def discarded(self, *, flow: str, delivery: Delivery, count: int, reason: str) -> None:
        """Count them."""
        self.count += count


class Outputs(FlowCases):
    """What is published, and when its input is acknowledged."""

    def unconfirmed(self, calls: Calls) -> None:
        """Run a flow whose outputs are never all confirmed, and check that it gives up without acknowledging."""
        place = self.fresh()
        self.fault("fail_message", place)(
            lambda message: message.body == b"never", ConnectionFailedError("an injected failure"), times=FOREVER
        )
        self.publish(b"input")
        flow = self.flow(calls, destination=place, drain_timeout=0.3)
        running = Background(lambda: flow.run(signals=False))
        self.until_finished(calls, 1)
        flow.stop()
        with pytest.raises(DrainTimeoutError):
            running.result(self.broker.patience, "the drain")
        assert self.left() == [b"input"]

    def test_r01_an_input_stays_until_its_output_is_confirmed(self) -> None:
        """An input whose output is not confirmed is not acknowledged: it is there for the next start."""
        self.unconfirmed(Calls(lambda _: b"never"))

    def test_r01_an_input_stays_until_every_output_is_confirmed(self) -> None:
        """An input is not acknowledged while one of its several outputs is not confirmed."""
        self.unconfirmed(Calls(lambda _: Messages([b"first", b"second", b"never"])))

    def test_r01_a_stop_waits_for_the_confirmation(self) -> None:
        """An output on its way when the flow is stopped is waited for, and its input acknowledged once."""
        place = self.fresh()
        freeze, thaw = self.fault("freeze", place), self.fault("thaw", place)
        calls = Calls(lambda body: body)
        self.publish(b"input")
        freeze("publish")
        self._exit.callback(thaw, "publish")
        flow = self.flow(calls, destination=place)
        running = Background(lambda: flow.run(signals=False))
        self.until_finished(calls, 1)
        flow.stop()
        thaw("publish")
        result = running.result(self.broker.patience, "the drain")
        assert (result.acked, set(self.arrived(place, 1)), self.left()) == (1, {b"input"}, [])

    def test_r02_a_failed_publish_is_repeated_alone(self) -> None:
        """When publishing fails for a while, it alone is repeated: `apply` is called once."""
        place = self.fresh()
        self.fault("fail_message", place)(lambda _: True, ConnectionFailedError("an injected failure"), times=2)
        calls = Calls(lambda body: b"result of " + body)
        self.publish(b"input")
        self.run(self.flow(calls, destination=place), limit=1)
        assert (calls.bodies, self.arrived(place, 1), self.left()) == ([b"input"], [b"result of input"], [])

    def test_r03_an_input_stays_until_its_dead_letter_is_confirmed(self) -> None:
        """A dead letter that cannot be published leaves its input unacknowledged."""
        place = self.fresh()
        self.fault("fail_message", place)(lambda _: True, ConnectionFailedError("an injected failure"), times=FOREVER)
        self.publish(b"poison")

        def fail(_: bytes) -> None:
            raise ValueError("always")

        calls = Calls(fail)
        flow = self.flow(
            calls, dead_letter=self.broker.destination(place)[0], retry=RetryPolicy(attempts=1), drain_timeout=0.3
        )
        running = Background(lambda: flow.run(signals=False))
        wait_until(lambda: calls.bodies and not calls.running, self.broker.patience, what="the failed attempt")
        flow.stop()
        with pytest.raises(RunError):
            running.result(self.broker.patience, "the drain")
        assert self.left() == [b"poison"]

    def test_r22_the_same_input_makes_outputs_of_the_same_ids(self) -> None:
        """An input that is processed twice publishes its outputs with the same ids."""
        place = self.fresh()
        self.fault("refuse_settlement")(lambda _: True, PermissionDeniedError("an injected refusal"))
        self.publish(b"input")
        calls = Calls(lambda _: Messages([b"first", b"second"]))
        flow = self.flow(calls, destination=place)
        running = Background(lambda: flow.run(signals=False))
        wait_until(lambda: calls.bodies or not running.running, self.broker.patience, what="the first call")
        flow.stop()
        wait_until(lambda: not running.running, self.broker.patience, what="the first run's end")
        self.run(flow)
        ids: dict[bytes | None, set[str | None]] = {}
        for one in self.all_of(place):
            ids.setdefault(one.body, set()).add(one.delivery.message.id)
        assert (calls.count(b"input"), [len(some) for some in ids.values()]) == (2, [1, 1])
        assert ids[b"first"] != ids[b"second"]

    def all_of(self, topic: str) -> list[Taken]:
        """Read everything in a topic."""
        reader = self.opened(topic=topic)
        found = self.rest(reader)
        reader.close()
        return found

    def test_r32_outputs_of_different_flows_have_different_ids(self) -> None:
        """Two flows of one source whose functions have the same name publish outputs of different ids."""
        if not self.can.groups:
            self.skip("has no groups, so two flows cannot read one message")
        place = self.fresh()
        groups = ["first", "second"]
        for group in groups:
            self.opened(group).close()
        self.publish(b"input")
        for group in groups:
            self.run(self.flow(Calls(lambda body: body), destination=place, group=group, name=group), limit=1)
        assert len({one.delivery.message.id for one in self.all_of(place)}) == 2

    def test_r29_an_output_that_is_too_large_is_not_retried(self) -> None:
        """An output that the destination never takes fails its input at once, without another attempt."""
        place = self.fresh()
        self.fault("fail_message", place)(
            lambda message: message.body == b"0", TooLargeError("an injected limit"), times=FOREVER
        )
        calls = Calls(lambda body: body)
        options, dead = self.morgue()
        self.publish(*numbered(3))
        self.run(self.flow(calls, destination=place, **options), limit=3)
        assert (calls.count(b"0"), dead(), sorted(bodies(self.all_of(place)))) == (1, [b"0"], [b"1", b"2"])  # type: ignore[type-var]

    def failing(self, refused: Callable[[Message], bool]) -> tuple[str, Calls, dict[str, Any]]:
        """Prepare a flow that always fails, with a dead-letter place that refuses some copies as too large."""
        place = self.fresh()
        self.fault("fail_message", place)(refused, TooLargeError("an injected limit"), times=FOREVER)

        def fail(_: bytes) -> None:
            raise ValueError("always")

        settings = {"dead_letter": self.broker.destination(place)[0], "retry": RetryPolicy(attempts=1)}
        return place, Calls(fail), settings

    def test_r29_a_dead_letter_that_is_too_large_is_cut_down(self) -> None:
        """A dead-letter copy over the limit gives up the error's text first; body and reason stay."""
        place, calls, settings = self.failing(lambda message: "ef-error" in message.headers)
        self.publish(Message(b"poison", headers={"mine": "kept"}))
        self.run(self.flow(calls, **settings), limit=1)
        [copy] = self.all_of(place)
        headers = copy.delivery.message.headers
        assert (copy.body, "ef-error" in headers, bool(headers.get("ef-reason"))) == (b"poison", False, True)

    def test_r29_a_dead_letter_that_never_fits_halts(self) -> None:
        """When no dead-letter copy is small enough the flow halts, and the input stays."""
        _, calls, settings = self.failing(lambda _: True)
        self.publish(b"poison")
        with pytest.raises(HaltedError):
            self.run(self.flow(calls, **settings), limit=1)
        assert self.left() == [b"poison"]

    def test_r30_leases_are_kept_while_the_destination_is_frozen(self) -> None:
        """While the destination answers nothing for three leases, inputs stay ours; then all goes on, once each."""
        options = self.broker.short_lease()
        if options is None:
            self.skip("has no short lease in its harness")
        place = self.fresh()
        freeze, thaw = self.fault("freeze", place), self.fault("thaw", place)
        calls, other = Calls(lambda body: body), self.opened()
        self.publish(*numbered(3))
        freeze("publish")
        self._exit.callback(thaw, "publish")
        with self.running(self.flow(calls, destination=place, options=options)):
            self.until_finished(calls, 3)
            stolen = self.receive(other, 10, 3 * self.broker.lease)
            thaw("publish")
            wanted = sorted(bodies(self.take(self.opened(topic=place), 3)))  # type: ignore[type-var]
        assert (bodies(stolen), len(calls.bodies), wanted) == ([], 3, [b"0", b"1", b"2"])

    def test_r30_a_stop_is_answered_while_the_destination_is_frozen(self) -> None:
        """A stop ends the run by its drain time although the destination answers nothing; the input stays."""
        place = self.fresh()
        self.publish(b"input")
        self.fault("freeze", place)("publish")
        self._exit.callback(self.fault("thaw", place), "publish")
        calls = Calls(lambda body: body)
        flow = self.flow(calls, destination=place, drain_timeout=0.3)
        running = Background(lambda: flow.run(signals=False))
        self.until_finished(calls, 1)
        flow.stop()
        with pytest.raises(DrainTimeoutError):
            running.result(self.broker.patience, "the drain")
        assert self.left() == [b"input"]

    def late(self) -> tuple[str, Discards]:
        """Let another member take the message while `apply` runs, and let it finish once the flow knows."""
        options = self.broker.short_lease()
        if self.can.lease == "none" or options is None:
            self.skip("has no short lease that could be lost")
        place, go, discards = self.fresh(), threading.Event(), Discards()
        self._exit.callback(go.set)
        calls = Calls(lambda body: go.wait(self.broker.patience) and body)
        other = self.opened()
        self.publish(b"input")
        flow = self.flow(calls, destination=place, max_in_flight=1, observers=[discards], options=options)
        with self.running(flow):
            wait_until(lambda: calls.running, self.broker.patience, what="the call")
            owned = self.taken_over(other)
            assert discards.lost.wait(self.broker.patience)
            go.set()
            self.until_finished(calls, 1)
        self.acked(other, owned)
        return place, discards

    def taken_over(self, other: Subscriber) -> list[Taken]:
        """End the leases, and let another member take the message."""
        self.fault("expire_leases")()
        return self.take(other, 1)

    def test_r38_a_late_finish_publishes_nothing(self) -> None:
        """When another member has the message by the time `apply` returns, its output is not published."""
        place, _ = self.late()
        assert (bodies(self.all_of(place)), self.left()) == ([], [])

    def test_r38_a_late_finish_is_counted_as_discarded(self) -> None:
        """An output that was dropped because its input is not ours any more is told to the observers."""
        _, discards = self.late()
        assert discards.count == 1
