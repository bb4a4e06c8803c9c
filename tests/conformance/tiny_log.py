"""A log in a few lines, in memory: lanes, claims and committed positions, for the cases that ask for them."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Self

from eventflows.errors import (
    BrokerError,
    CapabilityError,
    ClosedError,
    InvalidMessageError,
    LeaseLostError,
)
from eventflows.message import Chunk, Delivery, Lane, Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import (
    Backlog,
    Capabilities,
    ExtendResult,
    PublishResult,
    SettleFailure,
    Subscriber,
)
from eventflows.testing import Harness

CAPABILITIES = Capabilities(settle="watermark", ordering="lane", groups=True, replay=True, durable=False)
LANES = 2


class Log:
    """One topic: lanes of (offset, message), and what each group has committed."""

    def __init__(self) -> None:
        self.lanes: list[list[tuple[int, Message]]] = [[] for _ in range(LANES)]
        self.next = [0] * LANES
        self.committed: dict[str, dict[int, int]] = {}
        self.owners: dict[tuple[str, int], Lane] = {}
        self.changed = threading.Condition()

    def append(self, message: Message, *, gap: int = 0) -> str:
        """Write one message, after a gap of offsets that hold none."""
        number = zlib.crc32((message.key or str(message.body)).encode()) % LANES
        with self.changed:
            offset = self.next[number] + gap
            self.lanes[number].append((offset, message))
            self.next[number] = offset + 1
            self.changed.notify_all()
        return f"{number}:{offset}"


class Broker:
    """Every topic of a test."""

    def __init__(self) -> None:
        self.logs: dict[str, Log] = {}

    def log(self, name: str) -> Log:
        """Give a topic, made at its first use."""
        return self.logs.setdefault(name, Log())


class Claim:
    """One lane as one owner has it: what was received, what is done, what is committed."""

    def __init__(self, number: int, lane: Lane, position: int) -> None:
        self.number = number
        self.lane = lane
        self.read = position
        self.offsets: list[int] = []
        self.done: set[int] = set()
        self.acked: set[int] = set()

    def watermark(self, committed: int) -> int:
        """Give one past the last of the unbroken prefix of what was received."""
        while self.offsets and self.offsets[0] in self.done:
            committed = self.offsets.pop(0) + 1
        return committed


class TinySubscriber:
    """Claims every free lane of a topic when it opens."""

    capabilities = CAPABILITIES
    ready = False

    def __init__(self, broker: Broker, name: str, group: str) -> None:
        self._broker = broker
        self._name = name
        self._group = group
        self._log = broker.log(name)
        self._claims: dict[Lane, Claim] = {}
        self._open = self._closed = False
        self._woken = False

    def open(self, *, timeout: float = 30.0) -> None:
        """Lose every lane, then claim the free ones."""
        self.lose()
        self._log = self._broker.log(self._name)
        self._open, self._closed, self.ready = True, False, True
        committed = self._log.committed.setdefault(self._group, {})
        for number in range(LANES):
            if (self._group, number) not in self._log.owners:
                lane = Lane(f"{self._name}/{number}")
                self._log.owners[self._group, number] = lane
                self._claims[lane] = Claim(number, lane, committed.get(number, 0))

    def lose(self) -> None:
        """End every claim."""
        for lane, claim in self._claims.items():
            with lane.lock:
                lane.lose()
            self._log.owners.pop((self._group, claim.number), None)
        self._claims = {}

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Read on from where each claim is."""
        if self._closed:
            raise ClosedError("closed")
        if not self._open or self._broker.log(self._name) is not self._log:
            self.open()
        deadline = time.monotonic() + timeout
        with self._log.changed:
            while limit:
                for claim in self._claims.values():
                    chunk = None if claim.lane in skip else self._read(claim, limit, max_bytes)
                    if chunk is not None:
                        return [chunk]
                if self._woken or self._closed or time.monotonic() >= deadline:
                    break
                self._log.changed.wait(max(deadline - time.monotonic(), 0))
            self._woken = False
        return []

    def _read(self, claim: Claim, limit: int, max_bytes: int) -> Chunk | None:
        found: list[tuple[int, Message]] = []
        size = 0
        for offset, message in self._log.lanes[claim.number]:
            size += len(message.body or b"") if offset >= claim.read else 0
            if offset >= claim.read and len(found) < limit and (size <= max_bytes or not found):
                found.append((offset, message))
        if not found:
            return None
        claim.read = found[-1][0] + 1
        claim.offsets += [offset for offset, _ in found]

        def build(index: int) -> Delivery:
            offset, message = found[index]
            place = f"{claim.number}:{offset}"
            return Delivery(message=message, source=self._name, position=place, identity=place, lane=claim.lane)

        return Chunk([message.body for _, message in found], build, lane=claim.lane)

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Commit the unbroken prefix of what is acked."""
        if any(one.verdict in (Verdict.RETRY, Verdict.DEAD_LETTER) for one in settlements):
            raise CapabilityError("a log can neither redeliver nor keep dead letters")
        failures = []
        for settlement in settlements:
            for chunk, span in settlement.spans:
                for delivery in chunk[span]:
                    failures += self._settle_one(delivery, settlement.verdict)
        return failures

    def _settle_one(self, delivery: Delivery, verdict: Verdict) -> list[SettleFailure]:
        lane, offset = delivery.lane, int(delivery.position.partition(":")[2])
        claim = self._claims.get(lane) if lane is not None else None
        if lane is None or claim is None or lane.lost or offset in claim.acked:
            return [SettleFailure(delivery, LeaseLostError(f"{delivery.position} is not ours any more"))]
        if verdict is Verdict.ACK:
            with lane.lock:
                claim.acked.add(offset)
                claim.done.add(offset)
                self.commit(claim)
        return []

    def commit(self, claim: Claim) -> None:
        """Commit, the lane's lock held."""
        committed = self._log.committed[self._group]
        committed[claim.number] = claim.watermark(committed.get(claim.number, 0))

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Refuse: a log has no leases."""
        raise CapabilityError("a log has no lease to extend")

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Do nothing: every settlement is committed at once."""
        return []

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say nothing."""
        return None

    def wake(self) -> None:
        """End a blocked receive."""
        with self._log.changed:
            self._woken = True
            self._log.changed.notify_all()

    def close(self, *, timeout: float = 30.0) -> None:
        """Give up every claim."""
        self.lose()
        self._closed = True
        self.wake()

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class _Sent:
    def __init__(self, results: list[PublishResult]) -> None:
        self._results = results

    def results(self, timeout: float) -> list[PublishResult]:
        return self._results


class TinyPublisher:
    """Appends."""

    capabilities = CAPABILITIES

    def __init__(self, broker: Broker, name: str) -> None:
        self._broker = broker
        self._name = name
        self._closed = False

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect to nothing."""
        self._closed = False

    def send(self, batch: Sequence[Message]) -> _Sent:
        """Append at once."""
        if self._closed:
            raise ClosedError("closed")
        return _Sent([self._append(message) for message in batch])

    def _append(self, message: Message) -> PublishResult:
        texts = [*message.headers, *message.headers.values()]
        if message.options or not all(isinstance(text, str) for text in texts):
            error: BrokerError = InvalidMessageError("a header or an option that a log does not take")
            return PublishResult(error=error)
        return PublishResult(self._broker.log(self._name).append(message))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Append."""
        return self.send(batch).results(timeout)

    def close(self, *, timeout: float = 30.0) -> None:
        """Close it."""
        self._closed = True

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class TinyLogHarness(Harness):
    """The log under test; subclasses break it."""

    name = "the tiny log"
    patience = 3.0
    quiet = 0.05
    short = 0.2
    volume = 64
    kind: type[TinySubscriber] = TinySubscriber

    def __init__(self) -> None:
        self.log = Broker()

    @property
    def capabilities(self) -> Capabilities:
        """As a log."""
        return CAPABILITIES

    def subscriber(self, name: str, group: str | None = None, **options: object) -> Subscriber:
        """Make one directly: the log has no URL."""
        return self.kind(self.log, name, group or "group")

    def publisher(self, name: str, **options: object) -> TinyPublisher:
        """Make one directly: the log has no URL."""
        return TinyPublisher(self.log, name)

    def committed(self, name: str, group: str | None = None) -> Mapping[str, int]:
        """Look into the log."""
        found = self.log.log(name).committed.get(group or "group", {})
        return {str(number): position for number, position in found.items()}

    def revoke(self, subscriber: Subscriber) -> bool:
        """End its claims."""
        assert isinstance(subscriber, TinySubscriber)
        subscriber.lose()
        return True

    def make_gaps(self, name: str) -> list[bytes]:
        """Skip two offsets before each message."""
        for number in range(5):
            self.log.log(name).append(Message(b"%d" % number, key="one"), gap=2)
        return [b"0", b"1", b"2", b"3", b"4"]

    def recreate(self, name: str) -> bool:
        """Forget the topic; its claims end with it."""
        for lane in self.log.logs.pop(name).owners.values():
            lane.lose()
        return True
