"""Looking at topics and groups as an administrator, through librdkafka."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, Final

from confluent_kafka import ConsumerGroupState, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from eventflows.adapters._kafka_clients import Options, Standing, Topic
from eventflows.adapters._kafka_rd_client import connect, insist
from eventflows.adapters._kafka_rd_config import client_config
from eventflows.adapters._kafka_rd_errors import translate
from eventflows.errors import NotFoundError, PermissionDeniedError
from eventflows.protocols import Location

ASK_SECONDS: Final = 2.0
"""Of one question for a group: an administrator who was told twice that it has no coordinator yet asks no more, and
waits for the answer that never comes; one who begins anew has it at once."""
_STATES: Final = {
    ConsumerGroupState.PREPARING_REBALANCING: "PreparingRebalance",
    ConsumerGroupState.COMPLETING_REBALANCING: "CompletingRebalance",
    ConsumerGroupState.STABLE: "Stable",
    ConsumerGroupState.EMPTY: "Empty",
    ConsumerGroupState.DEAD: "Dead",
}


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
    deadline = time.monotonic() + timeout
    asked = admin.describe_topics(TopicCollection(list(topics)), **_with(timeout)) if topics else {}
    seen = {name: _topic(future, location.text) for name, future in asked.items()}
    if group is None:
        return seen, None

    def look(left: float) -> Standing:
        try:
            return _standing(admin.describe_consumer_groups([group], **_with(min(left, ASK_SECONDS)))[group].result())
        except KafkaException as error:
            raise translate(error, location.text) from error

    try:
        return seen, insist(look, deadline - time.monotonic())
    except PermissionDeniedError:
        return seen, None


def _with(timeout: float) -> dict[str, Any]:
    return {"include_authorized_operations": True, "request_timeout": timeout}


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
