"""kafka-python, as a client of the adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import kafka.errors as native

from eventflows.adapters._kafka_clients import Keeper, Options
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_config import client_config
from eventflows.adapters._kafka_python_errors import translate
from eventflows.adapters._kafka_python_member import PythonMember
from eventflows.adapters._kafka_python_producer import PythonProducer
from eventflows.adapters._kafka_python_reader import PythonReader
from eventflows.adapters._kafka_python_transactions import PythonTransactions
from eventflows.protocols import Location
from kafka import KafkaAdminClient


def member(location: Location, options: Options, keeper: Keeper, timeout: float) -> PythonMember:
    """Connect a consumer that is to become a member."""
    return PythonMember(location, options, keeper, timeout)


@contextlib.contextmanager
def reader(location: Location, options: Options, timeout: float) -> Iterator[PythonReader]:
    """Connect a consumer that looks."""
    one = PythonReader(location, options, timeout)
    try:
        yield one
    finally:
        one.close()


def topics(location: Location, options: Options, timeout: float) -> Collection[str]:
    """Give the names of all topics that we may see; needs no group."""
    config = client_config(location, options)
    del config["metrics_enabled"]  # the administrator's client has none
    admin, client = build(KafkaAdminClient, config, location.text, timeout)
    try:
        return set(admin.list_topics())
    except native.KafkaError as error:
        raise translate(error, location.text) from error
    finally:
        admin.close()
        client.close()


def producer(location: Location, options: Options, timeout: float) -> PythonProducer:
    """Connect a producer."""
    return PythonProducer(location, options, timeout)


def transactions(location: Location, options: Options, name: str, timeout: float) -> PythonTransactions:
    """Connect a transactional producer, and end what its name has open."""
    return PythonTransactions(location, options, name, timeout)
