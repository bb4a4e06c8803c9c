"""R4 to R7, R10 to R13, R16, R21 and R39: what fails, how often, how soon, and what becomes of it."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable

import pytest

from eventflows.errors import HaltedError, LoadError, Reject, Retry
from eventflows.message import Message
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy, Verdict
from eventflows.testing.cases import bodies, numbered
from eventflows.testing.conditions import wait_until
from eventflows.testing.flows import QUICK, Calls, FlowCases, per_key

EARLY = 0.01  # seconds by which a delay may seem short: clocks differ by that much


def always(_: bytes) -> None:
    """Fail."""
    raise ValueError("an injected failure")


def gaps(times: list[float]) -> list[float]:
    """Give the seconds between each call and the next."""
    return [after - before for before, after in itertools.pairwise(times)]


class Hostile(BaseException):
    """Nobody's exception."""


def _grumble(*_: object, **__: object) -> None:
    raise ValueError("an observer's failure")


class Grumpy(Observer):
    """Raises from every method."""


for _event in [name for name in vars(Observer) if not name.startswith("_")]:
    setattr(Grumpy, _event, _grumble)


class Halting(FlowCases):
    """R4: nowhere to put it."""

    def halted(self) -> HaltedError:
        """Run a flow that halts, and give the error."""

        def work(body: bytes) -> None:
            if body == b"poison":
                raise ValueError("an injected failure")

        flow = self.flow(Calls(work), dead_letter="halt", retry=RetryPolicy(attempts=2, delay=0.05))
        with pytest.raises(HaltedError) as caught:
            self.run(flow)
        return caught.value

    def test_r04_a_halted_flow_leaves_its_message(self) -> None:
        """When attempts are used up and there is no place for it, the flow halts and the message stays."""
        self.publish(b"fine", b"poison")
        self.halted()
        assert self.left() == [b"poison"]

    def test_r04_the_next_start_meets_the_same_message(self) -> None:
        """The error names the position, and the next start halts at the same one."""
        self.publish(b"poison")
        first, second = self.halted(), self.halted()
        assert first.position is not None
        assert (first.position, first.position in str(first)) == (second.position, True)

    def test_r04_without_any_place_the_flow_halts(self) -> None:
        """Where neither the flow nor the broker has a dead-letter place, the flow halts; else nothing is lost."""
        self.publish(b"poison")
        flow = self.flow(Calls(always), retry=RetryPolicy(attempts=1))
        if self.can.dead_letter:
            self.run(flow, limit=1)
            assert bodies(self.dead_letters(self.keep(self.broker.subscriber(self.topic)))) == [b"poison"]
            return
        with pytest.raises(HaltedError):
            self.run(flow)
        assert self.left() == [b"poison"]


