"""Records put into kafka-python's producer a batch at a time, and the answers to them.

Its own way takes records one by one, with a future, three locks and a time-out for each: two thirds of what publishing
costs. Here whole batches are written and put where its own would be, so that sending, retries, splitting, expiry and
order stay the client's. The private names used are why the extra pins the client below 3.1.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Sequence
from typing import Any, Final

import kafka.errors as native
from kafka.partitioner.default import murmur2
from kafka.producer.future import FutureProduceResult
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from eventflows.adapters._kafka_errors import beside, missing
from eventflows.adapters._kafka_python_errors import translate
from eventflows.errors import BrokerError, InvalidMessageError, OutcomeUnknownError
from eventflows.protocols import PublishResult
from kafka import KafkaProducer, TopicPartition

Record = dict[str, Any]
Moved = dict[int, tuple[FutureProduceResult, int]]


def _number(value: int) -> bytes:
    """Write a number as Kafka does in records: small ones, of either sign, are short."""
    value = (value << 1) ^ (value >> 63)
    written = bytearray()
    while value > 0x7F:
        written.append(0x80 | (value & 0x7F))
        value >>= 7
    written.append(value)
    return bytes(written)


_SMALL: Final = [_number(value) for value in range(2048)]
_NULL: Final = _number(-1)
_NONE: Final = _number(0)
_ATTRIBUTES: Final = b"\0"


def _sized(data: bytes | None) -> bytes:
    if data is None:
        return _NULL
    size = len(data)
    return (_SMALL[size] if size < 2048 else _number(size)) + data


@functools.lru_cache(maxsize=1024)
def _name(name: str) -> bytes:
    return _sized(name.encode("utf-8"))


@functools.lru_cache(maxsize=4096)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def _tail(record: Record) -> bytes:
    """Write what follows the offset in a record: key, value, headers."""
    headers = record["headers"]
    if not headers:
        return _sized(record["key"]) + _sized(record["value"]) + _NONE
    count = len(headers)
    parts = [_sized(record["key"]), _sized(record["value"]), _SMALL[count] if count < 2048 else _number(count)]
    for name, value in headers:
        parts += (_name(name), _sized(value))
    return b"".join(parts)


class _Handles(Sequence["_Handle"]):
    """What a batch has in the place of a future for each record; made when the client splits the batch."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []

    def __len__(self) -> int:
        return sum(len(stretch.where) for stretch in self.stretches)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - the client asks for one at a time
        for stretch in self.stretches:
            if index < stretch.first + len(stretch.where):
                return _Handle(stretch, index - stretch.first)
        raise IndexError(index)


class _Handle:
    """One record that the client moves from a batch which is too large to a smaller one."""

    def __init__(self, stretch: Stretch, index: int) -> None:
        self._stretch = stretch
        self._index = index

    def rebind(self, future: FutureProduceResult, index: int) -> None:
        """Note where it went; whoever waits for the old batch looks again."""
        before = self._stretch.place(self._index)[0]
        self._stretch.moved[self._index] = (future, index)
        before._latch.set()


class Stretch:
    """Records of one call that are neighbours in a batch.

    Args:
        batch: The client's.
        first: Where the first of them is in it.
        where: The place of each in what was published.
    """

    __slots__ = ("first", "future", "moved", "partition", "where")

    def __init__(self, batch: ProducerBatch, first: int, where: Sequence[int]) -> None:
        self.partition: int = batch.topic_partition.partition
        self.future: FutureProduceResult = batch.produce_future
        self.first = first
        self.where = where
        self.moved: Moved = {}

    def place(self, index: int) -> tuple[FutureProduceResult, int]:
        """Give the batch that a record is in now, and where in it."""
        return self.moved.get(index) or (self.future, self.first + index)

    def open(self) -> FutureProduceResult | None:
        """Give an answer that is still to come; None: all are there."""
        moved = list(self.moved.values())
        futures = [future for future, _ in moved] if len(moved) == len(self.where) else [self.future]
        return next((future for future in futures if not future.is_done), None)

    def wait(self, deadline: float) -> None:
        """Wait for the answers."""
        while (future := self.open()) is not None:
            if not future.wait(max(deadline - time.monotonic(), 0.0)):
                return

    @property
    def plain(self) -> bool:
        """Whether the broker has all of it, where it was put."""
        return not self.moved and self.future.succeeded() and self.future.value[2] is None

    def fill(self, results: list[PublishResult], where: str) -> None:
        """Put the answers into their places."""
        if self.plain:
            named, start = f"{self.partition}:", self.future.value[0] + self.first
            for number, place in enumerate(self.where, start):
                results[place] = PublishResult(f"{named}{number}", None)
            return
        for index, place in enumerate(self.where):
            results[place] = _result(*self.place(index), self.partition, where)


def _result(future: FutureProduceResult, index: int, partition: int, where: str) -> PublishResult:
    if not future.is_done:
        late = f"{where}: no answer in time; the message may be there, or come later."
        return PublishResult(None, OutcomeUnknownError(late))
    error = future.exception
    if error is None:
        offset, _, errors = future.value
        error = None if errors is None else errors(index)
    if error is None:
        return PublishResult(f"{partition}:{offset + index}", None)
    if type(error) is native.KafkaError:  # the broker names those that it refuses; this is not one of them
        return PublishResult(None, beside(where, error))
    return PublishResult(None, translate(error, where))


