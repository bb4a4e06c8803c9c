"""The embedded broker against a model of it, under random work: hypothesis prints how to repeat a failure."""

from __future__ import annotations

import pathlib
import tempfile
from typing import ClassVar, Literal

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from eventflows import Message
from eventflows.errors import LeaseLostError
from eventflows.message import Chunk, Delivery
from eventflows.policy import Settlement, Verdict
from local_place import MUCH, Place, Storage, bodies, say, take

LEASE = 10.0
OWNERS = st.integers(0, 2)
PICKS = st.sets(st.integers(0, 7), min_size=1)


@attrs.define
class Modelled:
    """What is to be true of one message."""

    key: str | None
    state: Literal["waiting", "held", "acked", "dead"] = "waiting"
    attempt: int = 1
    due: float = 0.0
    owner: int = -1
    until: float = 0.0

    def back(self, *, counts: bool, due: float = 0.0) -> None:
        """Wait again."""
        self.state, self.owner, self.due, self.attempt = "waiting", -1, due, self.attempt + counts


@attrs.define
class Handle:
    """What an owner got, and has not settled."""

    chunk: Chunk
    index: int
    native: object

    @property
    def delivery(self) -> Delivery:
        """The delivery, as it is now."""
        return self.chunk[self.index]


class BrokerModel(RuleBasedStateMachine):
    """Publish, take, settle, extend, let time pass and leases end, with three owners and three keys."""

    storage: ClassVar[Storage] = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="eventflows-model-")
        self.place = Place(self.storage, pathlib.Path(self.folder.name))
        self.owners = [self.place.subscriber(lease=LEASE) for _ in range(3)]
        self.writer = self.place.publisher()
        self.messages: list[Modelled] = []
        self.handles: list[dict[int, Handle]] = [{}, {}, {}]

    def now(self) -> float:
        """The broker's time."""
        return self.place.clock()

    def end_leases(self) -> None:
        """Take back what was held for too long."""
        for message in self.messages:
            if message.state == "held" and message.until <= self.now():
                message.back(counts=True)

    @rule(keys=st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=8))
    def publish(self, keys: list[str | None]) -> None:
        """A batch."""
        first = len(self.messages)
        self.messages += [Modelled(key) for key in keys]
        results = self.writer.publish([Message(b"%04d" % (first + n), key=key) for n, key in enumerate(keys)])
        assert all(result.error is None for result in results)

    @rule(owner=OWNERS, limit=st.integers(1, 6), max_bytes=st.sampled_from([1, 9, MUCH]))
    def take(self, owner: int, limit: int, max_bytes: int) -> None:
        """What comes is what may come, and something comes when something may."""
        self.end_leases()
        available = self.available(owner)
        chunks = take(self.owners[owner], limit, max_bytes=max_bytes)
        renewed = [n for n, handle in self.handles[owner].items() if handle.delivery.native is not handle.native]
        fresh = [(int(delivery.message.body or b""), chunk, i) for chunk in chunks for i, delivery in enumerate(chunk)]
        numbers = [n for n, _, _ in fresh]
        assert bool(renewed or numbers) == available
        assert max_bytes == MUCH or len(numbers) <= max(max_bytes // 4, 1)
        assert len(numbers) <= limit
        for n, chunk, index in fresh:
            assert n not in self.handles[owner]
            assert chunk[index].attempt == self.messages[n].attempt
            self.handles[owner][n] = Handle(chunk, index, chunk[index].native)
        self.hand_over(owner, [*renewed, *numbers], in_order=numbers)

    def hand_over(self, owner: int, numbers: list[int], in_order: list[int]) -> None:
        """Each was free, each key is one owner's, and no key was overtaken."""
        for n in numbers:
            message = self.messages[n]
            assert (message.state, message.due <= self.now()) == ("waiting", True)
            message.state, message.owner, message.until = "held", owner, self.now() + LEASE
            self.handles[owner][n].native = self.handles[owner][n].delivery.native
        for key in {self.messages[n].key for n in numbers} - {None}:
            of_key = [(n, message) for n, message in enumerate(self.messages) if message.key == key]
            last = max(n for n in numbers if self.messages[n].key == key)
            assert {message.owner for _, message in of_key if message.state == "held"} == {owner}
            assert all(message.state != "waiting" for n, message in of_key if n < last)
            came = [n for n in in_order if self.messages[n].key == key]
            assert came == sorted(came)

    def available(self, owner: int) -> bool:
        """Whether something may be handed to this owner now."""
        blocked = {m.key for m in self.messages if m.state == "held" and m.owner != owner and m.key is not None}
        for message in self.messages:
            if message.state == "waiting":
                if message.due <= self.now() and message.key not in blocked:
                    return True
                if message.key is not None:
                    blocked.add(message.key)
        return False

    @rule(owner=OWNERS, picks=PICKS, verdict=st.sampled_from(Verdict), delay=st.sampled_from([0.0, 5.0]))
    def settle(self, owner: int, picks: set[int], verdict: Verdict, delay: float) -> None:
        """A verdict takes effect on what is held, and on nothing else."""
        self.end_leases()
        numbers = [n for pick, n in enumerate(sorted(self.handles[owner])) if pick in picks]
        if not numbers:
            return
        handles = [self.handles[owner].pop(n) for n in numbers]
        spans = [(handle.chunk, slice(handle.index, handle.index + 1)) for handle in handles]
        failures = self.owners[owner].settle([Settlement(verdict=verdict, spans=spans, delay=delay, reason="why")])
        lost = [int(failure.delivery.message.body or b"") for failure in failures]
        held = [n for n in numbers if (self.messages[n].state, self.messages[n].owner) == ("held", owner)]
        assert sorted(lost) == sorted(set(numbers) - set(held))
        assert all(isinstance(failure.error, LeaseLostError) for failure in failures)
        for n in held:
            self.carry_out(self.messages[n], verdict, delay)

    def carry_out(self, message: Modelled, verdict: Verdict, delay: float) -> None:
        """What a verdict means."""
        match verdict:
            case Verdict.ACK:
                message.state = "acked"
            case Verdict.DEAD_LETTER:
                message.state = "dead"
            case Verdict.RELEASE:
                message.back(counts=False)
            case Verdict.RETRY:
                message.back(counts=True, due=self.now() + delay if delay else 0.0)

    @rule(owner=OWNERS, picks=PICKS)
    def extend(self, owner: int, picks: set[int]) -> None:
        """A lease that runs is prolonged, and no other; what was lost is held no more."""
        self.end_leases()
        numbers = [n for pick, n in enumerate(sorted(self.handles[owner])) if pick in picks]
        results = self.owners[owner].extend([self.handles[owner][n].delivery for n in numbers], LEASE)
        for n, result in zip(numbers, results, strict=True):
            message = self.messages[n]
            holds = (message.state, message.owner) == ("held", owner)
            assert (result.error is None) == holds
            if holds:
                message.until = self.now() + LEASE
            else:
                del self.handles[owner][n]

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0]))
    def pass_time(self, seconds: float) -> None:
        """Delays and leases run out."""
        self.place.clock.advance(seconds)

    @rule()
    def expire(self) -> None:
        """All leases end."""
        self.end_leases()
        self.place.broker.expire()
        for message in self.messages:
            if message.state == "held":
                message.back(counts=True)

    @rule(owner=OWNERS)
    def open_again(self, owner: int) -> None:
        """What was held is handed back, untouched."""
        self.end_leases()
        self.owners[owner].open()
        self.handles[owner].clear()
        for message in self.messages:
            if message.state == "held" and message.owner == owner:
                message.back(counts=False)

    @rule()
    def count_what_waits(self) -> None:
        """The backlog is what waits; a lease that has run out since the last call may count or not."""
        ended = sum(message.state == "held" and message.until <= self.now() for message in self.messages)
        waiting = sum(message.state == "waiting" for message in self.messages)
        backlog = self.owners[0].backlog()
        assert backlog is not None
        assert waiting <= (backlog.waiting or 0) <= waiting + ended

    def teardown(self) -> None:
        """Nothing was lost, and the dead letters are exact."""
        for owner in self.owners:
            owner.close()
        self.place.clock.advance(100)
        last, dead = self.place.subscriber(), self.place.subscriber(dead=True)
        rest: list[int] = []
        while chunks := take(last, 5):
            rest += [int(body or b"") for body in bodies(chunks)]
            say(last, Verdict.ACK, chunks)
        letters = [int(body or b"") for body in bodies(take(dead))]
        self.place.close()
        self.folder.cleanup()
        assert sorted(rest) == [n for n, m in enumerate(self.messages) if m.state in ("waiting", "held")]
        assert sorted(letters) == [n for n, m in enumerate(self.messages) if m.state == "dead"]
        for key in "abc":
            came = [n for n in rest if self.messages[n].key == key]
            assert came == sorted(came)


class FileModel(BrokerModel):
    """The same, in a file."""

    storage = "file"


_common = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), stateful_step_count=40)

TestMemoryModel = BrokerModel.TestCase
TestMemoryModel.settings = settings(_common, max_examples=200)
TestFileModel = FileModel.TestCase
TestFileModel.settings = settings(_common, max_examples=60)
