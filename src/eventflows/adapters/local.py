"""The embedded broker: `local://`, in memory or in one SQLite file.

Names:
    A *queue* and a *topic* are the same here: a name. Each *group* (default "default") is a *subscription* of its
    own; subscribers of one group share its messages. A delivery has a *lease* of 30 seconds.

Guarantees:
    At least once. Messages of one key are handed out in order, to one subscriber at a time. A new group begins at
    the oldest message that is kept. Memory lives as long as the process, whatever is closed. In a file, what was
    published or settled before a process was killed is kept, and what a dead process held comes back at once.

    With `emulate=kafka`, `eventhubs`, `sqs` (FIFO where the name ends in `.fifo`) or `servicebus` it can no more than
    these: logs have partitions, offsets and positions, queues count what is handed back, and sizes are limited.

Cannot:
    Messages without a key have no order: they come shuffled. There are no lanes and no transactions. A tombstone
    (a body of None) is refused.

Limits:
    A message may have 16 MiB and 256 headers, our own limits: beyond them a broker is the wrong tool. One file is
    shared by processes of one machine, on a local disk; it is neither removed nor replaced while one of them runs.

Native access:
    `Delivery.native` is a `Receipt`: the grant it came in, and its index there; on a log it is partition and offset.
"""

from __future__ import annotations

import datetime
import itertools
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Final, Literal, NamedTuple, Self, TypeVar, cast

import attrs

from eventflows.adapters._local_emulate import LOGS, NAMES, profile_of
from eventflows.adapters._local_faults import FakeClock, Faults
from eventflows.adapters._local_log import PARTITIONS, LogStore, MemoryLog
from eventflows.adapters._local_memory import MemoryStore
from eventflows.adapters._local_store import Grant, Store, Word
from eventflows.errors import (
    BrokerError,
    CapabilityError,
    ClosedError,
    ConfigError,
    InvalidMessageError,
    LeaseLostError,
    OutcomeUnknownError,
    TooLargeError,
)
from eventflows.message import Batch, Chunk, Delivery, Lane, Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import (
    AdapterSpec,
    Backlog,
    Capabilities,
    ExtendResult,
    Finding,
    Location,
    Option,
    Pending,
    Publisher,
    PublishResult,
    SettleFailure,
    Subscriber,
)

_T = TypeVar("_T")

LEASE: Final = 30.0
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_HEADERS: Final = 256
LONGEST_DELAY: Final = 30 * 86_400.0

CAPABILITIES: Final = Capabilities(
    settle="message",
    redeliver=True,
    redeliver_delay=LONGEST_DELAY,
    release="free",
    dead_letter=True,
    delivery_count=True,
    lease="message",
    ordering="key",
    groups=True,
    replay=True,
    durable=False,
    peek="free",
    max_receive=1000,
    max_publish_bytes=MAX_BYTES,
    max_headers=MAX_HEADERS,
)


class Receipt(NamedTuple):
    """Where a delivery came from; the right to settle it."""

    grant: Grant
    place: int
    """Its index in the grant."""


class LocalBroker:
    """One broker in this process: a name in memory, or a name in a file.

    Args:
        name: Of the queue or topic.
        place: Where its messages are.
        emulate: What it plays; empty: itself.
    """

    def __init__(self, name: str, place: Store | LogStore, emulate: str = "") -> None:
        self.name = name
        self.emulate = emulate
        self._place = place
        self.faults = Faults()
        self.faults.on_expire(self.expire)
        self.expiries = 0
        """How often all leases were ended at once."""

    @property
    def is_log(self) -> bool:
        """Whether it has partitions, not leases."""
        return self.emulate in LOGS

    @property
    def store(self) -> Store:
        """Its messages, as a queue keeps them."""
        return cast("Store", self._place)

    @property
    def log(self) -> LogStore:
        """Its messages, as a log keeps them."""
        return cast("LogStore", self._place)

    @property
    def clock(self) -> Callable[[], float]:
        """The clock of its leases and delays."""
        return self._place.clock

    def expire(self) -> None:
        """End all leases now; a log has none."""
        self.expiries += 1
        if not self.is_log:
            self.store.expire()


_brokers: dict[tuple[str, str | None, bool], LocalBroker] = {}
_brokers_lock = threading.Lock()


