"""Service Bus under test: the adapter, the vendor's client, and the stand-in for the service."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal

from azure.servicebus import ServiceBusReceivedMessage

from amqp import AzureServer
from amqp.server import KEY_NAME
from amqp.stored import Stored
from eventflows import Secret
from eventflows.adapters._servicebus_errors import translate
from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    ConnectionFailedError,
    InvalidMessageError,
    LeaseLostError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ThrottledError,
    TooLargeError,
)
from eventflows.message import Delivery, Message
from eventflows.testing import Harness

VARIABLE = "EVENTFLOWS_SERVICEBUS_CONNECTION_STRING"
CONDITIONS: Mapping[type[BrokerError], str] = {
    ConnectionFailedError: "amqp:link:detach-forced",
    ThrottledError: "com.microsoft:server-busy",
    NotFoundError: "amqp:not-found",
    PermissionDeniedError: "amqp:unauthorized-access",
    TooLargeError: "amqp:link:message-size-exceeded",
    InvalidMessageError: "com.microsoft:argument-error",
    LeaseLostError: "com.microsoft:message-lock-lost",
    OutcomeUnknownError: "com.microsoft:timeout",
    AuthenticationError: "com.microsoft:auth-failed",
    BrokerError: "amqp:internal-error",
}
"""What the service would say, so that the client raises what becomes one of ours."""

SKIPS = {
    "C33": "settles each message alone: it has no position that could have gaps",
    "C34": "settles each message alone: it has no position that could be committed",
    "C52": "settles each message alone: it has no position that could outlive the topic",
    "C53": "fetches nothing ahead, so it has no bytes fetched to be compared",
    "C54": "has no generations of members",
    "R19": "keeps no order of keys without sessions",
    "R32": "has no groups, so two flows cannot read one message",
    "R39": "keeps no order of keys without sessions",
}


def _message(stored: Stored) -> Message:
    headers = {str(name): str(value) for name, value in (stored.values or {}).items()}
    return Message(stored.body, headers=headers, key=stored.session_id, id=stored.message_id)


class StandInFaults:
    """Makes the stand-in misbehave."""

    def __init__(self, server: AzureServer, name: str) -> None:
        self._server = server
        self._name = name

    def fail(self, operation: str, error: BrokerError, *, times: int = 1) -> None:
        if operation == "receive":
            self._server.detach(
                CONDITIONS[type(error)], match=lambda link: link.sends and link.address.endswith(self._name)
            )
        else:
            self._server.plan(operation, CONDITIONS[type(error)], times=times, entity=self._name)

    def fail_message(self, match: Callable[[Message], bool], error: BrokerError, *, times: int = 1) -> None:
        self._server.plan(
            "publish",
            CONDITIONS[type(error)],
            times=times,
            match=lambda stored: match(_message(stored)),
            entity=self._name,
        )

    def refuse_settlement(self, match: Callable[[Delivery], bool], error: BrokerError, *, times: int = 1) -> None:
        def matches(stored: Stored) -> bool:
            number = str(stored.sequence)
            return match(Delivery(message=_message(stored), source="", position=number, identity=number))

        self._server.plan("settle", CONDITIONS[type(error)], times=times, match=matches, entity=self._name)

    def refuse_extension(self, error: BrokerError, *, times: int = 1) -> None:
        self._server.plan("extend", CONDITIONS[type(error)], times=times, entity=self._name)

    def freeze(self, operation: str) -> None:
        self._server.freeze(operation, None if operation == "open" else self._name)

    def thaw(self, operation: str) -> None:
        self._server.thaw(operation)

    def disconnect(self) -> None:
        self._server.disconnect()

    def expire_leases(self) -> None:
        self._server.expire_locks()


class ServiceBusHarness(Harness):
    """A queue of the stand-in."""

    name = "servicebus"
    allowed_skips: ClassVar[Mapping[str, str] | None] = SKIPS
    native_type = ServiceBusReceivedMessage
    patience = 30.0
    quiet = 0.4
    short = 1.0
    lease = 2.0
    volume = 500

    server: ClassVar[AzureServer | None] = None

    def __init__(self) -> None:
        if ServiceBusHarness.server is None:
            ServiceBusHarness.server = AzureServer()
        self._server = ServiceBusHarness.server
        self._before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = self._server.connection_string
        self._silent: socket.socket | None = None
        self._locks: dict[str, float] = {}

    def create(self, name: str) -> None:
        self._server.queue(name, lock=10.0, max_delivery=1000)

    def source_url(self, name: str) -> str:
        return f"servicebus://{self._server.host}/{name}"

    def short_lease(self) -> Mapping[str, object]:
        """A lock's length is the queue's: those that there are get it.

        It is longer by half a second than what is said: renewing begins it anew, whatever length is asked for.
        """

        def shorten() -> None:
            for queue in self._server.broker.every_queue():
                queue.lock_seconds = self.lease + 0.5

        self._server.call(shorten)
        return {}

    def faults(self, name: str) -> StandInFaults:
        return StandInFaults(self._server, name)

    @property
    def body_limit(self) -> int:
        """The largest message, less what its envelope takes: not exact to the byte, so a KiB either way."""
        return 262_143

    def missing_url(self, side: Literal["source", "destination"]) -> str:
        return f"servicebus://{self._server.host}/no-such-queue"

    def bad_credentials(self) -> tuple[str, Mapping[str, object], str]:
        key = "YS1rZXktdGhhdC1pcy13cm9uZw=="
        self.create("guarded")
        wrong = Secret(self._server.connection_string_of(KEY_NAME, key))
        return f"servicebus://{self._server.host}/guarded", {"connection_string": wrong}, key

    def secret_options(self) -> tuple[Mapping[str, object], str]:
        from amqp.server import KEY

        return {"connection_string": Secret(self._server.connection_string)}, KEY

    def unreachable_url(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as place:
            port = place.getsockname()[1]
        return f"servicebus://127.0.0.1:{port}/orders"

    def silent_url(self) -> str:
        if self._silent is None:
            self._silent = socket.create_server(("127.0.0.1", 0))
        return f"servicebus://127.0.0.1:{self._silent.getsockname()[1]}/orders"

    def error_table(self) -> Iterable[tuple[BaseException, type[BrokerError], bool]]:
        from servicebus_errors import TABLE

        return TABLE

    def translate(self, error: BaseException) -> BrokerError:
        return translate(error, "servicebus://namespace/orders", "receive")

    def close(self) -> None:
        if self._silent is not None:
            self._silent.close()

        def clear() -> None:
            self._server.broker.queues.clear()
            self._server.broker.faults.clear()

        self._server.call(clear)
        if self._before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._before


class SubscriptionHarness(ServiceBusHarness):
    """A subscription of a topic of the stand-in."""

    name = "servicebus subscription"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {
        **SKIPS,
        "C22": "is one subscription: a group is made by an administrator",
    }

    def create(self, name: str) -> None:
        self._server.topic(name, "reader", lock=10.0, max_delivery=1000)

    def source_url(self, name: str) -> str:
        return f"servicebus://{self._server.host}/{name}?subscription=reader"

    def destination_url(self, name: str) -> str:
        return f"servicebus://{self._server.host}/{name}"
