"""Looking at topics without joining a group: peek, check, entities."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import kafka.errors as native

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_chunks import delivery
from eventflows.adapters._kafka_client import ask_for, build
from eventflows.adapters._kafka_errors import translate
from eventflows.errors import BrokerError, ConfigError, NotFoundError
from eventflows.message import Delivery
from eventflows.protocols import Finding, Location
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition


@contextlib.contextmanager
def _reader(location: Location, options: Mapping[str, object], timeout: float) -> Iterator[KafkaConsumer]:
    config = given.client_config(location, options) | {
        "group_id": options["group"],
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": options.get("isolation", "read_committed"),
        "request_timeout_ms": 10_000,
        "allow_auto_create_topics": False,
    }
    consumer, client = build(KafkaConsumer, config, location.text, timeout)
    try:
        yield consumer
    except native.KafkaError as error:
        raise translate(error, location.text) from error
    finally:
        with contextlib.suppress(Exception):  # it only read, so there is nothing to save
            consumer.close(autocommit=False, timeout_ms=500)
        client.close()


def _topics(consumer: KafkaConsumer, location: Location, options: Mapping[str, object]) -> list[str]:
    if not options.get("pattern"):
        return given.topics(location)
    return sorted(topic for topic in consumer.topics() if re.match(location.path, topic))


def _partitions(consumer: KafkaConsumer, topics: Sequence[str], where: str) -> list[Any]:
    found = []
    for topic in topics:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise NotFoundError(f"{where}: there is no topic {topic!r}. Create it, or correct the URL.")
        found += [TopicPartition(topic, number) for number in sorted(numbers)]
    return found


def peek(
    location: Location, options: Mapping[str, object], limit: int, start: str | None, timeout: float
) -> Sequence[Delivery]:
    """Look at what waits, by the time it was published, then by partition and offset."""
    deadline = time.monotonic() + timeout
    with _reader(location, options, timeout) as consumer:
        topics = _topics(consumer, location, options)
        partitions = _partitions(consumer, topics, location.text)
        consumer.assign(partitions)
        firsts = consumer.beginning_offsets(partitions)
        ends = consumer.end_offsets(partitions)
        for one in partitions:
            consumer.seek(one, max(consumer.committed(one) or 0, firsts[one]))
        several = len(topics) > 1

        def place(record: Any) -> str:  # noqa: ANN401 - the client's own
            short = f"{record.partition}:{record.offset}"
            return f"{record.topic}/{short}" if several or options.get("pattern") else short

        after = None if start is None else _after(consumer, topics, start, ends, deadline)
        records = _read(consumer, partitions, ends, limit, after, deadline)
        return [delivery(record, location.text, place) for record in records[:limit]]


def _order(record: Any) -> tuple[int, str, int, int]:  # noqa: ANN401 - the client's own
    return record.timestamp, record.topic, record.partition, record.offset


def _after(
    consumer: KafkaConsumer, topics: Sequence[str], start: str, ends: Mapping[Any, int], deadline: float
) -> tuple[int, str, int, int]:
    """Find the record of a position, and begin every partition at its time."""
    topic, _, short = start.rpartition("/")
    number, _, offset = short.partition(":")
    if not (number.isdecimal() and offset.isdecimal()) or (topic or topics[0]) not in topics:
        raise ConfigError(f"start={start!r}: a position here is partition:offset, such as 3:1042.")
    partition = TopicPartition(topic or topics[0], int(number))
    if partition not in ends or int(offset) >= ends[partition]:
        raise ConfigError(f"start={start!r}: there is no such message.")
    others = [one for one in ends if one != partition]
    consumer.pause(*others)
    consumer.seek(partition, int(offset))
    found: list[Any] = []
    while not found and time.monotonic() < deadline:
        found = consumer.poll(200, 1).get(partition, [])
    consumer.resume(*others)
    if not found:
        raise ConfigError(f"start={start!r}: there is no such message any more.")
    for one, at in consumer.offsets_for_times(dict.fromkeys(others, found[0].timestamp)).items():
        consumer.seek(one, ends[one] if at is None else at.offset)
    return _order(found[0])


def _read(
    consumer: KafkaConsumer,
    partitions: Sequence[Any],
    ends: Mapping[Any, int],
    limit: int,
    after: tuple[int, str, int, int] | None,
    deadline: float,
) -> list[Any]:
    """Read so many of each partition, or to its end."""
    kept: dict[Any, list[Any]] = {one: [] for one in partitions}
    while time.monotonic() < deadline:
        full = [one for one in partitions if len(kept[one]) >= limit or (consumer.position(one) or 0) >= ends[one]]
        if len(full) == len(partitions):
            break
        consumer.pause(*full)
        for one, records in consumer.poll(200, max(limit, 1)).items():
            kept[one] += [record for record in records if after is None or _order(record) > after]
    return sorted((record for records in kept.values() for record in records), key=_order)


def oldest(
    location: Location,
    options: Mapping[str, object],
    starts: Mapping[Any, int],
    ends: Mapping[Any, int],
    deadline: float,
) -> list[int]:
    """Give the timestamps, in milliseconds, of the first record of each partition from where it begins."""
    with _reader(location, options, max(deadline - time.monotonic(), 0.1)) as consumer:
        consumer.assign(list(starts))
        for one, start in starts.items():
            consumer.seek(one, start)
        return [record.timestamp for record in _read(consumer, list(starts), ends, 1, None, deadline)]


def entities(location: Location, options: Mapping[str, object]) -> Sequence[str]:
    """Give the names of the topics that we may see."""
    config = given.client_config(location, options)
    del config["metrics_enabled"]  # the administrator's client has none
    admin, client = build(KafkaAdminClient, config, location.text, 10.0)
    try:
        return sorted(name for name in admin.list_topics() if not name.startswith("__"))
    except native.KafkaError as error:
        raise translate(error, location.text) from error
    finally:
        admin.close()
        client.close()


def check(location: Location, options: Mapping[str, object]) -> Sequence[Finding]:
    """Say, one line each, whether brokers, topics and group can be used."""
    where = location.text
    try:
        with _reader(location, options, 10.0) as consumer:
            findings = [Finding("ok", f"{where}: the brokers answer, and accept who we are")]
            topics = _topics(consumer, location, options)
            ask_for(consumer, topics, 10.0)
            for topic in topics:
                numbers = consumer._cluster.partitions_for_topic(topic)
                if numbers:
                    findings.append(Finding("ok", f"topic {topic} has {len(numbers)} partitions"))
                elif topic in consumer._cluster.unauthorized_topics:
                    findings.append(Finding("error", f"topic {topic} may not be read", "Ask for an ACL on it: READ."))
                else:
                    findings.append(Finding("error", f"there is no topic {topic}", "Create it, or correct the URL."))
            return [*findings, _group(consumer, str(options["group"]))]
    except (BrokerError, ConfigError) as error:
        return [Finding("error", str(error), "Mend what it says.")]


def _group(consumer: KafkaConsumer, group: str) -> Finding:
    try:
        consumer._coordinator.ensure_coordinator_ready(timeout_ms=5000)
    except native.GroupAuthorizationFailedError:
        return Finding("error", f"group {group} may not be used", "Ask for an ACL on the group: READ.")
    return Finding("ok", f"group {group} can be used")
