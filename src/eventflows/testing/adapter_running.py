"""C37 to C40, C42 to C46, C49, C50, C54 and C60: the adapter under a running flow."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

from eventflows.errors import (
    CapabilityError,
    ConnectionFailedError,
    EventflowsError,
    PermissionDeniedError,
)
from eventflows.policy import RetryPolicy
from eventflows.testing.cases import numbered
from eventflows.testing.conditions import pass_time, wait_until
from eventflows.testing.flows import Calls, FlowCases, per_key


class Order(FlowCases):
    """C37 to C39, C49 and C50: order by key or lane, kept while others pass."""

    def refuses_order(self, order: str) -> None:
        """Check that an order which the source cannot keep is refused at the start."""
        with pytest.raises(CapabilityError):
            self.run(self.flow(Calls(), order=order))

    def test_c37_each_key_keeps_its_order_with_eight_workers(self) -> None:
        """With eight workers, the messages of one key are handled in order; or such an order is refused."""
        if self.can.ordering == "none":
            self.refuses_order("key")
            return
        calls = Calls(lambda _: pass_time(0.001))
        self.publish(*self.keyed(8, 15))
        self.run(self.flow(calls, workers=8, order="key"), limit=120)
        assert per_key(calls.finished) == {b"%d" % key: list(range(15)) for key in range(8)}

    def test_c37_different_keys_overlap(self) -> None:
        """With several workers, messages of different keys are handled at the same time: all meet at a barrier."""
        if self.can.ordering == "none":
            self.refuses_order("key")
            return
        barrier = threading.Barrier(4)
        calls = Calls(lambda _: barrier.wait(self.broker.patience / 2))
        self.publish(*self.keyed(4, 1))
        self.run(self.flow(calls, workers=4, order="key"), limit=4)
        assert (calls.most, len(calls.finished)) == (4, 4)

    def test_c38_one_message_of_a_lane_at_a_time(self) -> None:
        """In order by lane, one message of a lane runs at a time; or such an order is refused."""
        if self.can.ordering != "lane":
            self.refuses_order("lane")
            return
        calls = Calls(lambda _: pass_time(0.002))
        self.publish(*numbered(20, key="one"))
        self.run(self.flow(calls, workers=8, order="lane"), limit=20)
        assert (calls.most, [int(body) for body in calls.finished]) == (1, list(range(20)))

    def test_c38_one_message_of_a_key_at_a_time(self) -> None:
        """In order by key, one message of a key runs at a time; or such an order is refused."""
        if self.can.ordering == "none":
            self.refuses_order("key")
            return
        calls = Calls(lambda _: pass_time(0.002))
        self.publish(*numbered(20, key="one"))
        self.run(self.flow(calls, workers=8, order="key"), limit=20)
        assert calls.most == 1

    def test_c39_nothing_overtakes_a_retry_of_its_key(self) -> None:
        """Later messages of a key wait behind one that is tried again; other keys go on meanwhile."""
        if self.can.ordering == "none":
            self.refuses_order("key")
            return
        others, passed = threading.Event(), []
        calls: Calls

        def work(body: bytes) -> None:
            if body == b"0:0" and calls.count(body) == 1:
                raise ValueError("the first attempt fails")
            if body == b"0:0":
                passed.append(others.wait(self.broker.patience / 4))  # holds its key until the other is through
            elif body == b"1:3":
                others.set()

        calls = Calls(work)
        self.publish(*self.keyed(2, 4))
        self.run(self.flow(calls, workers=4, order="key"), limit=8)
        assert (passed, per_key(calls.finished)) == ([True], {b"0": [0, 1, 2, 3], b"1": [0, 1, 2, 3]})

    def test_c49_outputs_of_a_key_keep_their_order_when_one_cannot_be_published(self) -> None:
        """When publishing one output fails for a while, it is sent again with every later one of its key, in order."""
        if self.can.ordering == "none":
            self.refuses_order("key")
            return
        place = self.fresh()
        self.fault("fail_message", place)(
            lambda message: message.body == b"1:2", ConnectionFailedError("an injected failure"), times=2
        )
        self.publish(*self.keyed(3, 8))
        self.run(self.flow(Calls(lambda body: body), destination=place, workers=4), limit=24)
        seen = per_key(self.arrived(place, 24))
        last_seen = {key: list(dict.fromkeys(reversed(numbers)))[::-1] for key, numbers in seen.items()}
        assert last_seen == {b"%d" % key: list(range(8)) for key in range(3)}, seen

    def test_c50_members_behind_a_failing_one_never_reach_the_dead_letter(self) -> None:
        """Of a key whose first message always fails, that one alone is dead-lettered; the others are handled."""
        if self.can.ordering == "none":
            self.refuses_order("key")
            return

        def work(body: bytes) -> None:
            if body == b"0:0":
                raise ValueError("always")

        calls = Calls(work)
        options, dead = self.morgue()
        self.publish(*self.keyed(2, 6))
        self.run(self.flow(calls, workers=2, retry=RetryPolicy(attempts=3, delay=0.05), **options), limit=12)
        assert (dead(), calls.count(b"0:0"), len(calls.finished)) == ([b"0:0"], 3, 11)


class LongWork(FlowCases):
    """C40, C42, C43, C54 and C60: work that outlasts leases, polls and sessions."""

    def short_leases(self) -> dict[str, object]:
        """Give the options of a short lease, or skip."""
        options = self.broker.short_lease()
        if self.can.lease == "none":
            self.skip("has no lease that work could outlast; C43 asks for the membership")
        if options is None:
            self.skip("has no short lease in its harness")
        return dict(options)

    def test_c40_work_longer_than_the_lease_is_done_once(self) -> None:
        """Work that takes three leases is renewed, done once, and settled."""
        options = self.short_leases()
        calls = Calls(lambda _: pass_time(3 * self.broker.lease))
        self.publish(*numbered(2))
        result = self.run(self.flow(calls, workers=2, options=options), limit=2)
        assert (sorted(calls.bodies), result.acked, self.left()) == ([b"0", b"1"], 2, [])

    def test_c42_a_message_received_again_while_it_is_worked_on_runs_once(self) -> None:
        """When its lease is lost and the same flow gets it again, `apply` is not called a second time beside it."""
        self.short_leases()
        go = threading.Event()
        calls = Calls(lambda _: go.wait(self.broker.patience / 2))
        self.publish(b"one")
        with self.running(self.flow(calls, workers=4)):
            wait_until(lambda: calls.running == 1, self.broker.patience, what="the first call")
            self.fault("expire_leases")()
            pass_time(2 * self.broker.quiet)
            go.set()
            wait_until(lambda: calls.running == 0, self.broker.patience, what="the end of the calls")
            pass_time(self.broker.quiet)
        assert (calls.most, self.left()) == (1, [])

    def test_c42_the_newest_handle_settles(self) -> None:
        """A message that is received again while it is held is not handed out, and its old delivery settles it."""
        self.short_leases()
        self.publish(b"one")
        subscriber = self.opened()
        taken = self.take(subscriber, 1)
        self.fault("expire_leases")()
        self.nothing(subscriber)
        self.acked(subscriber, taken)
        self.nothing(self.opened())

    def test_c43_saturated_then_everything_flows(self) -> None:
        """With everything held that may be in flight, the place in the group is kept, and then all flows."""
        go = threading.Event()
        calls = Calls(lambda _: go.wait(self.broker.patience))
        self.publish(*numbered(30))
        with self.running(self.flow(calls, workers=2, max_in_flight=4)):
            wait_until(lambda: calls.running == 2, self.broker.patience, what="both workers busy")
            pass_time(self.broker.saturation)
            go.set()
            wait_until(lambda: len(calls.finished) >= 30, self.broker.patience, what="all 30 messages")
        assert (len(calls.bodies), len(set(calls.bodies)), self.left()) == (30, 30, [])

    def test_c54_members_settle_down_while_all_are_busy(self) -> None:
        """Two members that work all the time agree on their shares within four generations."""
        before = self.broker.generation(self.topic)
        if before is None:
            self.skip("has no generations of members that its harness could ask for")
        self.publish(*self.keyed(40, 10))
        calls = Calls(lambda _: pass_time(0.02))
        with self.running(self.flow(calls)), self.running(self.flow(calls)):
            wait_until(lambda: len(set(calls.finished)) == 400, self.broker.patience, what="all 400 messages")
            after = self.broker.generation(self.topic)
        assert (after or 0) - before <= 4

    def test_c60_what_waits_is_not_touched_by_long_work(self) -> None:
        """With four in flight and a hundred waiting, work of five leases leaves every delivery count at 1."""
        options = self.short_leases()
        calls = Calls(lambda _: pass_time(5 * self.broker.lease))
        self.publish(*numbered(100))
        self.run(self.flow(calls, workers=4, max_in_flight=4, options=options), limit=8)
        attempts = [one.delivery.attempt for one in self.take(self.opened(), 92)]
        assert (len(calls.bodies), attempts) == (8, [1] * 92)


class Trouble(FlowCases):
    """C44 to C46: broken connections, refused settlements, random failures, restarts."""

    def test_c44_a_dropped_connection_loses_nothing(self) -> None:
        """When the connection breaks mid-stream the flow goes on: everything is handled, nothing acked is lost."""
        drop = self.fault("disconnect")
        calls: Calls

        def work(_: bytes) -> None:
            if len(calls.bodies) in {20, 60}:
                drop()

        calls = Calls(work)
        self.publish(*numbered(100))
        with self.running(self.flow(calls, max_in_flight=10)):
            wait_until(lambda: len(set(calls.finished)) == 100, self.broker.patience, what="all 100 messages")
            pass_time(self.broker.quiet)
        assert self.left() == []

    def test_c45_a_settlement_that_fails_for_a_while_is_repeated(self) -> None:
        """When settling fails for a while it is tried again, and the message is not run again."""
        self.fault("refuse_settlement")(lambda _: True, ConnectionFailedError("an injected failure"), times=2)
        calls = Calls()
        self.publish(*numbered(5))
        self.run(self.flow(calls), limit=5)
        assert (sorted(calls.bodies), self.left()) == ([b"0", b"1", b"2", b"3", b"4"], [])

    def test_c45_a_settlement_that_fails_for_good_loses_no_message(self) -> None:
        """When settling is refused for good the message is not lost: it comes again."""
        self.fault("refuse_settlement")(
            lambda delivery: delivery.message.body == b"1", PermissionDeniedError("an injected refusal")
        )
        calls = Calls()
        self.publish(*numbered(3))
        with contextlib.suppress(EventflowsError):  # surfacing it by ending the run is one of the right answers
            self.run(self.flow(calls))
        left = self.left()
        assert {*calls.finished, *left} == {b"0", b"1", b"2"}
        assert calls.count(b"1") + left.count(b"1") >= 2, "the message whose settlement was refused is gone"

    def test_c46_random_failures_and_restarts_lose_nothing(self) -> None:
        """With one failure in ten and the flow restarted, every message is handled; the dead letters are exact."""
        seed = random.randrange(10**6)  # noqa: S311 - chance, not secrecy
        luck = random.Random(seed)  # noqa: S311 - chance, not secrecy
        poison = {b"%d" % number for number in range(0, 300, 37)}

        def work(body: bytes) -> None:
            if body in poison or luck.random() < 0.1:
                raise ValueError("an injected failure")

        calls = Calls(work)
        options, dead = self.morgue()
        self.publish(*numbered(300))
        retry = RetryPolicy(attempts=12, delay=0.01, factor=1)
        for wanted in (60, 140):
            with self.running(self.flow(calls, workers=2, retry=retry, **options)):
                self.until_finished(calls, wanted, f"seed {seed}")
        self.run(self.flow(calls, workers=2, retry=retry, **options))
        healthy = {b"%d" % number for number in range(300)} - poison
        assert (set(calls.finished), set(dead()), self.left()) == (healthy, poison, []), f"seed {seed}"
