"""C19 to C23 and C59: messages are taken as asked, shared in a group, given to every group, and looked at."""

from __future__ import annotations

import time

import pytest

from eventflows.errors import CapabilityError, ConfigError
from eventflows.message import Message
from eventflows.protocols import Browsable, Subscriber
from eventflows.testing.cases import PLENTY, Cases, bodies, numbered
from eventflows.testing.conditions import wait_until


class Receiving(Cases):
    """C19 and C20: limits of time, count and bytes."""

    def test_c19_an_empty_source_gives_nothing_in_time(self) -> None:
        """Receiving from an empty source gives `[]` within the time-out."""
        subscriber, idle = self.opened(), self.broker.short
        begun = time.monotonic()
        assert list(subscriber.receive(10, max_bytes=PLENTY, timeout=idle)) == []
        assert time.monotonic() - begun <= idle + self.broker.slack

    def test_c19_waiting_is_no_busy_loop(self) -> None:
        """Waiting at an empty source neither burns the processor nor returns at once, again and again."""
        subscriber, idle = self.opened(), self.broker.short
        self.receive(subscriber, 1, 0.1)
        begun, burnt, calls = time.monotonic(), time.process_time(), 0
        while time.monotonic() - begun < idle:
            self.receive(subscriber, 10, idle)
            calls += 1
        spent = (time.process_time() - burnt) / (time.monotonic() - begun)
        assert calls <= 10, f"{calls} calls of receive(timeout={idle:g}) in {idle:g} s"
        assert spent <= 0.7, f"{spent:.0%} of a processor while nothing waits"

    def test_c20_no_more_than_the_limit(self) -> None:
        """One `receive` never gives more messages than its limit."""
        self.publish(*numbered(30))
        subscriber = self.opened()
        for limit in (7, 1, 3):
            assert 0 < len(self.receive(subscriber, limit, self.broker.patience)) <= limit

    def test_c20_no_more_than_the_bytes(self) -> None:
        """One `receive` never gives more bytes than asked for."""
        self.publish(*[Message(b"%d" % number + bytes(999)) for number in range(6)])
        subscriber = self.opened()
        chunks = subscriber.receive(10, max_bytes=2500, timeout=self.broker.patience)
        assert 0 < sum(sum(chunk.sizes) for chunk in chunks) <= 2500

    def test_c20_a_message_larger_than_the_bytes_comes_alone(self) -> None:
        """A message that alone is larger than `max_bytes` is delivered, alone."""
        self.publish(bytes(5000), bytes(5000))
        chunks = self.opened().receive(10, max_bytes=100, timeout=self.broker.patience)
        assert [len(chunk) for chunk in chunks] == [1]

    def test_c20_zero_gives_nothing_and_keeps_what_is_held(self) -> None:
        """`receive(0)` gives `[]` though messages wait, and what is held can still be settled."""
        self.publish(*numbered(4))
        subscriber = self.opened()
        held = self.take(subscriber, 2)
        for _ in range(5):
            assert list(subscriber.receive(0, max_bytes=PLENTY, timeout=0.02)) == []
        self.acked(subscriber, held)

    def test_c20_each_message_comes_once_while_it_is_held(self) -> None:
        """What is held is not handed out a second time."""
        self.publish(*numbered(20))
        subscriber = self.opened()
        got = bodies(self.take(subscriber, 20))
        assert len(set(got)) == 20
        self.nothing(subscriber)


