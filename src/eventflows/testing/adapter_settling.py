"""C25 to C31, C41 and C56: what was said on a delivery holds, and what was not said brings it again."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from eventflows.errors import CapabilityError, LeaseLostError
from eventflows.message import Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import SettleFailure, Subscriber
from eventflows.testing.cases import Cases, Taken, bodies, numbered

KILLED = """
import os, signal, time
from eventflows import open_subscriber
from eventflows.policy import Settlement, Verdict
subscriber = open_subscriber(URL, **OPTIONS)
subscriber.open()
deadline = time.monotonic() + 20
got = 0
while got < 5 and time.monotonic() < deadline:
    for chunk in subscriber.receive(5 - got, max_bytes=1 << 20, timeout=1):
        got += len(chunk)
        subscriber.settle([Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, len(chunk)))])], durable=True)
print(got, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
ALONE = """
from eventflows import open_publisher
from eventflows.message import Message
with open_publisher(URL) as publisher:
    print([one.error for one in publisher.publish([Message(b"elsewhere")])])
"""


def kinds(failures: Sequence[SettleFailure]) -> list[type[Exception]]:
    """Give the classes of the errors."""
    return [type(one.error) for one in failures]


class Acknowledging(Cases):
    """C25 to C27 and C56: acked is over, unsettled is not, and saying it twice does no harm."""

    def again(self, subscriber: Subscriber) -> Subscriber:
        """Close a subscriber, restart the broker if it can be, and open another."""
        subscriber.close(timeout=self.broker.patience)
        self.broker.restart(self.topic)
        return self.opened()

    def test_c25_what_is_acked_never_comes_again(self) -> None:
        """What was acknowledged does not come again after a restart."""
        self.publish(*numbered(5))
        subscriber = self.opened()
        self.acked(subscriber, self.take(subscriber, 5))
        self.nothing(self.again(subscriber))

    def test_c25_closing_flushes_what_was_settled(self) -> None:
        """What was acknowledged without waiting is acknowledged once the subscriber is closed."""
        self.publish(*numbered(5))
        subscriber = self.opened()
        spans = [one.span for one in self.take(subscriber, 5)]
        subscriber.settle([Settlement(verdict=Verdict.ACK, spans=spans)])
        self.nothing(self.again(subscriber))

    def test_c25_flush_brings_what_was_settled_to_the_broker(self) -> None:
        """What was acknowledged and flushed does not come again, though the subscriber was never closed."""
        self.publish(*numbered(3))
        subscriber = self.opened()
        spans = [one.span for one in self.take(subscriber, 3)]
        subscriber.settle([Settlement(verdict=Verdict.ACK, spans=spans)])
        assert list(subscriber.flush(timeout=self.broker.patience)) == []
        subscriber.open(timeout=self.broker.patience)
        self.nothing(subscriber)

    def test_c26_what_was_never_settled_comes_again(self) -> None:
        """What was received and not settled before the subscriber closed is delivered again, all of it."""
        self.publish(*numbered(5))
        subscriber = self.opened()
        self.take(subscriber, 5)
        again = self.again(subscriber)
        assert sorted(bodies(self.take(again, 5))) == [b"0", b"1", b"2", b"3", b"4"]  # type: ignore[type-var]

    def test_c27_acking_twice_never_raises(self) -> None:
        """The second acknowledgement is a no-op, reported as a lost lease."""
        self.publish(*numbered(2))
        subscriber = self.opened()
        taken = self.take(subscriber, 2)
        self.acked(subscriber, taken)
        assert kinds(self.ack(subscriber, taken)) == [LeaseLostError] * 2

    def test_c27_acking_after_the_lease_was_lost_never_raises(self) -> None:
        """An acknowledgement after the lease was lost is a no-op, reported as such; the message comes again."""
        if self.can.lease == "none":
            self.skip("has no lease that could be lost; C35 asks the same of a lost lane")
        self.publish(*numbered(2))
        subscriber = self.opened()
        taken = self.take(subscriber, 2)
        self.fault("expire_leases")()
        assert kinds(self.ack(subscriber, taken)) == [LeaseLostError] * 2
        assert len(set(bodies(self.take(self.opened(), 2)))) == 2

    def test_c27_one_failure_of_several_is_reported_alone(self) -> None:
        """Of several deliveries, the one that was settled before is reported; the others are settled."""
        self.publish(*numbered(3))
        subscriber = self.opened()
        taken = self.take(subscriber, 3)
        self.acked(subscriber, taken[1:2])
        failures = self.ack(subscriber, taken)
        assert [one.delivery.message.body for one in failures] == [taken[1].body]
        self.nothing(self.again(subscriber))

    def test_c56_a_durable_ack_survives_a_kill(self) -> None:
        """What `settle(durable=True)` returned for stays settled though the process is killed the moment after."""
        if not self.can.durable:
            self._nothing_is_shared()
            return
        self.publish(*numbered(5))
        done = self.elsewhere(KILLED, *self.broker.source(self.topic))
        assert (done.stdout.strip(), done.returncode) == ("5", -9), done.stderr
        self.nothing(self.opened())

    def _nothing_is_shared(self) -> None:
        url, _ = self.broker.destination(self.topic)
        done = self.elsewhere(ALONE, url, {})
        assert (done.stdout.strip(), done.returncode) == ("[None]", 0), done.stderr
        self.nothing(self.opened())


class Verdicts(Cases):
    """C28 to C31: RETRY, RELEASE and DEAD_LETTER, or their refusal."""

    def one(self, body: bytes = b"body", **fields: object) -> tuple[Subscriber, list[Taken]]:
        """Publish one message and take it."""
        self.publish(Message(body, **fields))  # type: ignore[arg-type]
        subscriber = self.opened()
        return subscriber, self.take(subscriber, 1)

    def test_c28_retry_brings_it_again(self) -> None:
        """RETRY brings a message again, its delivery count grown; where not claimed, RETRY is refused."""
        if not self.can.redeliver:
            self.refuses(Verdict.RETRY)
            return
        subscriber, taken = self.one()
        attempts = [taken[0].delivery.attempt]
        for _ in range(2):
            assert list(self.settle(subscriber, Verdict.RETRY, taken)) == []
            taken = self.take(subscriber, 1)
            attempts.append(taken[0].delivery.attempt)
        assert attempts == ([1, 2, 3] if self.can.delivery_count else [1, 1, 1])
        self.acked(subscriber, taken)

    def test_c29_retry_waits_for_its_delay(self) -> None:
        """RETRY with a delay brings it again no sooner; where no delay is claimed, one is refused."""
        if not self.can.redeliver_delay:
            self.refuses(Verdict.RETRY, delay=self.broker.delay)
            return
        subscriber, taken = self.one()
        begun = time.monotonic()
        self.settle(subscriber, Verdict.RETRY, taken, delay=self.broker.delay)
        self.take(subscriber, 1)
        waited = time.monotonic() - begun
        early = min(self.broker.slack, self.broker.delay / 4)
        assert waited >= self.broker.delay - early, f"a delay of {self.broker.delay:g} s took {waited:.2f} s"

    def test_c29_a_delayed_message_does_not_hold_up_others(self) -> None:
        """While one message waits for its retry, others without its key come."""
        if not self.can.redeliver_delay:
            self.refuses(Verdict.RETRY, delay=self.broker.delay)
            return
        subscriber, taken = self.one(key="waits")
        self.settle(subscriber, Verdict.RETRY, taken, delay=60)
        self.publish(Message(b"other", key="passes"))
        assert bodies(self.take(subscriber, 1)) == [b"other"]

    def test_c30_release_brings_it_again_promptly(self) -> None:
        """RELEASE hands a message back, for free where that is claimed; on a log, once the claim ends."""
        subscriber, taken = self.one()
        assert list(self.settle(subscriber, Verdict.RELEASE, taken)) == []
        if self.can.release == "never":
            subscriber.close(timeout=self.broker.patience)
            subscriber = self.opened()
        [again] = self.take(subscriber, 1)
        expected = {"free": 1, "counts": 2, "never": 1}[self.can.release] if self.can.delivery_count else 1
        assert (again.body, again.delivery.attempt) == (b"body", expected)

    def test_c31_a_dead_letter_keeps_body_and_reason(self) -> None:
        """DEAD_LETTER moves the message, body and headers intact, with its reason; or it is refused."""
        if not self.can.dead_letter:
            self.refuses(Verdict.DEAD_LETTER, reason="no good")
            return
        subscriber, taken = self.one(b"\x00\xff original", headers={"mine": "kept"})
        failures = self.settle(subscriber, Verdict.DEAD_LETTER, taken, reason="no good", detail="at all")
        assert list(failures) == []
        dead = [one.delivery for one in self.dead_letters(subscriber)]
        got = [(one.message.body, one.message.headers.get("mine"), self.broker.reason_of(one)) for one in dead]
        assert got == [(b"\x00\xff original", "kept", "no good")]

    def test_c31_a_dead_letter_never_comes_again(self) -> None:
        """What was dead-lettered is gone from its source."""
        if not self.can.dead_letter:
            self.refuses(Verdict.DEAD_LETTER, reason="no good")
            return
        subscriber, taken = self.one()
        self.settle(subscriber, Verdict.DEAD_LETTER, taken, reason="no good")
        subscriber.close()
        self.nothing(self.opened())

    def test_c31_a_mixed_settlement_does_each_as_it_says(self) -> None:
        """Verdicts given in one call each take effect on their own deliveries."""
        self.publish(*numbered(4))
        subscriber = self.opened()
        taken = self.take(subscriber, 4)
        other = Verdict.DEAD_LETTER if self.can.dead_letter else Verdict.ACK
        failures = subscriber.settle(
            [
                Settlement(verdict=Verdict.ACK, spans=[taken[0].span]),
                Settlement(verdict=other, spans=[taken[1].span], reason="no good"),
                Settlement(verdict=Verdict.RELEASE, spans=[taken[2].span, taken[3].span]),
            ],
            durable=True,
        )
        assert list(failures) == []
        subscriber.close(timeout=self.broker.patience)
        again = self.opened()
        assert sorted(bodies(self.take(again, 2))) == sorted(bodies(taken[2:]))  # type: ignore[type-var]
        self.nothing(again)


class Leases(Cases):
    """C41, and what `extend` promises: leases last, and what is lost is reported."""

    def leased(self) -> tuple[Subscriber, list[Taken]]:
        """Publish two messages and take them under a short lease."""
        options = self.broker.short_lease()
        if options is None:
            self.skip("has no short lease in its harness")
        self.publish(*numbered(2))
        subscriber = self.opened(options=options)
        return subscriber, self.take(subscriber, 2)

    def refused(self) -> None:
        """Check that there is nothing to extend."""
        self.publish(b"held")
        subscriber = self.opened()
        with pytest.raises(CapabilityError):
            subscriber.extend([self.take(subscriber, 1)[0].delivery], 10)

    def test_c41_a_lease_runs_out_and_the_message_comes_again(self) -> None:
        """A lease that nobody extends ends: others get the message, and the late ack is a no-op."""
        if self.can.lease == "none":
            self.refused()
            return
        subscriber, taken = self.leased()
        other = self.opened()
        assert len(set(bodies(self.take(other, 2)))) == 2
        assert kinds(self.ack(subscriber, taken)) == [LeaseLostError] * 2

    def test_c41_an_extended_lease_is_kept(self) -> None:
        """While a lease is extended nobody else gets the message, and its holder settles it."""
        if self.can.lease == "none":
            self.refused()
            return
        subscriber, taken = self.leased()
        other, end = self.opened(), time.monotonic() + 2.5 * self.broker.lease
        while time.monotonic() < end:
            results = subscriber.extend([one.delivery for one in taken], self.broker.lease)
            assert [one.error for one in results] == [None, None]
            assert bodies(self.receive(other, 10, self.broker.lease / 4)) == []
        self.acked(subscriber, taken)

    def test_c41_extending_moves_the_end(self) -> None:
        """`extend` gives each delivery its new end, in the result and on the delivery, in input order."""
        if self.can.lease == "none":
            self.refused()
            return
        subscriber, taken = self.leased()
        held = [one.delivery for one in taken]
        before = max(one.lease_until or 0.0 for one in held)
        results = subscriber.extend(
            held, self.broker.lease * 10
        )  # some give a lease of their own length, whatever is asked
        assert [one.held for one in results] == held
        assert [one.until is not None and one.until == one.held.lease_until for one in results] == [True, True]  # type: ignore[union-attr]
        assert [one.until is not None and one.until > before for one in results] == [True, True]

    def test_c41_a_refused_renewal_is_reported_and_settling_is_harmless(self) -> None:
        """A renewal refused because the lease is lost says so; settling is a no-op, and the message comes again."""
        if self.can.lease == "none":
            self.refused()
            return
        self.publish(*numbered(2))
        subscriber = self.opened()
        taken = self.take(subscriber, 2)
        self.fault("expire_leases")()
        results = subscriber.extend([one.delivery for one in taken], 30)
        assert [type(one.error) for one in results] == [LeaseLostError] * 2
        assert kinds(self.ack(subscriber, taken)) == [LeaseLostError] * 2
        assert len(set(bodies(self.take(self.opened(), 2)))) == 2

    def test_c41_what_a_renewal_found_lost_comes_again_to_its_old_holder(self) -> None:
        """A message whose renewal said that it is lost is held no more: who held it may be given it, as anybody."""
        if self.can.lease == "none":
            self.refused()
            return
        self.publish(*numbered(2))
        subscriber = self.opened()
        lost = self.take(subscriber, 2)
        self.fault("expire_leases")()
        results = subscriber.extend([one.delivery for one in lost], 30)
        assert [type(one.error) for one in results] == [LeaseLostError] * 2
        again = self.take(subscriber, 2)
        assert set(bodies(again)) == set(bodies(lost))
        assert kinds(self.ack(subscriber, lost)) == [LeaseLostError] * 2
        self.acked(subscriber, again)
        self.nothing(self.opened())