def local_broker(url: str, *, clock: Callable[[], float] | None = None, seed: int | None = None) -> LocalBroker:
    """Find, or make, the broker of a URL in this process, to inject a clock before its first use, or faults.

    Args:
        url: `local://name`, with `file=` or without.
        clock: Seconds, such as a `FakeClock`; taken at the first use only.
        seed: Of the shuffle; taken at the first use only.
    """
    found = re.match(r"local://([^/?]+)(?:\?(.*))?$", url)
    if found is None:
        raise ConfigError(f"{url!r} is not local://name.")
    given = {}
    for part in filter(None, (found[2] or "").split("&")):
        option, _, value = part.partition("=")
        given[option] = urllib.parse.unquote(value)
    partitions = int(given["partitions"]) if "partitions" in given else None
    emulate = given.get("emulate", "")
    return _broker(found[1], given.get("file"), clock=clock, seed=seed, emulate=emulate, partitions=partitions)


def forget(name: str) -> None:
    """Forget a memory broker and all its messages, for tests."""
    with _brokers_lock:
        _brokers.pop((name, None, False), None)


def _broker(
    name: str,
    file: str | None,
    *,
    sync: str = "normal",
    clock: Callable[[], float] | None = None,
    seed: int | None = None,
    emulate: str = "",
    partitions: int | None = None,
) -> LocalBroker:
    path = None if file is None else os.path.abspath(file)
    with _brokers_lock:
        broker = _brokers.get((name, path, sync == "full"))
        if broker is None:
            place = _place(name, path, sync=sync, clock=clock, seed=seed, emulate=emulate, partitions=partitions)
            broker = _brokers[name, path, sync == "full"] = LocalBroker(name, place, emulate)
            if isinstance(clock, FakeClock):
                clock.tell(place.wake)
        if broker.emulate != emulate:
            known = f"emulate={broker.emulate}" if broker.emulate else "no emulate="
            raise ConfigError(f"local://{name} is in use with {known}; write the same in all URLs of it.")
        if broker.is_log and partitions not in (None, broker.log.partitions):
            raise ConfigError(
                f"local://{name} has {broker.log.partitions} partitions; partitions={partitions} is possible for a "
                "new name only."
            )
        return broker


def _place(
    name: str,
    path: str | None,
    *,
    sync: str,
    clock: Callable[[], float] | None,
    seed: int | None,
    emulate: str,
    partitions: int | None,
) -> Store | LogStore:
    if path is None and emulate in LOGS:
        return MemoryLog(partitions or PARTITIONS, clock=clock or time.monotonic, turn=seed or 0)
    if path is None:
        return MemoryStore(clock=clock or time.monotonic, seed=seed, exclusive=_fifo(name, emulate))
    from eventflows.adapters._local_log_file import FileLog, logs_in

    if emulate in LOGS:
        return FileLog(path, name, sync=sync, partitions=partitions, turn=seed)
    from eventflows.adapters._local_sqlite import SqliteStore

    if name in logs_in(path, sync):
        raise ConfigError(f"local://{name} is a log in {path}, not a queue: give all its URLs the same emulate=.")
    return SqliteStore(path, name, sync=sync, clock=clock, seed=seed, exclusive=_fifo(name, emulate))


def _fifo(name: str, emulate: str) -> bool:
    return emulate == "sqs" and name.endswith(".fifo")


