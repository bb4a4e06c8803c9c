"""librdkafka, through confluent-kafka, as a client of the adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

from confluent_kafka import KafkaException, Producer

from eventflows.adapters._kafka_clients import Keeper, Options, Transactions
from eventflows.adapters._kafka_rd_client import abandon, connect
from eventflows.adapters._kafka_rd_config import client_config
from eventflows.adapters._kafka_rd_errors import translate
from eventflows.adapters._kafka_rd_member import RdMember
from eventflows.adapters._kafka_rd_producer import RdProducer
from eventflows.adapters._kafka_rd_reader import RdReader
from eventflows.errors import CapabilityError
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
    handle, _ = connect(Producer, client_config(location, options), "eventflows", location.text, timeout)
    try:
        return set(handle.list_topics(timeout=timeout).topics)
    except KafkaException as error:
        raise translate(error, location.text) from error
    finally:
        abandon(handle.close, 1.0)


def producer(location: Location, options: Options, timeout: float) -> RdProducer:
    """Connect a producer."""
    return RdProducer(location, options, timeout)


def transactions(location: Location, options: Options, name: str, timeout: float) -> Transactions:
    """Refuse: the capabilities do not claim it with this client."""
    raise CapabilityError(f'{location.text}: guarantee="exactly-once" needs client=kafka-python.')