class Attempts(FlowCases):
    """R5, R7, R10 to R13 and R39: attempts, delays and exceptions."""

    def test_r05_a_rejected_message_is_not_tried_again(self) -> None:
        """`Reject` sends the message to the dead letters after one call."""

        def reject(_: bytes) -> None:
            raise Reject("no good")

        calls = Calls(reject)
        options, dead = self.morgue()
        self.publish(b"poison")
        self.run(self.flow(calls, **options), limit=1)
        assert (calls.bodies, dead()) == ([b"poison"], [b"poison"])

    @pytest.mark.parametrize("hold", [10.0, 0.0])
    def test_r05_the_delay_of_retry_is_honoured(self, hold: float) -> None:
        """`Retry(delay)` brings the message again no sooner, held in the process or given back to the broker.

        When the flow may not hold it and the broker cannot delay it, or would count what waits behind it: at once.
        """
        delay, can = self.broker.delay, self.can
        given = bool(can.redeliver_delay) and (can.release == "free" or can.ordering == "none")
        kept = delay if hold or given else 0.0

        def once(body: bytes) -> None:
            if calls.count(body) == 1:
                raise Retry(delay=delay)

        calls = Calls(once)
        self.publish(b"again")
        self.run(self.flow(calls, retry=RetryPolicy(delay=0.01, max_delay=0.01, hold=hold)), limit=1)
        [waited] = gaps(calls.begun[b"again"])
        assert waited >= kept - EARLY

    @pytest.mark.parametrize(
        "kind", [SystemExit, KeyboardInterrupt, RecursionError, MemoryError, Hostile, asyncio.CancelledError]
    )
    def test_r07_no_exception_of_apply_ends_the_flow(self, kind: type[BaseException]) -> None:
        """Whatever `apply` raises costs its message an attempt, and the next message is handled."""

        def work(body: bytes) -> None:
            if body == b"0":
                raise kind

        calls = Calls(work)
        options, dead = self.morgue()
        self.publish(*numbered(2))
        self.run(self.flow(calls, retry=RetryPolicy(attempts=2, delay=0.01), **options), limit=2)
        assert (calls.count(b"0"), calls.finished, dead()) == (2, [b"1"], [b"0"])

    def test_r07_a_run_leaves_no_thread_behind(self) -> None:
        """Runs with failing calls leave as many threads as there were before."""
        self.publish(*numbered(10))
        options, _ = self.morgue()
        flow = self.flow(Calls(always), workers=4, retry=RetryPolicy(attempts=1), **options)
        self.run(flow, limit=2)
        before = threading.active_count()
        for _ in range(3):
            self.run(flow, limit=2)
        wait_until(lambda: threading.active_count() <= before, 5, what=f"no more than {before} threads")

    def test_r10_the_wait_is_pure_bounded_and_capped(self) -> None:
        """For any policy the wait is within its jitter of the capped delay, and the same for the same arguments."""
        from hypothesis import HealthCheck, given, settings
        from hypothesis import strategies as some

        seconds, share = some.floats(0, 1e6), some.floats(0, 1)
        policies = some.builds(RetryPolicy, delay=seconds, factor=some.floats(1, 1e3), max_delay=seconds, jitter=share)

        @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no finding
        @given(policies, some.integers(1, 10**6), share)
        def holds(policy: RetryPolicy, attempt: int, luck: float) -> None:
            wait = policy.wait(attempt, luck)
            first = min(policy.delay, policy.max_delay) * (1 - policy.jitter)
            most = policy.max_delay * (1 + policy.jitter)
            assert first * (1 - 1e-9) <= wait <= most * (1 + 1e-9)
            assert wait == policy.wait(attempt, luck)
            assert policy.wait(attempt, 0.5) <= policy.wait(attempt + 1, 0.5) * (1 + 1e-9)

        holds()

    def test_r11_attempts_of_broker_and_process_are_counted_once(self) -> None:
        """A message handed out twice before gets what is left of its attempts, no more and no fewer."""
        self.publish(b"poison")
        before = 0
        if self.can.delivery_count and self.can.redeliver:
            subscriber, before = self.opened(), 2
            for _ in range(before):
                self.settle(subscriber, Verdict.RETRY, self.take(subscriber, 1))
            subscriber.close()
        calls = Calls(always)
        options, dead = self.morgue()
        self.run(self.flow(calls, retry=RetryPolicy(attempts=5, delay=0.01), **options), limit=1)
        assert (len(calls.bodies), dead()) == (5 - before, [b"poison"])

    @pytest.mark.parametrize("hold", [10.0, 0.0])
    def test_r11_every_way_of_waiting_gives_all_attempts(self, hold: float) -> None:
        """Held in the process or given back to the broker, a message that always fails gets its attempts."""
        calls = Calls(always)
        options, dead = self.morgue()
        self.publish(b"poison")
        self.run(self.flow(calls, retry=RetryPolicy(attempts=4, delay=0.02, hold=hold), **options), limit=1)
        assert (len(calls.bodies), dead()) == (4, [b"poison"])

    def test_r12_an_observer_that_raises_changes_nothing(self) -> None:
        """With an observer that raises from every method, everything is handled as without it."""

        def work(body: bytes) -> None:
            if body == b"0":
                raise ValueError("an injected failure")

        calls = Calls(work)
        options, dead = self.morgue()
        self.publish(*numbered(4))
        flow = self.flow(calls, observers=[Grumpy()], retry=RetryPolicy(attempts=2, delay=0.01), **options)
        result = self.run(flow, limit=4)
        assert (result.acked, result.dead_lettered, dead(), self.left()) == (3, 1, [b"0"], [])

    def test_r13_a_failing_message_waits_between_its_attempts(self) -> None:
        """A message that always fails is tried as often as declared, with the declared delays between."""
        calls = Calls(always)
        options, _ = self.morgue()
        self.publish(b"poison")
        retry = RetryPolicy(attempts=4, delay=0.1, factor=2, jitter=0)
        self.run(self.flow(calls, retry=retry, **options), limit=1)
        waited = gaps(calls.begun[b"poison"])
        assert [wait >= least - EARLY for wait, least in zip(waited, (0.1, 0.2, 0.4), strict=True)] == [True] * 3

    def test_r13_its_neighbours_finish_meanwhile(self) -> None:
        """While a message waits for its next attempt, messages of other keys are handled."""

        def work(body: bytes) -> None:
            if body == b"0":
                raise ValueError("an injected failure")

        calls = Calls(work)
        options, _ = self.morgue()
        self.publish(*[Message(b"%d" % number, key=f"k{number}") for number in range(10)])
        self.run(self.flow(calls, retry=RetryPolicy(attempts=2, delay=0.5, jitter=0), **options), limit=10)
        last = max(calls.begun[b"0"])
        assert [calls.begun[b"%d" % number][0] < last for number in range(1, 10)] == [True] * 9

    def test_r39_retries_keep_the_order_of_every_key(self) -> None:
        """With failures at random, the messages of each key are finished in their order."""
        seed = random.randrange(10**6)  # noqa: S311 - chance, not secrecy
        luck = random.Random(seed)  # noqa: S311
        unlucky = {message.body for message in self.keyed(5, 12) if luck.random() < 0.2}

        def work(body: bytes) -> None:
            if body in unlucky and calls.count(body) == 1:
                raise ValueError("an injected failure")

        calls = Calls(work)
        self.publish(*self.keyed(5, 12))
        if self.can.ordering == "none":
            self.skip("keeps no order of keys")
        self.run(self.flow(calls, workers=4, retry=QUICK), limit=60)
        assert per_key(calls.finished) == {b"%d" % key: list(range(12)) for key in range(5)}, f"seed {seed}"