class Sent:
    """Records on their way.

    Args:
        faults: The answer for each message that cannot be sent; None for the others.
        stretches: Of the others.
        where: The destination's URL, shown.
    """

    def __init__(self, faults: Sequence[BrokerError | None], stretches: Sequence[Stretch], where: str) -> None:
        self._faults = faults
        self._stretches = stretches
        self._where = where

    @property
    def done(self) -> bool:
        """Whether every answer is there."""
        return all(stretch.open() is None for stretch in self._stretches)

    def confirmed(self, timeout: float) -> bool:
        """Wait for the answers, and say whether the broker has every message."""
        deadline = time.monotonic() + timeout
        for stretch in self._stretches:
            stretch.wait(deadline)
        return not any(self._faults) and all(stretch.plain for stretch in self._stretches)

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the broker's answers."""
        self.confirmed(timeout)
        results = [PublishResult(None, fault) for fault in self._faults]
        for stretch in self._stretches:
            stretch.fill(results, self._where)
        return results


class Batches:
    """Puts records into the batches of a producer, which nothing else is given to.

    Args:
        producer: Not idempotent, without transactions.
        where: The destination's URL, shown.
    """

    def __init__(self, producer: KafkaProducer, where: str) -> None:
        self._producer = producer
        self._accumulator = producer._accumulator
        self._where = where
        self._turn = random.randrange(1 << 16)  # noqa: S311 - so that not all producers begin with the same partition

    def send(self, topic: str, records: Sequence[Record | BrokerError]) -> Sent:
        """Start to publish; what is an error already is its own answer."""
        known = self._producer._metadata.partitions_for_topic(topic)
        if not known:
            raise missing(self._where, topic)
        partitions = sorted(known)
        faults: list[BrokerError | None] = [None] * len(records)
        places: dict[int | None, list[int]] = {}
        for index, record in enumerate(records):
            if isinstance(record, BrokerError):
                faults[index] = record
                continue
            number = record.get("partition")
            if number is not None and number not in known:
                text = f"{self._where}: {topic!r} has no partition {number}; it has {len(known)}."
                faults[index] = InvalidMessageError(text)
                continue
            if number is None and record["key"] is not None:
                number = partitions[_hash(record["key"]) % len(partitions)]
            places.setdefault(number, []).append(index)
        stretches: list[Stretch] = []
        self._accumulator._appends_in_progress.increment()
        try:
            for number, where in places.items():
                stretches += self._put(topic, number, where, records)
        finally:
            self._accumulator._appends_in_progress.decrement()
            self._producer._sender.wakeup()
        return Sent(faults, stretches, self._where)

    def _put(self, topic: str, number: int | None, where: list[int], records: Sequence[Any]) -> list[Stretch]:
        """Put records into a partition; without one, into one partition after another, a batch in each."""
        now = int(time.time() * 1000)
        tails = [_tail(records[index]) for index in where]
        times = [records[index].get("timestamp_ms", now) for index in where]
        made: list[Stretch] = []
        done = 0
        while done < len(where):
            place = TopicPartition(topic, self._next(topic) if number is None else number)
            with self._accumulator._tp_lock(place):
                if self._accumulator._closed:
                    raise native.IllegalStateError("the producer is closed")
                batch = self._open_batch(place)
                first, count = _fill(batch.records, tails, times, done)
                if count:
                    made.append(Stretch(batch, first, where[done : done + count]))
                    batch._record_futures.stretches.append(made[-1])
                    done += count
                else:
                    self._add_batch(place)
        return made

    def _next(self, topic: str) -> int:
        """Give the next of the partitions that have a leader; of all, when none has."""
        metadata = self._producer._metadata
        numbers = metadata.available_partitions_for_topic(topic) or metadata.partitions_for_topic(topic) or {0}
        self._turn += 1
        chosen: int = sorted(numbers)[self._turn % len(numbers)]
        return chosen

    def _open_batch(self, place: TopicPartition) -> ProducerBatch:
        """Give the batch that is being filled; call it, and all that is done with it, under the partition's lock."""
        queue = self._accumulator._batches[place]
        if queue and not queue[-1].records._closed and isinstance(queue[-1]._record_futures, _Handles):
            return queue[-1]
        return self._add_batch(place)

    def _add_batch(self, place: TopicPartition) -> ProducerBatch:
        config = self._accumulator.config
        records = MemoryRecordsBuilder(2, config["compression_attrs"], config["batch_size"])
        batch = ProducerBatch(place, records)
        batch._record_futures = _Handles()
        self._accumulator._batches[place].append(batch)
        self._accumulator._incomplete.add(batch)
        return batch


def _fill(records: MemoryRecordsBuilder, tails: list[bytes], times: list[int], done: int) -> tuple[int, int]:
    """Write as many of these records as there is room for, one at least into an empty batch.

    Returns:
        Where the first of them is in the batch, and how many were written.
    """
    builder = records._builder
    first = offset = records._next_offset
    size, limit = len(builder._buffer), builder._batch_size
    begun = times[done] if builder._first_timestamp is None else builder._first_timestamp
    parts: list[bytes] = []
    for index in range(done, len(tails)):
        tail, delta = tails[index], times[index] - begun
        place = _SMALL[offset] if offset < 2048 else _number(offset)
        head = _ATTRIBUTES + (_number(delta) if delta else _NONE) + place
        length = len(head) + len(tail)
        head = (_SMALL[length] if length < 2048 else _number(length)) + head
        size += len(head) + len(tail)
        if size > limit and offset:
            break
        parts += (head, tail)
        offset += 1
    count = offset - first
    if count:
        builder._buffer += b"".join(parts)
        builder._first_timestamp = begun
        builder._max_timestamp = max(builder._max_timestamp or 0, *times[done : done + count])
        builder._num_records += count
        builder._last_offset = offset - 1
        records._next_offset = offset
    return first, count
