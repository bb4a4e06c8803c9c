"""Reading a fetched batch at a time: it gives what kafka-python's own reader gives, record by record."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBase
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from eventflows.adapters._kafka_python_records import PartitionRecords
from kafka import TopicPartition

PLACE = TopicPartition("readings", 3)
CONTROL = DefaultRecordBase.TRANSACTIONAL_MASK | DefaultRecordBase.CONTROL_MASK


def batch(records: Sequence[Any], *, base: int = 0, compression: int = 0, producer: int = -1, magic: int = 2) -> bytes:
    """Write a batch with the client's own writer."""
    builder = MemoryRecordsBuilder(magic, compression, 10_000_000)
    for when, key, value, headers in records:
        builder.append(when, key, value, headers)
    if producer >= 0:
        builder.set_producer_state(producer, 0, 0, is_transactional=True)
    builder.close()
    written = bytearray(builder.buffer())
    struct.pack_into(">q", written, 0, base)
    return bytes(written)


def altered(written: bytes, *, attributes: int = 0, longer: int = 0, byte: int | None = None) -> bytes:
    """Set attributes, a later last offset, or one byte of the records; the check sum is made right."""
    data = bytearray(written)
    at = DefaultRecordBase.ATTRIBUTES_OFFSET
    struct.pack_into(">h", data, at, struct.unpack_from(">h", data, at)[0] | attributes)
    struct.pack_into(">i", data, at + 2, struct.unpack_from(">i", data, at + 2)[0] + longer)
    if byte is not None:
        data[byte] ^= 0xFF
    struct.pack_into(">I", data, DefaultRecordBase.CRC_OFFSET, calc_crc32c(bytes(data[at:])))
    return bytes(data)


def mixed(seed: int, count: int = 120) -> list[Any]:
    """Give records with everything that a record may have, and may lack."""
    luck = random.Random(seed)
    sizes = (0, 1, 63, 64, 127, 8191, 8192, 70_000)
    return [
        (
            1_700_000_000_000 + luck.randrange(-1000, 1_000_000),
            luck.choice([None, b"", b"k" * luck.choice(sizes[:5])]),
            luck.choice([None, b"v" * luck.choice(sizes)]),
            [(f"n{'ä' * part}", luck.choice([None, b"", b"h" * 90])) for part in range(luck.randrange(3))],
        )
        for _ in range(count)
    ]


def read(kind: type, data: bytes, *, at: int = 0, step: int | None = None, aborted: Sequence[Any] = ()) -> list[Any]:
    """Read everything, some at a time; gives the records, and where the next fetch begins after each step."""
    level = IsolationLevel.READ_COMMITTED
    part = kind(at, PLACE, MemoryRecords(data), isolation_level=level, aborted_transactions=aborted)
    told: list[Any] = []
    while part:
        told.append((part.take(step), part.next_fetch_offset, part.leader_epoch))
    return told


@pytest.mark.parametrize("compression", [0, 1], ids=["plain", "gzip"])
@pytest.mark.parametrize("step", [None, 7])
@pytest.mark.parametrize("seed", range(4))
def test_records_are_those_of_the_client_s_own_reader(seed: int, step: int | None, compression: int) -> None:
    """Keys, values, headers, times and offsets, in several batches, begun in the middle."""
    print("seed", seed)
    first = altered(batch(mixed(seed), compression=compression), longer=3)  # compaction removed the last three
    data = first + batch(mixed(seed + 100), base=123, compression=compression)

    told = read(PartitionRecords, data, at=17, step=step)

    # Where a batch ends, the next fetch may begin at its last record or behind it: both mean the same.
    theirs = read(Fetcher.PartitionRecords, data, at=17, step=step)
    assert [one for some, _, _ in told for one in some] == [one for some, _, _ in theirs for one in some]
    assert (told[-1][1:], len(told)) == (theirs[-1][1:], len(theirs))
    assert told[-1][1] == 243


def test_aborted_and_control_batches_are_left_out() -> None:
    """A transaction that was aborted, its marker, one that was committed, and what is no transaction."""
    plain = [(1, None, b"x", [])]
    marker = [(1, struct.pack(">hh", 0, 0), b"\0" * 6, [])]
    data = (
        batch(plain, base=0, producer=5)
        + altered(batch(marker, base=1, producer=5), attributes=CONTROL)
        + batch(plain, base=2, producer=5)
        + batch(plain, base=3)
        + batch(plain, base=4, producer=6)
    )
    aborted = [SimpleNamespace(producer_id=5, first_offset=0)]

    [(records, after, _)] = read(PartitionRecords, data, aborted=aborted)

    assert [record.offset for record in records] == [2, 3, 4]
    assert after == 5
    assert [(records, after, -1)] == [
        (one, next, -1) for one, next, _ in read(Fetcher.PartitionRecords, data, aborted=aborted)
    ]


def test_records_from_before_kafka_0_11_are_read_by_the_client() -> None:
    """The old format comes between batches of the new one."""
    old = batch([(1, b"k", b"old", [])], magic=1)
    data = batch([(1, None, b"new", [])], base=0) + old

    assert [record.value for some, _, _ in read(PartitionRecords, data) for record in some] == [b"new", b"old"]


def test_a_batch_is_refused_when_it_is_broken() -> None:
    """By its check sum; and where that is right, by its own lengths."""
    good = batch([(1, None, b"value", [])])
    for bad in (good[:-3] + b"???", altered(good, byte=DefaultRecordBase.HEADER_STRUCT.size)):
        with pytest.raises(CorruptRecordError):
            read(PartitionRecords, bad)