class Inputs(FlowCases):
    """R6, R16 and R21: what `apply` gets, and what never reaches it."""

    def seen_by(self, apply: Callable[..., object], *sent: bytes) -> list[bytes | None]:
        """Run messages through any `apply`, and give the dead letters."""
        options, dead = self.morgue()
        self.publish(*sent)
        self.run(self.connect(apply, **options), limit=len(sent))
        return dead()

    def test_r06_an_undecodable_body_never_reaches_apply(self) -> None:
        """A body that cannot be decoded goes to the dead letters, intact, without a call of `apply`."""
        calls = []

        def apply(input: dict[str, int]) -> None:
            calls.append(input)

        broken = b'{"a": \xff'
        assert (self.seen_by(apply, broken, b'{"a": 1}'), calls) == ([broken], [{"a": 1}])

    def test_r16_load_runs_once_before_the_first_message(self) -> None:
        """`load()` runs once for all workers, and its result reaches every call."""
        loads: list[int] = []
        states: list[str] = []

        def load() -> str:
            loads.append(len(states))
            return "model"

        def apply(input: bytes, model: str) -> None:
            states.append(model)

        self.publish(*numbered(8))
        self.run(self.connect(apply, load=load, workers=4), limit=8)
        assert (loads, states) == ([0], ["model"] * 8)

    def test_r16_a_failing_load_stops_the_start(self) -> None:
        """When `load()` raises, the start fails with its error as the cause, and no message is touched."""

        def load() -> None:
            raise OSError("no such model")

        def apply(input: bytes, model: object) -> None:
            raise AssertionError("called without a model")

        self.publish(b"waits")
        with pytest.raises(LoadError) as caught:
            self.run(self.connect(apply, load=load))
        assert (type(caught.value.__cause__), self.left()) == (OSError, [b"waits"])

    def test_r21_foreign_bodies_arrive_as_bytes(self) -> None:
        """Plain bodies of any kind arrive byte for byte where `apply` asks for bytes."""
        foreign = [b"test", b"12345678", b"true", b"", b"\xff\xfe\x00"]
        calls = Calls()
        self.publish(*foreign)
        self.run(self.flow(calls), limit=len(foreign))
        assert sorted(calls.bodies) == sorted(foreign)

    def test_r21_without_annotation_a_body_is_json(self) -> None:
        """Without annotation and content type a body is JSON: numbers and `true` are values, `test` is not."""
        seen: list[object] = []

        def apply(input):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - the case itself
            seen.append(input)

        dead = self.seen_by(apply, b"12345678", b"true", b"test")
        assert (sorted(map(str, seen)), dead) == (["12345678", "True"], [b"test"])
