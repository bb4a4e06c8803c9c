"""C32 to C36 and C51 to C53: positions, claims and revocations; brokers without them keep each message's own."""

from __future__ import annotations

from collections.abc import Mapping

from eventflows.errors import LeaseLostError
from eventflows.message import Message
from eventflows.policy import Verdict
from eventflows.protocols import Subscriber
from eventflows.testing.adapter_settling import kinds
from eventflows.testing.cases import Cases, bodies, numbered
from eventflows.testing.conditions import Background

NO_POSITIONS = "settles each message alone: it has no position that"


class _Logs(Cases):
    @property
    def is_log(self) -> bool:
        """Whether the broker commits positions."""
        return self.can.settle == "watermark"


class Positions(_Logs):
    """C32 to C34: what is committed is the end of the unbroken prefix."""

    def committed(self) -> Mapping[str, int]:
        """Ask for the committed positions, or skip."""
        if not self.is_log:
            self.skip(f"{NO_POSITIONS} could be committed")
        found = self.broker.committed(self.topic)
        if found is None:
            self.skip("cannot be asked for its committed positions by its harness")
        return found

    def test_c32_out_of_order_acks_skip_nothing(self) -> None:
        """Of 1 2 3 4 5, with 1 2 4 acked: a log gives 3 4 5 again, others 3 and 5; none gives 1 2."""
        self.publish(*numbered(5, key="one" if self.is_log else None, start=1))
        subscriber = self.opened()
        taken = {one.body: one for one in self.take(subscriber, 5)}
        self.ack(subscriber, [taken[b"1"], taken[b"2"], taken[b"4"]])
        subscriber.close(timeout=self.broker.patience)
        self.broker.restart(self.topic)
        wanted = [b"3", b"4", b"5"] if self.is_log else [b"3", b"5"]
        again = self.opened()
        assert sorted(bodies(self.take(again, len(wanted)))) == wanted  # type: ignore[type-var]
        self.nothing(again)

    def test_c32_the_last_ack_closes_the_gap(self) -> None:
        """Once the message that was missing is acked, none of them comes again."""
        self.publish(*numbered(5, key="one"))
        subscriber = self.opened()
        taken = self.take(subscriber, 5)
        for some in (taken[3:], taken[:2], taken[2:3]):
            self.acked(subscriber, some)
        subscriber.close(timeout=self.broker.patience)
        self.nothing(self.opened())

    def test_c33_gaps_do_not_stall_the_position(self) -> None:
        """Offsets that hold no message (compaction, control records) do not keep later ones from being committed."""
        if not self.is_log:
            self.skip(f"{NO_POSITIONS} could have gaps")
        sent = self.broker.make_gaps(self.topic)
        if sent is None:
            self.skip("cannot be made to have gaps by its harness")
        wanted = list(sent)
        subscriber = self.opened()
        self.acked(subscriber, self.take(subscriber, len(wanted)))
        subscriber.close(timeout=self.broker.patience)
        self.nothing(self.opened())

    def test_c34_the_position_is_the_next_to_read_and_never_falls(self) -> None:
        """The committed position is one past the last of the unbroken prefix, and grows only."""
        self.committed()
        self.publish(*numbered(6, key="one"))
        subscriber = self.opened()
        taken = self.take(subscriber, 6)
        seen = []
        for index in (0, 2, 1, 5, 4, 3):
            self.acked(subscriber, [taken[index]])
            seen.append(sum(self.committed().values()))
        first = seen[0] - 1
        assert [position - first for position in seen] == [1, 1, 3, 3, 3, 6]