def _after_fork() -> None:
    global _brokers_lock
    _brokers_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class LocalChunk(Chunk):
    """A chunk that knows its grant, and what became of each message since.

    Args:
        grant: What was handed out.
        build: Makes the delivery at an index of the chunk.
        lease_until: When its lease ends.
        only: The indices of the grant that are new; None: all.
    """

    __slots__ = ("grant", "numbers", "renewed", "said")

    def __init__(
        self, grant: Grant, build: Callable[[int], Delivery], lease_until: float, only: list[int] | None = None
    ) -> None:
        def column(values: Sequence[_T] | None) -> Sequence[_T] | None:
            return values if only is None or values is None else [values[index] for index in only]

        super().__init__(
            grant.bodies if only is None else [grant.bodies[index] for index in only],
            build,
            keys=column(grant.keys),
            content_types=column(grant.content_types),
            headers=column(grant.headers),
            attempt=max(grant.attempts.values(), default=1),
            lease_until=lease_until,
        )
        self.grant = grant
        self.numbers = grant.numbers if only is None else [grant.numbers[index] for index in only]
        self.said = bytearray(len(self.numbers))
        """1 for each that was settled by whoever holds it."""
        self.renewed = {} if only is None else {i: Receipt(grant, index) for i, index in enumerate(only)}
        """By index: the newest receipt of a message, where it is not in its own place in the grant."""

    def receipt(self, index: int) -> Receipt:
        """Give the newest receipt of a message."""
        return self.renewed.get(index, Receipt(self.grant, index))

    def parts(self, start: int, stop: int) -> list[tuple[Grant, int, int]]:
        """Give the stretch as stretches of the grants that hold it now."""
        if not self.renewed:
            return [(self.grant, start, stop)]
        receipts = [self.receipt(index) for index in range(start, stop)]
        return [(grant, index, index + 1) for grant, index in receipts]

    def renew(self, index: int, receipt: Receipt, until: float) -> None:
        """Replace the handle of a message that was received again."""
        self.renewed[index] = receipt
        delivery = self[index]
        delivery.native, delivery.lease_until = receipt, until

    def position(self, index: int) -> str:
        """Give the sequence number."""
        return str(self.numbers[index])

    def positions_of(self, start: int, stop: int) -> list[str]:
        """Give the sequence numbers of a stretch."""
        return list(map(str, self.numbers[start:stop]))


