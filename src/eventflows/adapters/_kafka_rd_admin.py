"""Looking at topics and groups as an administrator, through librdkafka."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, Final

from confluent_kafka import ConsumerGroupState, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from eventflows.adapters._kafka_clients import Options, Standing, Topic
from eventflows.adapters._kafka_rd_client import connect
from eventflows.adapters._kafka_rd_config import client_config
from eventflows.adapters._kafka_rd_consumer import RETRY_SECONDS
from eventflows.adapters._kafka_rd_errors import code_of, translate
from eventflows.errors import NotFoundError, PermissionDeniedError
from eventflows.protocols import Location

_STATES: Final = {
    ConsumerGroupState.PREPARING_REBALANCING: "PreparingRebalance",
    ConsumerGroupState.COMPLETING_REBALANCING: "CompletingRebalance",
    ConsumerGroupState.STABLE: "Stable",
    ConsumerGroupState.EMPTY: "Empty",
    ConsumerGroupState.DEAD: "Dead",
}
_COMING: Final = frozenset({"NOT_COORDINATOR", "COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS"})
"""What a cluster says of a group while its first coordinator, or the next one, begins; librdkafka asks only once."""


def topics_of(location: Location, options: Options, timeout: float) -> Collection[str]:
    """Give the names of all topics that we may see."""
    admin = _administrator(location, options, timeout)
    try:
        return set(admin.list_topics(timeout=timeout).topics)
    except KafkaException as error:
        raise translate(error, location.text) from error


def inspect(
    location: Location, options: Options, topics: Sequence[str], group: str | None, timeout: float
) -> tuple[dict[str, Topic], Standing | None]:
    """Look at topics and a group as an administrator; None: there is no group, or it may not be used."""
    admin = _administrator(location, options, timeout)
    more = {"include_authorized_operations": True, "request_timeout": timeout}
    deadline = time.monotonic() + timeout
    asked = admin.describe_topics(TopicCollection(list(topics)), **more) if topics else {}
    seen = {name: _topic(future, location.text) for name, future in asked.items()}
    if group is None:
        return seen, None
    while True:
        try:
            more["request_timeout"] = max(deadline - time.monotonic(), RETRY_SECONDS)
            return seen, _standing(admin.describe_consumer_groups([group], **more)[group].result())
        except KafkaException as error:
            ours = translate(error, location.text)
            if isinstance(ours, PermissionDeniedError):
                return seen, None
            code = code_of(error)
            if code is None or code.name() not in _COMING or time.monotonic() >= deadline:
                raise ours from error
        time.sleep(RETRY_SECONDS)


def _administrator(location: Location, options: Options, timeout: float) -> AdminClient:
    return connect(AdminClient, client_config(location, options), "eventflows", location.text, timeout)[0]


def _topic(future: Any, where: str) -> Topic:  # noqa: ANN401 - a future of the client's own
    try:
        found = future.result()
    except KafkaException as error:
        ours = translate(error, where)
        if isinstance(ours, (NotFoundError, PermissionDeniedError)):
            return Topic(denied=isinstance(ours, PermissionDeniedError))
        raise ours from error
    return Topic(partitions=len(found.partitions), rights=_rights(found))


def _standing(found: Any) -> Standing:  # noqa: ANN401 - a description
    return Standing(
        state=_STATES.get(found.state, "Unknown"),
        members=len(found.members),
        protocol="" if found.is_simple_consumer_group else "consumer",
        rights=_rights(found),
    )


def _rights(found: Any) -> Collection[str] | None:  # noqa: ANN401 - a description
    return None if found.authorized_operations is None else {one.name for one in found.authorized_operations}
