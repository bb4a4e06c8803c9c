"""Service Bus itself sits the adapter suite, where a connection string with the right to manage is in the environment.

It makes queues named conformance-..., and deletes them. What the stand-in only assumes is here: the true limits, what a
release costs, the service's own conditions.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest
from azure.servicebus import ServiceBusReceivedMessage

import test_servicebus_session_suite as stand_in
from eventflows import Secret
from eventflows.protocols import Publisher
from eventflows.testing import AdapterConformance, Harness
from servicebus_harness import Keyed, SessionHarness

VARIABLE = "EVENTFLOWS_TEST_SERVICEBUS_CONNECTION_STRING"
STRING = os.environ.get(VARIABLE, "")

pytestmark = [
    pytest.mark.trial,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not STRING, reason=f"needs a namespace: {VARIABLE} is not set"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class RealHarness(Harness):
    """Queues of the namespace that the environment gives."""

    name = "Azure Service Bus"
    native_type = ServiceBusReceivedMessage
    patience = 90.0
    quiet = 3.0
    slack = 5.0
    lease = 5.0
    volume = 500
    sessions = False

    def __init__(self) -> None:
        from azure.servicebus.management import ServiceBusAdministrationClient

        os.environ["EVENTFLOWS_SERVICEBUS_CONNECTION_STRING"] = STRING  # for other processes
        self._client: Any = ServiceBusAdministrationClient.from_connection_string(STRING)
        self._made: list[str] = []

    @property
    def source_options(self) -> Mapping[str, object]:  # type: ignore[override]
        """The namespace is the connection string's."""
        return {"connection_string": Secret(STRING)}

    destination_options: ClassVar[Mapping[str, object]] = {"connection_string": Secret(STRING)} if STRING else {}

    def create(self, name: str) -> None:
        """Make the queue."""
        lock = datetime.timedelta(seconds=10)
        self._client.create_queue(name, lock_duration=lock, max_delivery_count=1000, requires_session=self.sessions)
        self._made.append(name)

    def short_lease(self) -> Mapping[str, object]:
        """A lock has the length of its queue, of those that were made."""
        for name in self._made:
            queue = self._client.get_queue(name)
            queue.lock_duration = datetime.timedelta(seconds=self.lease)
            self._client.update_queue(queue)
        return {}

    def close(self) -> None:
        """Delete the queues."""
        for name in self._made:
            self._client.delete_queue(name)
        self._client.close()
        del os.environ["EVENTFLOWS_SERVICEBUS_CONNECTION_STRING"]

    def source_url(self, name: str) -> str:
        """By name."""
        return f"servicebus:///{name}"

    def missing_url(self, side: Literal["source", "destination"]) -> str:
        """A queue that nobody made."""
        return self.source_url("nobody-made-this")

    @property
    def body_limit(self) -> int | None:
        """The tier's, less what the envelope takes."""
        return None


class TestRealServiceBus(AdapterConformance):
    """The service itself."""

    harness = RealHarness


class RealSessionHarness(RealHarness):
    """Queues with sessions."""

    name = "Azure Service Bus with sessions"
    sessions = True

    @property
    def source_options(self) -> Mapping[str, object]:  # type: ignore[override]
        """As many sessions at once as on the stand-in."""
        return {**super().source_options, **SessionHarness.source_options}

    def publisher(self, name: str, **options: Any) -> Publisher:
        """Every message has a session."""
        return Keyed(super().publisher(name, **options))


class TestRealServiceBusSessions(stand_in.TestServiceBusSessions):
    """The service itself, with sessions; what they ask is asked of the stand-in, too."""

    harness = RealSessionHarness
