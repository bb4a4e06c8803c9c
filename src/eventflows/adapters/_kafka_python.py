"""kafka-python, as a client of the adapter."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import kafka.errors as native

from eventflows.adapters._kafka_clients import Keeper, Options, Standing, Topic
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_config import client_config
from eventflows.adapters._kafka_python_errors import translate
from eventflows.adapters._kafka_python_member import PythonMember
from eventflows.adapters._kafka_python_producer import PythonProducer
from eventflows.adapters._kafka_python_reader import PythonReader
from eventflows.adapters._kafka_python_transactions import PythonTransactions
from eventflows.protocols import Location
from kafka import KafkaAdminClient

RETRY_SECONDS: Final = 0.1
_COORDINATOR_COMES: Final = (
    native.CoordinatorNotAvailableError,
    native.CoordinatorLoadInProgressError,
    native.NotCoordinatorError,
)


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


@contextlib.contextmanager
def _administrator(location: Location, options: Options, timeout: float) -> Iterator[KafkaAdminClient]:
    config = client_config(location, options)
    del config["metrics_enabled"]  # the administrator's client has none
    admin, client = build(KafkaAdminClient, config, location.text, timeout)
    try:
        yield admin
    except native.KafkaError as error:
        raise translate(error, location.text) from error
    finally:
        admin.close()
        client.close()


def topics(location: Location, options: Options, timeout: float) -> Collection[str]:
    """Give the names of all topics that we may see; needs no group."""
    with _administrator(location, options, timeout) as admin:
        return set(admin.list_topics())


def inspect(
    location: Location, options: Options, topics: Sequence[str], group: str | None, timeout: float
) -> tuple[dict[str, Topic], Standing | None]:
    """Look at topics and a group as an administrator; None: there is no group, or it may not be used."""
    with _administrator(location, options, timeout) as admin:
        seen = {one["name"]: _topic(one) for one in admin.describe_topics(list(topics))}
        if group is None:
            return seen, None
        try:
            found = _group(admin, group, time.monotonic() + timeout)
        except native.GroupAuthorizationFailedError:
            return seen, None
        return seen, Standing(
            state=found["group_state"] or "Dead",
            members=len(found["members"]),
            protocol=found["protocol_type"] or "",
            rights=found.get("authorized_operations"),
        )


def _group(admin: KafkaAdminClient, group: str, deadline: float) -> dict[str, Any]:
    """Ask the coordinator; a cluster in which no group was used yet makes one now, which takes a moment."""
    while True:
        try:
            found: dict[str, Any] = admin.describe_groups([group])[group]
        except _COORDINATOR_COMES:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return found


def _topic(found: dict[str, Any]) -> Topic:
    return Topic(
        partitions=len(found["partitions"]),
        denied=found["error_code"] == native.TopicAuthorizationFailedError.errno,
        rights=found.get("authorized_operations"),
    )


def producer(location: Location, options: Options, timeout: float) -> PythonProducer:
    """Connect a producer."""
    return PythonProducer(location, options, timeout)


def transactions(location: Location, options: Options, name: str, timeout: float) -> PythonTransactions:
    """Connect a transactional producer, and end what its name has open."""
    return PythonTransactions(location, options, name, timeout)