class Groups(Cases):
    """C21 to C23: independent groups, members that share, new groups."""

    def ungrouped(self) -> None:
        """Check that a group is refused where there are none."""
        with pytest.raises(ConfigError):
            self.broker.subscriber(self.topic, "another")

    def test_c21_every_group_gets_everything(self) -> None:
        """Two groups each get every message; where there are no groups, naming one is refused."""
        if not self.can.groups:
            self.ungrouped()
            return
        first, second = self.opened("first"), self.opened("second")
        self.publish(*numbered(20))
        got = [sorted(bodies(self.take(one, 20))) for one in (first, second)]  # type: ignore[type-var]
        assert got == [sorted(message.body for message in numbered(20))] * 2  # type: ignore[type-var]

    def test_c21_acknowledging_in_one_group_leaves_the_other(self) -> None:
        """What one group has acknowledged, another still gets."""
        if not self.can.groups:
            self.ungrouped()
            return
        first, second = self.opened("first"), self.opened("second")
        self.publish(*numbered(5))
        self.acked(first, self.take(first, 5))
        assert len(set(bodies(self.take(second, 5)))) == 5

    def test_c22_members_share_the_work(self) -> None:
        """Two members of a group get every message between them, and each gets some."""
        members = [self.opened(), self.opened()]
        self._until_ready(members)
        self.publish(*[Message(b"%d" % number, key=f"k{number}") for number in range(60)])
        shares: list[set[bytes | None]] = [set(), set()]

        def all_there() -> bool:
            for member, share in zip(members, shares, strict=True):
                taken = self.receive(member, 5, 0.2)
                self.acked(member, taken)
                share |= set(bodies(taken))
            return len(shares[0] | shares[1]) == 60

        wait_until(all_there, self.broker.patience, what="the union of both members' messages")
        assert [bool(share) for share in shares] == [True, True]

    def _until_ready(self, members: list[Subscriber]) -> None:
        def ready() -> bool:
            for member in members:
                member.receive(0, max_bytes=PLENTY, timeout=0.1)
            return all(member.ready for member in members)

        wait_until(ready, self.broker.patience, what="both members ready")

    def test_c23_a_new_group_starts_at_the_oldest_message(self) -> None:
        """A group of a new name gets what was published before it; where that is not claimed, none of it."""
        if not self.can.groups:
            self.ungrouped()
            return
        old = self.opened("old", options=self.broker.replay_options)
        self.publish(*numbered(5))
        self.acked(old, self.take(old, 5))
        new = self.opened("new", options=self.broker.replay_options)
        if not self.can.replay:
            self.nothing(new)
            return
        assert sorted(bodies(self.take(new, 5))) == [b"0", b"1", b"2", b"3", b"4"]  # type: ignore[type-var]


class Peeking(Cases):
    """C59: looking without taking."""

    def peeked(self) -> tuple[Browsable, list[bytes | None]]:
        """Publish three messages and look at them; skip where nobody can look."""
        subscriber = self.keep(self.broker.subscriber(self.topic))
        if not isinstance(subscriber, Browsable) or self.can.peek is None:
            assert self.can.peek is None, f"peek={self.can.peek!r} is claimed, but there is no peek()"
            self.skip("cannot look without taking")
        self.publish(*numbered(3))
        got = subscriber.peek(10, timeout=self.broker.patience)
        return subscriber, [delivery.message.body for delivery in got]

    def test_c59_peek_shows_what_waits(self) -> None:
        """`peek` gives what waits, without the subscriber having been opened."""
        assert sorted(self.peeked()[1]) == [b"0", b"1", b"2"]  # type: ignore[type-var]

    def test_c59_peek_takes_nothing(self) -> None:
        """What was looked at is still there for the next reader, and, where that is free, as its first attempt."""
        self.peeked()
        taken = self.take(self.opened(), 3)
        assert len(set(bodies(taken))) == 3
        if self.can.peek == "free":
            assert [one.delivery.attempt for one in taken] == [1, 1, 1]

    def test_c59_what_was_looked_at_cannot_be_settled(self) -> None:
        """`peek` hands out no right to settle: the message stays."""
        subscriber, _ = self.peeked()
        seen = subscriber.peek(1, timeout=self.broker.patience)
        assert seen[0].lease_until is None
        assert len(self.take(self.opened(), 3)) == 3

    def test_c59_peek_begins_after_a_position(self) -> None:
        """`peek(start=...)` shows what comes after that position; where looking is a receive, it is refused."""
        subscriber, everything = self.peeked()
        if self.can.peek == "counts":
            with pytest.raises(CapabilityError):
                subscriber.peek(1, start="1", timeout=self.broker.patience)
            return
        first = subscriber.peek(1, timeout=self.broker.patience)[0]
        after = subscriber.peek(10, start=first.position, timeout=self.broker.patience)
        assert [delivery.message.body for delivery in after] == everything[1:]

    def test_c59_peek_honours_its_limit(self) -> None:
        """`peek` gives no more than its limit."""
        subscriber, _ = self.peeked()
        assert len(subscriber.peek(2, timeout=self.broker.patience)) <= 2
