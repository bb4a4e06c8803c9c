"""Looking at topics without joining a group: peek, entities, the age of what waits."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_chunks import delivery
from eventflows.adapters._kafka_clients import Client, Columns, Consumer, Options, Partition, Reader
from eventflows.adapters._kafka_errors import missing
from eventflows.errors import ConfigError
from eventflows.message import Delivery
from eventflows.protocols import Location

SECONDS: Final = 10.0
"""For one question."""


def _topics(reader: Reader, location: Location, options: Options) -> list[str]:
    if not options.get("pattern"):
        return given.topics(location)
    return sorted(topic for topic in reader.topics() if re.match(location.path, topic))


def _partitions(reader: Reader, topics: Sequence[str], where: str) -> list[Partition]:
    reader.look(topics, SECONDS)
    found = []
    for topic in topics:
        numbers = reader.partitions(topic)
        if not numbers:
            raise missing(where, topic)
        found += [Partition(topic, number) for number in numbers]
    return found


def peek(
    client: Client, location: Location, options: Options, limit: int, start: str | None, timeout: float
) -> Sequence[Delivery]:
    """Look at what waits, by the time it was published, then by partition and offset."""
    deadline = time.monotonic() + timeout
    with client.reader(location, options, timeout) as reader:
        topics = _topics(reader, location, options)
        partitions = _partitions(reader, topics, location.text)
        ends = reader.ends(partitions, SECONDS)
        several = len(topics) > 1 or bool(options.get("pattern"))
        columns = reader.columns

        def place(record: Any) -> str:  # noqa: ANN401 - the client's own
            topic, number = columns.partition(record)
            short = f"{number}:{columns.offset(record)}"
            return f"{topic}/{short}" if several else short

        if start is None:
            after, begin = None, _waiting(reader, partitions, options.get("from"))
        else:
            after, begin = _after(reader, topics, start, ends, deadline)
        records = _read(reader, begin, ends, limit, after, deadline)
        return [delivery(columns, record, location.text, place) for record in records[:limit]]


def begins(
    consumer: Consumer, partitions: Collection[Partition], begin: object, timeout: float
) -> dict[Partition, int]:
    """Say where partitions are read from by a group that has committed nothing.

    Args:
        consumer: Asked.
        partitions: Of any topic.
        begin: The option `from`.
        timeout: Seconds.
    """
    if not partitions:
        return {}
    if isinstance(begin, datetime.datetime):
        ends = consumer.ends(partitions, timeout)  # first: what comes between the two is not passed over
        return ends | consumer.at_time(partitions, int(begin.timestamp() * 1000), timeout)
    return consumer.ends(partitions, timeout) if begin == "latest" else consumer.firsts(partitions, timeout)


def _waiting(reader: Reader, partitions: Sequence[Partition], begin: object) -> dict[Partition, int]:
    firsts = reader.firsts(partitions, SECONDS)
    done = reader.committed(partitions, SECONDS)
    new = begins(reader, [one for one in partitions if one not in done], begin, SECONDS)
    return {one: max(done[one].position, firsts[one]) for one in done} | new


Order = tuple[int, str, int, int]


def _order(columns: Columns, record: Any) -> Order:  # noqa: ANN401 - the client's own
    return columns.timestamp(record), *columns.partition(record), columns.offset(record)


def _after(
    reader: Reader, topics: Sequence[str], start: str, ends: Mapping[Partition, int], deadline: float
) -> tuple[Order, dict[Partition, int]]:
    """Find the record of a position, and where every partition is at its time."""
    topic, _, short = start.rpartition("/")
    number, _, offset = short.partition(":")
    if not (number.isdecimal() and offset.isdecimal()) or (topic or topics[0]) not in topics:
        raise ConfigError(f"start={start!r}: a position here is partition:offset, such as 3:1042.")
    partition = Partition(topic or topics[0], int(number))
    if partition not in ends or int(offset) >= ends[partition]:
        raise ConfigError(f"start={start!r}: there is no such message.")
    found = _read(reader, {partition: int(offset)}, ends, 1, None, deadline)
    if not found:
        raise ConfigError(f"start={start!r}: there is no such message any more.")
    others = [one for one in ends if one != partition]
    then = reader.at_time(others, reader.columns.timestamp(found[0]), SECONDS)
    begin = {one: then.get(one, ends[one]) for one in others} | {partition: int(offset)}
    return _order(reader.columns, found[0]), begin


def _read(
    reader: Reader,
    starts: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    limit: int,
    after: Order | None,
    deadline: float,
) -> list[Any]:
    """Read so many of each partition, or to its end."""
    columns = reader.columns
    reader.assign(starts)
    kept: dict[Partition, list[Any]] = {one: [] for one in starts}
    while time.monotonic() < deadline:
        full = [one for one in starts if len(kept[one]) >= limit or reader.position(one) >= ends[one]]
        if len(full) == len(starts):
            break
        for one, records in reader.read(max(limit, 1), 0.2, full).items():
            kept[one] += [record for record in records if after is None or _order(columns, record) > after]
    return sorted((one for records in kept.values() for one in records), key=lambda one: _order(columns, one))


def oldest(
    client: Client,
    location: Location,
    options: Options,
    starts: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    deadline: float,
) -> list[int]:
    """Give the timestamps, in milliseconds, of the first record of each partition from where it begins."""
    with client.reader(location, options, max(deadline - time.monotonic(), 0.1)) as reader:
        found = _read(reader, starts, ends, 1, None, deadline)
        return [reader.columns.timestamp(record) for record in found]


def entities(client: Client, location: Location, options: Options) -> Sequence[str]:
    """Give the names of the topics that we may see."""
    return sorted(name for name in client.topics(location, options, SECONDS) if not name.startswith("__"))