class Adapter:
    """What subscriber and publisher share: opening, closing, being cut off."""

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        self._location = location
        self._options = options
        self._open = False
        self._closed = False
        self._epoch = 0
        self._found: LocalBroker | None = None

    @property
    def _broker(self) -> LocalBroker:
        if self._found is None:
            self._found = _broker(
                self._location.authority,
                _text(self._options.get("file")),
                sync=str(self._options.get("sync", "normal")),
                seed=_number(self._options.get("seed")),
                emulate=str(self._options.get("emulate", "")),
                partitions=_number(self._options.get("partitions")),
            )
        return self._found

    def _enter(self, operation: str, timeout: float) -> LocalBroker:
        if self._closed:
            raise ClosedError(f"{self._location.text} was closed; open it again, or make a new one.")
        if not self._open:
            self.open(timeout=timeout)
        broker = self._broker
        broker.faults.cut(self._epoch)
        if broker.faults.set:
            broker.faults.meet(operation, timeout)  # type: ignore[arg-type]
        return broker

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect."""
        broker = self._broker
        if broker.faults.set:
            broker.faults.meet("open", timeout)
        self._epoch = broker.faults.epoch
        self._open, self._closed = True, False

    def close(self, *, timeout: float = 30.0) -> None:
        """Disconnect; the second call does nothing."""
        self._open, self._closed = False, True

    def entities(self) -> Sequence[str]:
        """Give the names that this process, or the file, has."""
        file = _text(self._options.get("file"))
        if file is None:
            with _brokers_lock:
                return sorted(name for name, path, _ in _brokers if path is None)
        from eventflows.adapters._local_log_file import logs_in
        from eventflows.adapters._local_sqlite import names_in

        return sorted({*names_in(os.path.abspath(file)), *logs_in(os.path.abspath(file))})

    def check(self) -> Sequence[Finding]:
        """Look whether the file can be used; one that is not there is not made."""
        file = _text(self._options.get("file"))
        folder = "." if file is None else os.path.dirname(os.path.abspath(file))
        if not os.path.isdir(folder):
            return [Finding("error", f"{self._location.text}: {folder} is not a folder", "Make it first.")]
        if not os.access(folder, os.W_OK) and file is not None:
            return [Finding("error", f"{self._location.text}: {folder} cannot be written", "Allow this user to.")]
        try:
            if self._broker.is_log:
                self._broker.log.ends()
            else:
                self._broker.store.backlog(str(self._options.get("group", "default")))
        except (BrokerError, ConfigError) as error:
            return [Finding("error", f"{self._location.text}: {error}", "Mend what it says.")]
        return [Finding("ok", f"{self._location.text} can be used")]

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class LocalSubscriber(Adapter):
    """Reads one group of one name.

    Args:
        location: The source.
        options: `file`, `group`, `lease`, `retain`, `dead-letter`, `sync`, `seed`.
    """

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        super().__init__(location, options)
        self.capabilities = _capabilities(location, options)
        self.ready = False
        self._group = str(options.get("group", "default"))
        self._lease = float(str(options.get("lease", LEASE)))
        self._woken = False
        self.now: Callable[[], float] = time.monotonic
        """What the ends of leases are told in; a simulation has its own."""
        self._owner: object = object()
        self._joined = False
        self._chunks: list[LocalChunk] = []
        if "dead-letter" in options:
            self._dead_of, self._group = self._group, "default"
        else:
            self._dead_of = ""

    @property
    def _store(self) -> Store:
        store = self._broker.store
        return store.dead(self._dead_of) if self._dead_of else store

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and join the group."""
        if self._open and self._joined:
            self._hand_back()
        self._owner = object()
        self._chunks = []
        super().open(timeout=timeout)
        self._store.join(self._group, float(str(self._options.get("retain", 0.0))))
        self._joined = self.ready = True

    def _hand_back(self) -> None:
        """Give back all that is held."""
        self._store.release(self._group, self._owner)

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages."""
        self._enter("receive", timeout)
        store = self._store
        deadline = time.monotonic() + timeout
        while True:
            seen = store.version
            if limit > 0:
                grant = store.take(self._group, self._owner, limit, max(max_bytes, 1), self._lease)
                if grant is not None:
                    fresh = self._fresh(grant)
                    if fresh:
                        return fresh
                    continue
            left = deadline - time.monotonic()
            if self._woken or left <= 0:
                self._woken = False
                return []
            store.wait(self._group, left, lambda: self._woken, seen)
            self._broker.faults.cut(self._epoch)

    def _fresh(self, grant: Grant) -> Sequence[Chunk]:
        """Make chunks of a grant; none when all of it is held already, by earlier ones."""
        offset = self.now() - self._store.clock()
        self._chunks = [chunk for chunk in self._chunks if not all(chunk.said)]
        known = self._known(grant) if grant.attempts and self._chunks else {}
        for index, (chunk, where) in known.items():
            chunk.renew(where, Receipt(grant, index), grant.until + offset)
        if len(known) == len(grant.numbers):
            return []
        only = [index for index in range(len(grant.numbers)) if index not in known] if known else None
        fresh = self._cut(grant, offset, only)
        self._chunks += fresh
        return fresh

    def _cut(self, grant: Grant, offset: float, only: list[int] | None) -> list[LocalChunk]:
        return [LocalChunk(grant, self._builder(grant, offset, only), grant.until + offset, only)]

    def _known(self, grant: Grant) -> dict[int, tuple[LocalChunk, int]]:
        """Find what is received again though whoever got it before has not settled it."""
        held = {
            number: (chunk, index)
            for chunk in self._chunks
            for index, number in enumerate(chunk.numbers)
            if not chunk.said[index]
        }
        return {i: held[n] for i, n in enumerate(grant.numbers) if i in grant.attempts and n in held}

    def _builder(self, grant: Grant, offset: float, only: list[int] | None) -> Callable[[int], Delivery]:

        def build(index: int) -> Delivery:
            index = index if only is None else only[index]
            number = grant.numbers[index]
            message = grant.message(index)
            if message.id is None:
                message = attrs.evolve(message, id=str(number))
            return Delivery(
                message=message,
                source=self._location.text,
                position=str(number),
                identity=f"{self._location.authority}/{self._dead_of}/{self._group}/{number}",
                attempt=grant.attempt(index),
                lease_until=grant.lease(index) + offset,
                enqueued_at=datetime.datetime.fromtimestamp(grant.published(index), datetime.UTC),
                native=Receipt(grant, index),
            )

        return build

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Carry out verdicts; in a file they are on disk when this returns."""
        if not self.capabilities.dead_letter and any(s.verdict is Verdict.DEAD_LETTER for s in settlements):
            raise CapabilityError(f"{self._location.text} keeps no dead letters of dead letters.")
        broker = self._enter("settle", timeout)
        failures: list[SettleFailure] = []
        words: list[Word] = []
        settled: list[tuple[LocalChunk, int, int]] = []
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, LocalChunk)  # noqa: S101 - for the type checker: chunks come from receive
                start, stop, _ = stretch.indices(len(chunk))
                for first, last in self._unless_refused(broker, chunk, start, stop, failures):
                    words.extend(self._words(chunk, first, last, settlement, failures))
                    settled.append((chunk, first, last))
        for grant, index in self._store.settle(self._group, words):
            delivery = self._delivery_of(grant, index, settlements)
            failures.append(SettleFailure(delivery, _lease_lost(delivery)))
        for chunk, first, last in settled:
            chunk.said[first:last] = b"\1" * (last - first)
        return failures

    def _words(
        self, chunk: LocalChunk, start: int, stop: int, settlement: Settlement, failures: list[SettleFailure]
    ) -> list[Word]:
        """Say the verdict on what this subscriber holds; what it got before it was opened again is lost."""
        delay = min(settlement.delay, LONGEST_DELAY)
        words = []
        at = start
        for grant, first, last in chunk.parts(start, stop):
            if grant.owner is self._owner:
                words.append(Word(grant, first, last, settlement.verdict, delay, settlement.reason, settlement.detail))
            else:
                failures.extend(SettleFailure(one, _lease_lost(one)) for one in chunk[at : at + last - first])
            at += last - first
        return words

    @staticmethod
    def _delivery_of(grant: Grant, index: int, settlements: Sequence[Settlement]) -> Delivery:
        for settlement in settlements:
            for chunk, _ in settlement.spans:
                if isinstance(chunk, LocalChunk) and grant.numbers[index] in chunk.numbers:
                    return chunk[chunk.numbers.index(grant.numbers[index])]
        raise AssertionError("a settlement of a grant that was not settled")

    @staticmethod
    def _unless_refused(
        broker: LocalBroker, chunk: Chunk, start: int, stop: int, failures: list[SettleFailure]
    ) -> list[tuple[int, int]]:
        if not broker.faults.settlements():
            return [(start, stop)]
        parts = []
        for index in range(start, stop):
            error = broker.faults.of_settlement(chunk[index])
            if error is None:
                parts.append((index, index + 1))
            else:
                failures.append(SettleFailure(chunk[index], error))
        return parts

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Keep deliveries for longer."""
        broker = self._enter("extend", timeout)
        receipts: list[tuple[Grant, int]] = []
        for one in held:
            if not isinstance(one, Delivery) or not isinstance(one.native, Receipt):
                raise CapabilityError(f"{self._location.text} leases deliveries; this is none of its own.")
            receipts.append((one.native.grant, one.native.place))
        refused = [broker.faults.of_extension() for _ in held] if broker.faults.set else [None] * len(held)
        asked = [receipt for receipt, error in zip(receipts, refused, strict=True) if error is None]
        ends = iter(self._store.extend(self._group, asked, seconds))
        offset = self.now() - self._store.clock()
        results: list[ExtendResult] = []
        for one, error in zip(held, refused, strict=True):
            assert isinstance(one, Delivery)  # noqa: S101 - for the type checker: looked at above
            if error is not None:
                results.append(ExtendResult(one, None, error))
            elif (end := next(ends)) is None:
                results.append(ExtendResult(one, None, _lease_lost(one)))
            else:
                one.lease_until = end + offset
                results.append(ExtendResult(one, one.lease_until))
        return results

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Nothing waits: what was settled is settled."""
        return []

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits."""
        waiting, oldest = self._store.backlog(self._group)
        return Backlog(waiting=waiting, oldest_age=None if oldest is None else max(time.time() - oldest, 0.0))

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at what waits; makes no group."""
        broker = self._broker
        if broker.faults.set:
            broker.faults.meet("peek", timeout)
        if start is not None and not start.isdecimal():
            raise ConfigError(f"start={start!r}: a position here is a sequence number, such as 42.")
        return [
            Delivery(
                message=one.message if one.message.id else attrs.evolve(one.message, id=str(one.number)),
                source=self._location.text,
                position=str(one.number),
                identity=f"{self._location.authority}/{self._dead_of}/{self._group}/{one.number}",
                attempt=one.attempt,
                enqueued_at=datetime.datetime.fromtimestamp(one.published, datetime.UTC),
            )
            for one in self._store.peek(self._group, limit, None if start is None else int(start))
        ]

    def dead_letters(self) -> Subscriber:
        """Give a subscriber of this group's dead letters, not opened."""
        if self._dead_of:
            raise CapabilityError(f"{self._location.text} keeps no dead letters of dead letters.")
        mark = "&" if "?" in self._location.text else "?"
        location = attrs.evolve(self._location, text=f"{self._location.text}{mark}dead-letter")
        return LocalSubscriber(location, {**self._options, "dead-letter": True})

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        self._woken = True
        if self._found is not None:
            self._store.wake()

    def close(self, *, timeout: float = 30.0) -> None:
        """Hand back what is held, untouched, and leave."""
        if self._open and self._joined:
            self._hand_back()
        self.ready = False
        super().close(timeout=timeout)
        if self._found is not None:
            self._store.wake()


