"""R9, R15, R19, R20, R23 to R25, R27, R28, R34 and R35: how much at once, how long, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import threading
import tracemalloc
from collections.abc import Sequence
from typing import Any, cast

import attrs
import pytest

from eventflows.decorators import subscriber
from eventflows.errors import ConfigError, DrainTimeoutError, HaltedError
from eventflows.flow import Flow
from eventflows.message import Chunk, Message
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy, Settlement, Verdict
from eventflows.protocols import SettleFailure, Subscriber
from eventflows.runner import Plan
from eventflows.testing.cases import bodies, numbered
from eventflows.testing.conditions import Background, pass_time, wait_until
from eventflows.testing.flows import Calls, FlowCases

SECRET = "hunter2-do-not-show"  # noqa: S105 - made up, to be looked for
MEGABYTE = 1 << 20
ONCE = RetryPolicy(attempts=1)


class InFlight(Observer):
    """Follows how much is held: what was received and is not settled yet."""

    def __init__(self) -> None:
        self.count = self.most = self.bytes = 0

    def received(self, *, flow: str, chunk: Chunk) -> None:
        """Add what came."""
        self.count += len(chunk)
        self.most = max(self.most, self.count)
        self.bytes += sum(chunk.sizes)

    def settled(self, *, flow: str, verdict: Verdict, count: int) -> None:
        """Take away what is settled."""
        self.count -= count


class Work(FlowCases):
    """Long work, many workers, caps."""

    def test_r15_work_longer_than_the_lease_runs_once(self) -> None:
        """What waits behind long work in the same process is renewed too: everything runs once."""
        options = self.broker.short_lease()
        if options is None:
            self.skip("has no short lease in its harness")
        calls = Calls(lambda _: pass_time(1.5 * self.broker.lease))
        self.publish(*numbered(3))
        self.run(self.flow(calls, options=options), limit=3)
        assert (sorted(calls.bodies), self.left()) == ([b"0", b"1", b"2"], [])

    @pytest.mark.parametrize("order", ["none", None])
    def test_r19_without_order_everything_overlaps(self, order: str | None) -> None:
        """Messages without a key, or of one key where no order is asked for, are handled at the same time."""
        barrier = threading.Barrier(4)
        calls = Calls(lambda _: barrier.wait(self.broker.patience / 4))
        self.publish(*numbered(4, key="one" if order == "none" and not self.can.needs_key else None))
        self.run(self.flow(calls, workers=4, order=order, retry=ONCE), limit=4)
        assert len(calls.finished) == 4

    def test_r19_keys_overlap(self) -> None:
        """With eight workers, messages of eight keys meet at a barrier."""
        if self.can.ordering == "none":
            self.skip("keeps no order of keys")
        barrier = threading.Barrier(8)
        calls = Calls(lambda _: barrier.wait(self.broker.patience / 4))
        self.publish(*self.keyed(8, 3))
        self.run(self.flow(calls, workers=8, retry=ONCE), limit=24)
        assert len(calls.finished) == 24

    def test_r19_a_key_keeps_its_order(self) -> None:
        """With eight workers, a message of a key begins only when the one before it has ended."""
        if self.can.ordering == "none":
            self.skip("keeps no order of keys")
        ended = set()
        early = []

        def work(body: bytes) -> None:
            key, _, number = body.partition(b":")
            if number != b"0" and b"%s:%d" % (key, int(number) - 1) not in ended:
                early.append(body)
            pass_time(0.005)
            ended.add(body)

        self.publish(*sorted(self.keyed(4, 6), key=lambda message: message.key or ""))
        self.run(self.flow(Calls(work), workers=8), limit=24)
        assert early == []

    def test_r19_an_idle_worker_gets_other_keys_while_some_wait_behind_theirs(self) -> None:
        """What waits behind a busy key keeps no worker from what comes later."""
        if self.can.ordering == "none":
            self.skip("keeps no order of keys")
        go = threading.Event()
        self._exit.callback(go.set)
        calls = Calls(lambda body: go.set() if body == b"late" else go.wait(self.broker.patience) if body else None)
        with self.running(self.flow(calls, workers=2)):
            self.publish(*[Message(b"", key="one")] * 20)
            self.until_finished(calls, 20)
            self.publish(*[Message(b"%d" % number, key="one") for number in range(12)])
            wait_until(lambda: calls.running, self.broker.patience, what="the slow call")
            self.publish(Message(b"late", key="two"))
            wait_until(go.is_set, self.broker.patience / 2, what="the call with another key")

    def test_r20_the_cap_in_count_is_kept(self) -> None:
        """Never more messages are held than `max_in_flight`."""
        held = InFlight()
        self.publish(*numbered(200))
        self.run(self.flow(Calls(), workers=2, max_in_flight=7, observers=[held]), limit=200)
        assert 0 < held.most <= 7

    def test_r20_the_cap_in_bytes_is_kept(self) -> None:
        """No more bytes are held than `max_in_flight_bytes`, but for the one message that passes it."""
        held, go = InFlight(), threading.Event()
        self._exit.callback(go.set)
        self.publish(*[Message(b"%02d" % number + bytes(998)) for number in range(20)])
        calls = Calls(lambda _: go.wait(self.broker.patience))
        with self.running(self.flow(calls, max_in_flight_bytes=4500, observers=[held])):
            wait_until(lambda: calls.running, self.broker.patience, what="the first call")
            pass_time(2 * self.broker.quiet)
            most = held.bytes
            go.set()
        assert 0 < most < 4500 + 1000

    def test_r20_what_waits_takes_no_memory(self) -> None:
        """A slow flow over many waiting messages holds a bounded part of them in memory."""
        count = 10 * self.broker.volume
        for start in range(0, count, 2000):
            self.publish(*[Message(bytes(1000))] * min(2000, count - start))
        tracemalloc.start()
        try:
            self.run(self.flow(Calls(lambda _: pass_time(0.002)), workers=2), limit=100)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 10 * MEGABYTE, f"{peak / MEGABYTE:.1f} MiB while {count} KiB waited"

    def test_r34_all_workers_are_busy_with_slow_work(self) -> None:
        """With eight workers and slow work, one large receive keeps all eight busy, and a stop is prompt."""
        go = threading.Event()
        self._exit.callback(go.set)
        calls = Calls(lambda _: go.wait(self.broker.patience))
        self.publish(*numbered(300))
        with self.running(self.flow(calls, workers=8)) as run:
            wait_until(lambda: calls.running == 8, self.broker.patience, what="eight busy workers")
            assert run.running
            go.set()
        assert calls.most == 8

    def test_r34_a_stop_hands_back_the_untouched_at_once(self) -> None:
        """A stop finishes what runs and hands back the rest, which another reader gets as a first attempt."""
        go = threading.Event()
        self._exit.callback(go.set)
        calls = Calls(lambda _: go.wait(self.broker.patience))
        self.publish(*numbered(300))
        flow = self.flow(calls, workers=8)
        running = Background(lambda: flow.run(signals=False))
        wait_until(lambda: calls.running == 8, self.broker.patience, what="eight busy workers")
        flow.stop()
        other = self.opened()
        taken = self.take(other, 292) if self.can.release == "free" else []
        go.set()
        result = running.result(self.broker.patience, "the drain")
        assert (result.acked, len(calls.bodies), {one.delivery.attempt for one in taken} - {1}) == (8, 8, set())

    def test_r27_settlements_are_few(self) -> None:
        """In a busy stream outcomes are settled in batches, as few calls for 1,000 messages as the harness declares."""
        count = self.broker.volume
        for start in range(0, count, 1000):
            self.publish(*numbered(min(1000, count - start)))
        flow = self.flow(Calls())
        counted = CountedFlow(flow.__wrapped__, flow._source, flow._destination)
        counted.settlements = []
        self.run(counted, limit=count)
        assert sum(counted.settlements) == count
        assert len(counted.settlements) * 1000 <= self.broker.settlements_per_thousand * count

    def test_r28_an_idle_link_that_was_dropped_is_made_again(self) -> None:
        """A connection that the network drops while nothing flows: what comes then is handled, without a restart."""
        drop = self.fault("disconnect")
        calls = Calls()
        self.publish(b"before")
        with self.running(self.flow(calls)) as run:
            self.until_finished(calls, 1)
            pass_time(self.broker.quiet)
            drop()
            self.publish(b"after")
            self.until_finished(calls, 2)
            assert run.running
        assert (calls.finished, self.left()) == ([b"before", b"after"], [])


class CountingSubscriber:
    """A subscriber whose settlements are counted.

    Args:
        inner: What does the work.
        settlements: Gets the number of messages of each call.
    """

    def __init__(self, inner: Subscriber, settlements: list[int]) -> None:
        self._inner = inner
        self._settlements = settlements

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the adapter has
        """Give what the adapter has."""
        return getattr(self._inner, name)

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:  # noqa: ANN401
        """Count, and settle."""
        self._settlements.append(
            sum(len(range(*part.indices(len(chunk)))) for one in settlements for chunk, part in one.spans)
        )
        return self._inner.settle(settlements, **how)


class CountedFlow(Flow[..., Any]):
    """A flow whose settlements are counted."""

    settlements: list[int]

    def plan(self) -> Plan:
        """Say what the runner is to do, with a subscriber that counts."""
        plan = super().plan()
        make = plan.subscriber
        return attrs.evolve(plan, subscriber=lambda: cast("Subscriber", CountingSubscriber(make(), self.settlements)))


class Ends(FlowCases):
    """R9, R23 to R25 and R35: limits, idleness, stops and halts."""

    def test_r09_work_that_hangs_does_not_hold_up_the_end(self) -> None:
        """When the drain time ends `run` raises, although a call still hangs, and the message comes again."""
        go = threading.Event()
        self._exit.callback(go.set)
        calls = Calls(lambda _: go.wait(self.broker.patience * 2))
        self.publish(b"hangs")
        flow = self.flow(calls, drain_timeout=0.3)
        running = Background(lambda: flow.run(signals=False))
        wait_until(lambda: calls.running, self.broker.patience, what="the call")
        flow.stop()
        with pytest.raises(DrainTimeoutError):
            running.result(self.broker.patience, "the drain")
        assert self.left() == [b"hangs"]

    def test_r23_preview_leaves_the_source_as_it_was(self) -> None:
        """`preview` consumes nothing and publishes nothing; no attempt is counted where looking is free."""
        if self.can.peek is None:
            self.skip("cannot look without taking")
        place = self.fresh()
        self.publish(*numbered(3))
        seen = self.flow(Calls(lambda body: b"result of " + body), destination=place).preview(2)
        reader = self.opened()
        taken = self.take(reader, 3)
        reader.close()  # one that is not asked any more would hold up the next of its group
        attempts = [one.delivery.attempt for one in taken] if self.can.peek == "free" else [1, 1, 1]
        assert (len(seen), sorted(bodies(taken)), attempts) == (2, [b"0", b"1", b"2"], [1, 1, 1])  # type: ignore[type-var]
        self.nothing(self.opened(topic=place))

    def test_r24_a_limit_takes_no_more(self) -> None:
        """`run(limit=4)` settles four and takes no fifth from the broker."""
        self.publish(*numbered(10))
        result = self.run(self.flow(Calls(), workers=2), limit=4)
        rest = self.rest(self.opened())
        assert (result.received, result.acked, len(rest)) == (4, 4, 6)
        assert [one.delivery.attempt for one in rest] == [1] * 6

    def test_r24_a_limit_counts_final_settlements(self) -> None:
        """Failed attempts do not count for the limit; dead letters do."""

        def work(body: bytes) -> None:
            if body == b"0":
                raise ValueError("an injected failure")

        calls = Calls(work)
        options, _ = self.morgue()
        self.publish(*numbered(3))
        result = self.run(self.flow(calls, retry=RetryPolicy(attempts=3, delay=0.01), **options), limit=3)
        assert (result.acked, result.dead_lettered, result.retried) == (2, 1, 2)

    def test_r24_until_idle_waits_for_retries(self) -> None:
        """A message that waits for its next attempt is not idleness."""

        def once(body: bytes) -> None:
            if calls.count(body) == 1:
                raise ValueError("an injected failure")

        calls = Calls(once)
        self.publish(b"again")
        result = self.run(self.flow(calls, retry=RetryPolicy(delay=1.0, jitter=0)), until_idle=0.1)
        assert (result.acked, calls.finished) == (1, [b"again"])

    def test_r24_until_idle_waits_for_retries_at_the_broker(self) -> None:
        """A message that the broker holds until its next attempt is not idleness either."""

        def once(body: bytes) -> None:
            if calls.count(body) == 1:
                raise ValueError("an injected failure")

        calls = Calls(once)
        self.publish(b"again")
        retry = RetryPolicy(delay=self.broker.delay, jitter=0, hold=0)
        result = self.run(self.flow(calls, retry=retry), until_idle=0.1)
        assert (result.acked, calls.finished) == (1, [b"again"])

    def test_r24_a_run_works_inside_a_running_event_loop(self) -> None:
        """`run` and `running` work where an event loop is running, as in a notebook."""
        calls = Calls()
        self.publish(*numbered(2))
        flow = self.flow(calls)

        async def cell() -> int:
            return flow.run(limit=2, signals=False).acked

        acked = Background(lambda: asyncio.run(cell())).result(self.broker.patience, "run in an event loop")
        assert (acked, sorted(calls.finished)) == (2, [b"0", b"1"])

    @pytest.mark.parametrize("url", ["{0}password={1}", "{0}token={1}", "x://user:{1}@host/topic"])
    def test_r25_a_secret_in_a_url_is_refused_and_not_shown(self, url: str) -> None:
        """A URL with a secret in it is refused, and the refusal does not show it."""
        source = self.broker.source_url(self.topic)
        with pytest.raises(ConfigError) as caught:
            subscriber(url.format(f"{source}{'&' if '?' in source else '?'}", SECRET))
        assert SECRET not in f"{caught.value} {caught.value!r}"

    def test_r25_configured_secrets_are_shown_nowhere(self) -> None:
        """A secret given as an option is in no log, repr, description or pickle."""
        given = self.broker.secret_options()
        if given is None:
            self.skip("takes no secrets")
        options, secret = given
        heard = _Heard()
        logging.getLogger().addHandler(heard)
        self._exit.callback(logging.getLogger().removeHandler, heard)
        flow = self.flow(Calls(), options=options)
        with contextlib.suppress(Exception):  # a literal one may refuse to be pickled
            heard.lines.append(repr(pickle.dumps(flow)))
        self.publish(b"input")
        self.run(flow, limit=1)
        heard.lines += [repr(flow), str(flow.describe()), repr(flow.describe())]
        assert [line for line in heard.lines if secret in line] == []

    def test_r35_a_halt_in_a_group_keeps_the_progress_of_others(self) -> None:
        """Two members that meet the same poison halt, naming it; what is done stays done, the rest is there."""

        def work(body: bytes) -> None:
            if body == b"13":
                raise ValueError("an injected failure")

        calls = [Calls(work), Calls(work)]
        self.publish(*numbered(40))
        retry = RetryPolicy(attempts=2, delay=0.05)
        flows = [self.flow(one, dead_letter="halt", retry=retry, max_in_flight=4) for one in calls]
        runs = [Background(lambda flow=flow: flow.run(signals=False)) for flow in flows]  # type: ignore[misc]
        positions = set()
        for run in runs:
            with pytest.raises(HaltedError) as caught:
                run.result(self.broker.patience, "the halt")
            positions.add(caught.value.position)
        done, left = set(calls[0].finished + calls[1].finished), set(self.left())
        assert (len(positions), done | left) == (1, {b"%d" % number for number in range(40)})
        tries = calls[0].count(b"13") + calls[1].count(b"13")
        again = (
            set() if self.can.settle == "watermark" else done & left
        )  # a log repeats what was done behind the poison
        claims = 3  # the first member's, the second's when it joins or the first has halted, and the first's again
        assert (again, b"13" in left, 2 <= tries <= 2 * claims) == (set(), True, True)


class _Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=0)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
