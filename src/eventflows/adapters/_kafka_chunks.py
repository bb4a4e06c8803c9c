"""Records of one claim as a chunk, and as deliveries."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from eventflows.adapters._kafka_clients import Columns, Partition, Records
from eventflows.adapters._kafka_records import ID_HEADER, TYPE_HEADER
from eventflows.adapters._watermark import Watermark
from eventflows.message import Chunk, Delivery, Lane, Message

_COUNT: Final = re.compile(r"eventflows claims=(\d{1,9})(?: producer=(\S{1,400}))?")


class Committed(NamedTuple):
    """What a group has committed of a partition."""

    position: int
    claims: int = 0
    """How many claims began here and did not end well; a process that is killed leaves its own behind."""
    producer: str = ""
    """The transactional id of the last of them; empty without transactions, and when it ended well."""

    @property
    def metadata(self) -> str:
        """The text that is committed with the position."""
        name = f" producer={self.producer}" if self.producer else ""
        return f"eventflows claims={self.claims}{name}" if self.claims else ""

    @classmethod
    def read(cls, position: int, metadata: str | None) -> Committed:
        """Read it back; text that is not ours counts nothing."""
        found = _COUNT.fullmatch((metadata or "").rstrip("\0"))  # librdkafka writes the end of a C string, too
        return cls(position, int(found[1]), found[2] or "") if found else cls(position)


class Claim:
    """One ownership of one partition; a new one begins whenever the partition comes to us.

    Args:
        partition: What is owned.
        begun: What was committed before: the offset that it reads first, and the claims that ended badly there.
        identity: What tells its topic from a later one of the same name; None: not known yet.
    """

    def __init__(self, partition: Partition, begun: Committed, identity: object = None) -> None:
        self.partition = partition
        self.lane = Lane(f"{partition.topic}/{partition.partition}")
        self.mark = Watermark(begun.position)
        self.identity = identity
        self.committed = begun
        """What the group has committed, as far as we know."""
        self.unsure = False
        """Whether a commit of what was settled failed, so that the same may be settled again."""
        self._begun = begun
        self._first = True

    @property
    def state(self) -> Committed:
        """What is to be committed while it lasts."""
        return self.at(self.mark.position)

    def at(self, position: int, producer: str = "") -> Committed:
        """Give what is to be committed at a position."""
        return Committed(position, self._begun.claims + 1 if position == self._begun.position else 1, producer)

    @property
    def last(self) -> Committed:
        """What is to be committed when it ends well: it does not count."""
        return self.state._replace(claims=self.state.claims - 1)

    def attempt(self) -> int:
        """Give the attempt of the next record: the first of a claim, and no other, was handed out before."""
        first, self._first = self._first, False
        return self._begun.claims + 1 if first else 1

    def fence(self) -> bool:
        """End it; False when it had ended."""
        with self.lane.lock:
            ours = not self.lane.lost
            self.lane.lose()
            return ours


class KafkaChunk(Chunk):
    """A chunk that knows its claim and its records.

    Args:
        claim: What the records were received under.
        columns: Reads the records.
        records: Of one partition, in order.
        bodies: Of the records.
        sizes: Of the bodies.
        source: The URL, shown.
        position: Names the position of a record.
    """

    __slots__ = ("_named", "claim", "columns", "records")

    def __init__(
        self,
        claim: Claim,
        columns: Columns,
        records: Records,
        bodies: list[bytes | None],
        sizes: Sequence[int],
        source: str,
        position: Callable[[Any], str],
    ) -> None:
        found = columns.headers(records)
        headers = None if found is None else [_headers(one) if one else None for one in found]
        keys = columns.keys(records)
        attempt = claim.attempt()
        super().__init__(
            bodies,
            lambda index: delivery(columns, records[index], source, position, claim.lane, 1 if index else attempt),
            lane=claim.lane,
            sizes=sizes,
            keys=None if keys.count(None) == len(keys) else [_text(key) for key in keys],
            headers=None if headers is None else [None if one is None else one[0] for one in headers],
            content_types=None if headers is None else [None if one is None else one[2] for one in headers],
            attempt=attempt,
        )
        self.claim = claim
        self.columns = columns
        self.records = records
        self._named = position

    def position(self, index: int) -> str:
        """Give the position of one, without its delivery."""
        return self._named(self.records[index])

    def positions_of(self, start: int, stop: int) -> Sequence[str]:
        """Give the positions of a stretch."""
        if start >= stop:
            return []
        first, end = self.stretch(start, stop)
        if end - first != stop - start:
            return [self.position(index) for index in range(start, stop)]
        stem = self.position(start).rpartition(":")[0]
        return [f"{stem}:{offset}" for offset in range(first, end)]

    def offset(self, index: int) -> int:
        """Give the offset of one."""
        return self.columns.offset(self.records[index])

    def stretch(self, start: int, stop: int) -> tuple[int, int]:
        """Give the offsets of a stretch: its first, and one past its last."""
        return self.offset(start), self.offset(stop - 1) + 1


def delivery(
    columns: Columns,
    record: Any,  # noqa: ANN401 - the client's own
    source: str,
    position: Callable[[Any], str],
    lane: Lane | None = None,
    attempt: int = 1,
) -> Delivery:
    """Make the delivery of a record."""
    [body], [key], found = columns.bodies([record]), columns.keys([record]), columns.headers([record])
    headers, id, content_type = _headers(found[0]) if found and found[0] else ({}, None, None)
    place = position(record)
    timestamp = columns.timestamp(record)
    topic, number = columns.partition(record)
    return Delivery(
        message=Message(body, headers=headers, key=_text(key), id=id or place, content_type=content_type),
        source=source,
        position=place,
        identity=f"{topic}/{number}:{columns.offset(record)}",
        lane=lane,
        attempt=attempt,
        enqueued_at=None if timestamp < 0 else datetime.datetime.fromtimestamp(timestamp / 1000, datetime.UTC),
        native=record,
    )


def _headers(found: list[tuple[str, bytes | None]]) -> tuple[Mapping[str, str], str | None, str | None]:
    headers = {name: _text(value) or "" for name, value in found}
    return headers, headers.pop(ID_HEADER, None), headers.pop(TYPE_HEADER, None)


def _text(value: bytes | None) -> str | None:
    # Bytes that are no UTF-8 become text that goes back to the same bytes when it is published.
    return None if value is None else str(value, "utf-8", "surrogateescape")


def split(sizes: Sequence[int], max_bytes: int) -> tuple[int, int]:
    """Say how many bodies of these sizes fit, at least one, and their bytes."""
    size = sum(sizes)
    if size <= max_bytes:
        return len(sizes), size
    size = 0
    for index, more in enumerate(sizes):
        if index and size + more > max_bytes:
            return index, size
        size += more
    return len(sizes), size
