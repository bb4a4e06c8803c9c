"""Reads fetched records for kafka-python's consumer, a batch at a time.

Its own way makes two objects and thirty calls of each record, which is half of what consuming costs. What is read is
the same `ConsumerRecord`, and what is skipped is the same, too. The private names used are why the extra pins the
client below 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import kafka.errors as native
from kafka.consumer.fetcher import ConsumerRecord, Fetcher
from kafka.protocol.consumer import IsolationLevel
from kafka.record.util import decode_varint

_NULL: Final = 1  # the number -1 as Kafka writes it; it stands for the length of what is None


class PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What was fetched of one partition."""

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:  # noqa: ANN401 - the client's
        while (batch := records.next_batch()) is not None:
            if batch.magic != 2:  # from before Kafka 0.11
                yield from super()._unpack_records(tp, _Again(batch, records), *deserializers)
                return
            if self.check_crcs and not batch.validate_crc():
                raise native.CorruptRecordError(f"the batch at offset {batch.base_offset} of {tp} fails its check sum")
            self.leader_epoch = batch.leader_epoch
            if not self._is_skipped(batch):
                for record in _read(batch, tp):
                    self.next_fetch_offset = record[3] + 1
                    yield record
            self.next_fetch_offset = batch.next_offset  # further than its last record, where compaction removed some
        self.drain()

    def _is_skipped(self, batch: Any) -> bool:  # noqa: ANN401 - the client's own
        """Say whether a batch holds no messages, or those of a transaction that was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


class _Again:
    """Batches, one that was taken already before the others."""

    def __init__(self, first: Any, others: Any) -> None:  # noqa: ANN401 - the client's own
        self._first = first
        self._others = others

    def next_batch(self) -> Any:  # noqa: ANN401 - the client's own
        first, self._first = self._first, None
        return self._others.next_batch() if first is None else first


def _read(batch: Any, tp: Any) -> list[Any]:  # noqa: ANN401 - the client's own
    """Read all records of a batch.

    Raises:
        CorruptRecordError: They are not as they should be, though the check sum is right.
    """
    batch._maybe_uncompress()
    data = bytes(batch._buffer)
    try:
        records, end = _parse(data, batch._pos, batch, tp)
    except (ValueError, IndexError) as error:
        raise native.CorruptRecordError(f"a record of {tp} after offset {batch.base_offset}: {error}") from error
    if end != len(data):
        raise native.CorruptRecordError(f"the batch at offset {batch.base_offset} of {tp} has another length")
    return records


def _parse(data: bytes, at: int, batch: Any, tp: Any) -> tuple[list[Any], int]:  # noqa: ANN401 - the client's own
    # One loop with few calls, because it is the hot path; numbers below 64 have one byte, and are read in place.
    topic, partition = tp
    epoch, base, kind = batch.leader_epoch, batch.base_offset, batch.timestamp_type
    first, appended = batch.first_timestamp, batch.max_timestamp if kind == batch.LOG_APPEND_TIME else None
    records: list[Any] = []
    add, make = records.append, tuple.__new__
    for _ in range(batch.records_count):
        size, at = _number(data, at)
        end = at + size
        delta, at = _number(data, at + 1)  # past the attributes, of which there are none yet
        offset, at = _number(data, at)
        key = value = None
        key_size = value_size = headers_size = -1
        if data[at] == _NULL:
            at += 1
        else:
            key_size, at = _number(data, at)
            key, at = data[at : at + key_size], at + key_size
        if data[at] == _NULL:
            at += 1
        else:
            value_size, at = _number(data, at)
            value, at = data[at : at + value_size], at + value_size
        headers: list[tuple[str, bytes | None]] = []
        if data[at]:
            at, headers_size = _headers(data, at, headers)
        else:
            at += 1
        if at != end:
            raise ValueError(f"it ends at byte {at} instead of {end}")
        when = first + delta if appended is None else appended
        add(make(ConsumerRecord, (topic, partition, epoch, base + offset, when, kind, key, value, headers, None,
                                  key_size, value_size, headers_size)))  # fmt: skip
    return records, at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a number, and say where the next thing begins."""
    low = data[at]
    if low < 0x80:
        return (low >> 1) ^ -(low & 1), at + 1
    high = data[at + 1]
    if high < 0x80:
        low = low & 0x7F | high << 7
        return (low >> 1) ^ -(low & 1), at + 2
    found: tuple[int, int] = decode_varint(data, at)
    return found


def _headers(data: bytes, at: int, headers: list[tuple[str, bytes | None]]) -> tuple[int, int]:
    """Read headers; says where the next thing begins, and how many bytes names and values have."""
    count, at = _number(data, at)
    bytes_of_all = 0
    for _ in range(count):
        size, at = _number(data, at)
        name, at = data[at : at + size].decode("utf-8"), at + size
        bytes_of_all += size
        size, at = _number(data, at)
        if size < 0:
            headers.append((name, None))
        else:
            headers.append((name, data[at : at + size]))
            at += size
            bytes_of_all += size
    return at, bytes_of_all
