"""The ids of topics, by which one is told from another of its name: librdkafka tells them to administrators only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from eventflows.adapters._kafka_clients import Options
from eventflows.adapters._kafka_rd_client import Handled, abandon
from eventflows.adapters._kafka_rd_config import client_config
from eventflows.protocols import Location

SECONDS: Final = 3.0
"""Between two questions, and for the answer to one."""


class TopicIds:
    """Asks now and then, and waits for nothing; its owner's thread calls it.

    Args:
        location: The source.
        options: Its options.
    """

    def __init__(self, location: Location, options: Options) -> None:
        self._location = location
        self._options = options
        self._administrator: Handled | None = None
        self._asked: Mapping[str, Any] = {}
        self._asked_at = 0.0
        self._known: dict[str, str] = {}

    def of(self, topics: Collection[str]) -> Mapping[str, str]:
        """Give what is known by now."""
        if self._asked and all(one.done() for one in self._asked.values()):
            self._take()
        now = time.monotonic()
        if topics and not self._asked and (now - self._asked_at >= SECONDS or not self._known):
            self._ask(topics, now)
        return self._known

    def _ask(self, topics: Collection[str], now: float) -> None:
        if self._administrator is None:
            self._administrator = Handled(AdminClient(client_config(self._location, self._options)))
        self._asked_at = now
        found = TopicCollection(sorted(topics))
        self._asked = self._administrator.handle.describe_topics(found, request_timeout=SECONDS)

    def _take(self) -> None:
        asked, self._asked = self._asked, {}
        for topic, answer in asked.items():
            # Gone, not to be seen, or nobody answered: whoever reads it is told; what it was is still what it was.
            with contextlib.suppress(KafkaException):
                self._known[topic] = str(answer.result().topic_id)

    def forget(self) -> None:
        """Know nothing, so that what is told next is newer than this call."""
        self._known, self._asked, self._asked_at = {}, {}, 0.0

    def close(self) -> None:
        """Disconnect; what was asked is answered by nobody."""
        administrator, self._administrator = self._administrator, None
        self._asked = {}
        if administrator is not None:
            abandon(administrator.let_go, 1.0)