class Claims(_Logs):
    """C35, C36, C51 to C53: a claim that ended commits nothing, and loses nothing."""

    def lose(self, subscriber: Subscriber) -> None:
        """Take everything from a subscriber: its lanes on a log, else its leases."""
        if self.is_log:
            if not self.broker.revoke(subscriber):
                self.skip("cannot be made to revoke by its harness")
        elif self.can.lease == "none":
            self.skip("has neither lanes nor leases that could be lost")
        else:
            self.fault("expire_leases")()

    def test_c35_a_late_ack_commits_nothing(self) -> None:
        """An ack after the claim or the lease was lost is a no-op for the new owner, and does not raise."""
        self.publish(*numbered(3, key="one" if self.is_log else None))
        old = self.opened()
        taken = self.take(old, 3)
        self.lose(old)
        failures = self.ack(old, taken)
        new = self.opened()
        owned = self.take(new, 3)
        assert kinds(failures) == [LeaseLostError] * 3
        assert kinds(self.ack(old, taken)) == [LeaseLostError] * 3
        self.acked(new, owned)

    def test_c35_a_lost_lane_says_so(self) -> None:
        """A lane whose claim ended is marked as lost, and stays so; where there are no lanes, none is named."""
        self.publish(Message(b"0", key="one"))
        subscriber = self.opened()
        [taken] = self.take(subscriber, 1)
        if self.can.ordering != "lane":
            assert taken.chunk.lane is None or self.can.lease == "lane"
            return
        self.lose(subscriber)
        self.receive(subscriber, 0, 0.1)
        if self.can.lease == "message":  # nobody is told that a message's lease ended; the next renewal learns it
            subscriber.extend([taken.delivery], 10)
        assert taken.chunk.lane is not None
        assert taken.chunk.lane.lost

    def test_c36_the_new_owner_sees_everything_unfinished(self) -> None:
        """What was in flight when a claim or lease was lost comes to the next owner, all of it."""
        self.publish(*numbered(10, key="one" if self.is_log else None))
        old = self.opened()
        taken = self.take(old, 10)
        self.acked(old, taken[:4])
        self.lose(old)
        new = self.opened()
        assert sorted(bodies(self.take(new, 6))) == sorted(bodies(taken[4:]))  # type: ignore[type-var]

    def test_c51_a_commit_that_races_a_revocation_loses_nothing(self) -> None:
        """Whichever comes first, every message is either settled without a failure or comes to the new owner."""
        self.publish(*numbered(20, key="one" if self.is_log else None))
        old = self.opened()
        taken = self.take(old, 20)
        ending = Background(lambda: self.lose(old))
        failed = {one.delivery.message.body for at in range(0, 20, 2) for one in self.ack(old, taken[at : at + 2])}
        ending.result(self.broker.patience, "the revocation")
        old.close(timeout=self.broker.patience)
        seen = set(bodies(self.rest(self.opened())))
        assert failed <= seen, f"settled by nobody, seen by nobody: {sorted(failed - seen)}"  # type: ignore[type-var]

    def test_c52_a_topic_made_anew_is_a_new_claim(self) -> None:
        """When the topic is deleted and made again, what was held is lost, and nothing new is skipped."""
        if not self.is_log:
            self.skip(f"{NO_POSITIONS} could outlive the topic")
        self.publish(*numbered(5, key="one"))
        subscriber = self.opened()
        held = self.take(subscriber, 5)
        self.settle(subscriber, Verdict.ACK, held[:3])
        if not self.broker.recreate(self.topic):
            self.skip("cannot be made to forget a topic by its harness")
        self.publish(*numbered(2, key="one", start=100))
        assert bodies(self.take(subscriber, 2)) == [b"100", b"101"]
        assert kinds(self.ack(subscriber, held[3:])) == [LeaseLostError] * 2

    def test_c53_what_is_fetched_is_delivered(self) -> None:
        """At saturation the client fetches no more than one and a half times what it delivers."""
        probe = self.opened()
        if self.broker.fetched_bytes(probe) is None:
            self.skip("cannot be asked what it fetched by its harness")
        probe.close()
        self.publish(*[Message(bytes(1024), key=f"k{n % 7}") for n in range(self.broker.volume)])
        subscriber = self.opened()
        delivered = 0
        for _ in range(self.broker.volume // 50):
            taken = self.take(subscriber, 50)
            delivered += sum(len(body or b"") for body in bodies(taken))
            self.receive(subscriber, 0, 0.01)
            self.acked(subscriber, taken)
        assert (self.broker.fetched_bytes(subscriber) or 0) < 1.5 * delivered
