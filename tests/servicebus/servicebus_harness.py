"""Service Bus under test: the adapter, the vendor's client, and the stand-in for the service."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
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
from eventflows.protocols import Pending, Publisher, PublishResult
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

LOCK = 6.0
"""Seconds of the lock of a session."""
SKIPS = {
    "C33": "settles each message alone: it has no position that could have gaps",
    "C34": "settles each message alone: it has no position that could be committed",
    "C52": "settles each message alone: it has no position that could outlive the topic",
    "C53": "fetches nothing ahead, so it has no bytes fetched to be compared",
    "C54": "has no generations of members",
    "R19": "keeps no order of keys without sessions",
    "R32": "has no groups, so two flows cannot read one message",
    "R37": "keeps no order of keys without sessions",
    "R39": "keeps no order of keys without sessions",
}


def _message(stored: Stored) -> Message:
    headers = {str(name): str(value) for name, value in (stored.values or {}).items()}
    return Message(stored.body, headers=headers, key=stored.session_id, id=stored.message_id)


class StandInFaults:
    """Makes the stand-in misbehave."""

    def __init__(self, server: AzureServer, name: str, read: str | None = None) -> None:
        self._server = server
        self._name = name
        self._read = read or name  # a topic is not read where it is written

    def _entity(self, operation: str) -> str | None:
        return None if operation == "open" else self._name if operation == "publish" else self._read

    def fail(self, operation: str, error: BrokerError, *, times: int = 1) -> None:
        if operation == "receive":
            self._server.detach(
                CONDITIONS[type(error)], match=lambda link: link.sends and link.address.endswith(self._read)
            )
        else:
            self._server.plan(operation, CONDITIONS[type(error)], times=times, entity=self._entity(operation))

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

        self._server.plan("settle", CONDITIONS[type(error)], times=times, match=matches, entity=self._read)

    def refuse_extension(self, error: BrokerError, *, times: int = 1) -> None:
        self._server.plan("extend", CONDITIONS[type(error)], times=times, entity=self._read)

    def freeze(self, operation: str) -> None:
        self._server.freeze(operation, self._entity(operation))

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
    slack = 1.5  # closing a client takes a second from its opening, whatever it did (its keep-alive thread sleeps)
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

    def faults(self, name: str) -> StandInFaults:
        return StandInFaults(self._server, name, f"{name}/Subscriptions/reader")


class Keyed:
    """A publisher that deals messages without a key to a few sessions: an entity with sessions takes no others."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._publisher, name)

    def _with_keys(self, batch: Sequence[Message]) -> list[Message]:
        keyed = []
        for message in batch:
            self._count += 1
            keyed.append(attrs.evolve(message, key=f"own-{self._count % 8}") if message.key is None else message)
        return keyed

    def send(self, batch: Sequence[Message]) -> Pending:
        return self._publisher.send(self._with_keys(batch))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        return self._publisher.publish(self._with_keys(batch), timeout=timeout)

    def __enter__(self) -> Keyed:
        self._publisher.open()
        return self

    def __exit__(self, *error: object) -> None:
        self._publisher.close()


class SessionHarness(ServiceBusHarness):
    """A queue with sessions."""

    name = "servicebus with sessions"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {
        **{case: why for case, why in SKIPS.items() if "order of keys" not in why},
        "C59": "shows the messages of a session to its owner only",
        "R23": "shows the messages of a session to its owner only",
    }
    patience = 60.0  # the messages of one session run one after another
    quiet = 1.5  # a session is searched and attached before its first message comes
    unseen = LOCK  # a session whose owner died stays locked, and shows nothing to others
    source_options: ClassVar[Mapping[str, object]] = {"sessions": 10, "session_idle": 0.3}

    def create(self, name: str) -> None:
        # What a session has at hand beyond its share is handed out after a quarter of its lock.
        self._server.queue(name, lock=LOCK, max_delivery=1000, sessions=True)

    def searches(self, name: str) -> int:
        """Count the receivers that wait for a session of a queue."""
        queue = self._server.queue(name)

        def count() -> int:
            queue.pump()  # forgets those that have gone
            return len(queue.waiters)

        return self._server.call(count)

    def publisher(self, name: str, **options: Any) -> Publisher:
        return Keyed(super().publisher(name, **options))