def _lease_lost(delivery: Delivery) -> LeaseLostError:
    return LeaseLostError(
        f"{delivery.source} has taken {delivery.position} back: its lease ended, or it was settled before."
    )


class Answered:
    """Results that are there already."""

    def __init__(self, results: list[PublishResult]) -> None:
        self._results = results

    def results(self, timeout: float) -> list[PublishResult]:
        """Give them."""
        return self._results


class LocalPublisher(Adapter):
    """Writes to one name.

    Args:
        location: The destination.
        options: `file`, `sync`, `seed`.
    """

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        super().__init__(location, options)
        self.capabilities = _capabilities(location, options)

    def send(self, batch: Sequence[Message]) -> Pending:
        """Publish; the answers are there at once."""
        return Answered(self.publish(batch))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish; in a file the messages are on disk when this returns."""
        batch = Batch.of(batch)
        errors = _refused(batch)
        if len(errors) == len(batch) and not self._closed:
            return [PublishResult(None, errors[index]) for index in range(len(batch))]
        try:
            broker = self._enter("publish", timeout)
        except OutcomeUnknownError as error:
            return [PublishResult(None, errors.get(index, error)) for index in range(len(batch))]
        if broker.faults.set:
            for index, message in enumerate(batch):
                fault = broker.faults.of_message(message)
                if fault is not None:
                    errors[index] = fault
        if not errors:
            # One tuple.__new__ for each, in C: this is the hot path of every flow that publishes.
            ids = broker.store.publish(batch)
            return list(map(tuple.__new__, itertools.repeat(PublishResult), zip(ids, itertools.repeat(None))))
        good = iter(broker.store.publish([m for index, m in enumerate(batch) if index not in errors]))
        return [
            PublishResult(None, errors[index]) if index in errors else PublishResult(next(good), None)
            for index in range(len(batch))
        ]


def _refused(batch: Batch) -> dict[int, BrokerError]:
    """Find the faulty ones; looks closer only where a column has something that may be faulty: most have not."""
    try:
        plain = (
            set(map(type, batch.bodies)) <= {bytes}
            and max(map(len, cast("Sequence[bytes]", batch.bodies)), default=0) <= MAX_BYTES // 2
            and not any(batch.headers)
            and not any(batch.options)
            and _short(batch.keys)
            and _short(batch.ids)
            and _short(set(batch.content_types))
        )
    except TypeError:  # something that should be text is not
        plain = False
    faults = {} if plain else {index: _fault(message) for index, message in enumerate(batch)}
    return {index: fault for index, fault in faults.items() if fault is not None}


def _short(texts: Iterable[str | None]) -> bool:
    """Say whether all of them together are short, and bytes as they are."""
    joined = "".join(filter(None, texts))
    return len(joined) <= MAX_BYTES // 2 and joined.isascii()


def _fault(message: Message) -> BrokerError | None:
    if message.body is None:
        return InvalidMessageError("the embedded broker takes no tombstone (a body of None); publish b'' instead.")
    if not isinstance(message.body, bytes):
        return InvalidMessageError(f"a body is bytes; this one is {type(message.body).__name__}.")
    if message.options:
        return InvalidMessageError(f"the embedded broker has no message option {sorted(message.options)[0]!r}.")
    if len(message.headers) > MAX_HEADERS:
        return InvalidMessageError(f"{len(message.headers)} headers; the embedded broker takes {MAX_HEADERS}.")
    texts = [*message.headers, *message.headers.values(), message.key or ""]
    try:
        size = len(message.body) + sum(len(text.encode("utf-8")) for text in texts)
        _ = [text.encode("utf-8") for text in (message.id, message.content_type) if text is not None]
    except (AttributeError, UnicodeEncodeError):
        return InvalidMessageError(
            "headers, key, id and content type are text that UTF-8 can write; one of them is not."
        )
    if size > MAX_BYTES:
        return TooLargeError(
            f"a message of {size} bytes, body, key and headers together; the embedded broker takes {MAX_BYTES}."
        )
    return None


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _capabilities(location: Location, options: Mapping[str, object]) -> Capabilities:
    profile = profile_of(location, options)
    able = CAPABILITIES if profile is None else profile.capabilities
    dead_letter = able.dead_letter and "dead-letter" not in options
    return attrs.evolve(able, durable=options.get("file") is not None, dead_letter=dead_letter)


def _validate(location: Location, options: Mapping[str, object], side: Literal["source", "destination"]) -> None:
    if not location.authority:
        raise ConfigError(f"{location.text}: the name is missing; write local://orders.")
    if location.path:
        raise ConfigError(
            f"{location.text}: local:// takes a name and no path; a file is given as "
            f"local://{location.authority}?file={location.path}."
        )
    profile = profile_of(location, options)
    refused = {"partitions"} if profile is None else profile.refused
    for name in sorted(refused & options.keys()):
        what = "without emulate=kafka or emulate=eventhubs" if profile is None else f"with emulate={profile.name}"
        raise ConfigError(f"{location.text}: {name} has no meaning {what}; leave it out.")


def _subscriber(location: Location, options: Mapping[str, object]) -> Subscriber:
    profile = profile_of(location, options)
    if profile is None:
        return LocalSubscriber(location, options)
    if profile.log:
        from eventflows.adapters._local_logs import LogSubscriber

        return LogSubscriber(location, options, _capabilities(location, options))
    from eventflows.adapters._local_queues import QueueSubscriber

    return QueueSubscriber(location, options, profile)


def _publisher(location: Location, options: Mapping[str, object]) -> Publisher:
    profile = profile_of(location, options)
    if profile is None:
        return LocalPublisher(location, options)
    if profile.log:
        from eventflows.adapters._local_logs import LogPublisher

        return LogPublisher(location, options, _capabilities(location, options), profile)
    from eventflows.adapters._local_queues import QueuePublisher

    return QueuePublisher(location, options, profile)


def _some_text(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _positive(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if not 0 < number < float("inf"):
        raise ValueError("expected seconds, more than 0")
    return number


def _not_negative(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if not 0 <= number < float("inf"):
        raise ValueError("expected seconds, 0 or more")
    return number


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("expected a whole number")
    return int(value)


def _sync(value: object) -> str:
    if value not in ("normal", "full"):
        raise ValueError('expected "normal" or "full"')
    return str(value)


def _flag(value: object) -> bool:
    if value not in ("", True):
        raise ValueError("it takes no value")
    return True


def _emulated(value: object) -> str:
    if value not in NAMES:
        raise ValueError(f"expected {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    return str(value)


def _partitions(value: object) -> int:
    number = _whole(value)
    if not 1 <= number <= 1000:
        raise ValueError("expected a whole number from 1 to 1000")
    return number


_COMMON: Final = (
    Option(name="file", parse=_some_text, about="the SQLite file to share between processes (default: memory)"),
    Option(name="sync", parse=_sync, about='"full" survives power loss, too (default "normal")'),
    Option(name="seed", parse=_whole, about="of the shuffle of messages without a key (default: by chance)"),
    Option(name="emulate", parse=_emulated, about="plays kafka, eventhubs, sqs or servicebus (default: itself)"),
    Option(name="partitions", parse=_partitions, about="of a log, when it is made (default 4)"),
)

ADAPTER: Final = AdapterSpec(
    scheme="local",
    form="local://name?file=flows.db",
    capabilities=_capabilities,
    validate=_validate,
    subscriber=_subscriber,
    publisher=_publisher,
    source_options=(
        *_COMMON,
        Option(name="group", parse=_some_text, about='the group whose messages are shared (default "default")'),
        Option(name="lease", parse=_positive, about="seconds for which a message is held (default 30)"),
        Option(name="retain", parse=_not_negative, about="seconds for which done messages are kept (default 0)"),
        Option(name="dead-letter", parse=_flag, about="reads the group's dead letters", url_only=True),
    ),
    destination_options=_COMMON,
)
