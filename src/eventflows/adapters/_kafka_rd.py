"""librdkafka, through confluent-kafka, as a client of the adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

from eventflows.adapters import _kafka_rd_admin
from eventflows.adapters._kafka_clients import Keeper, Options, Standing, Topic
from eventflows.adapters._kafka_rd_member import RdMember
from eventflows.adapters._kafka_rd_producer import RdProducer
from eventflows.adapters._kafka_rd_reader import RdReader
from eventflows.adapters._kafka_rd_transactions import RdTransactions
from eventflows.protocols import Location


def member(location: Location, options: Options, keeper: Keeper, timeout: float) -> RdMember:
    """Connect a consumer that is to become a member."""
    return RdMember(location, options, keeper, timeout)


@contextlib.contextmanager
def reader(location: Location, options: Options, timeout: float) -> Iterator[RdReader]:
    """Connect a consumer that looks."""
    one = RdReader(location, options, timeout)
    try:
        yield one
    finally:
        one.close()


def topics(location: Location, options: Options, timeout: float) -> Collection[str]:
    """Give the names of all topics that we may see; needs no group."""
    return _kafka_rd_admin.topics_of(location, options, timeout)


def inspect(
    location: Location, options: Options, topics: Sequence[str], group: str | None, timeout: float
) -> tuple[dict[str, Topic], Standing | None]:
    """Look at topics and a group as an administrator; None: there is no group, or it may not be used."""
    return _kafka_rd_admin.inspect(location, options, topics, group, timeout)


def producer(location: Location, options: Options, timeout: float) -> RdProducer:
    """Connect a producer."""
    return RdProducer(location, options, timeout)


def transactions(location: Location, options: Options, name: str, timeout: float) -> RdTransactions:
    """Connect a transactional producer, and end what its name has open."""
    return RdTransactions(location, options, name, timeout)
