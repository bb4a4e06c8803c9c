"""Event Hubs under test: the adapter, the vendor's client, and the stand-in for the service."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Literal

from azure.eventhub import EventData

from amqp import AzureServer
from amqp.hubs import RESET
from amqp.link import Link
from amqp.server import KEY, KEY_NAME
from amqp.stored import Stored
from eventflows import Secret
from eventflows.adapters._eventhubs_errors import translate
from eventflows.errors import (
    BrokerError,
    ConnectionFailedError,
    InvalidMessageError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ThrottledError,
    TooLargeError,
)
from eventflows.message import Message
from eventflows.testing import Harness
from eventflows.testing.conditions import wait_until

VARIABLE = "EVENTFLOWS_EVENTHUBS_CONNECTION_STRING"
CONDITIONS: Mapping[type[BrokerError], str] = {
    ConnectionFailedError: "amqp:link:detach-forced",
    ThrottledError: "com.microsoft:server-busy",
    NotFoundError: "amqp:not-found",
    PermissionDeniedError: "amqp:unauthorized-access",
    TooLargeError: "amqp:link:message-size-exceeded",
    InvalidMessageError: "com.microsoft:argument-error",
    OutcomeUnknownError: "com.microsoft:timeout",
    BrokerError: "amqp:internal-error",
}
"""What the service would say, so that the client raises what becomes one of ours."""


class StandInFaults:
    """Makes the stand-in misbehave; a log has nothing to settle at the service, nor any lease."""

    def __init__(self, server: AzureServer, name: str) -> None:
        self._server = server
        self._name = name

    def fail(self, operation: str, error: BrokerError, *, times: int = 1) -> None:
        if operation == "receive":
            # Partitions are claimed after the opening: nothing is sent until every one has a reader to be cut.
            self._server.freeze("receive", self._name)
            wait_until(self._all_read, what="a reader of each partition")
            self._detached(CONDITIONS[type(error)])
            self._server.thaw("receive")
        elif isinstance(error, ConnectionFailedError) and operation == "publish":
            # The client's producer sends once more by itself, whatever its retries are set to.
            self._server.plan(operation, RESET, times=2 * times, entity=self._name)
        else:
            self._server.plan(operation, CONDITIONS[type(error)], times=times, entity=self._name)

    def _all_read(self) -> bool:
        hub = self._server.broker.hubs[self._name]
        return self._server.call(lambda: all(partition.readers for partition in hub.partitions))

    def _detached(self, condition: str) -> int:
        def reads(link: Link) -> bool:
            return link.sends and f"/{self._name}/ConsumerGroups/" in link.address

        return self._server.detach(condition, match=reads)

    def fail_message(self, match: Callable[[Message], bool], error: BrokerError, *, times: int = 1) -> None:
        def matches(stored: Stored) -> bool:
            headers = {str(name): str(value) for name, value in (stored.values or {}).items()}
            return match(Message(stored.body, headers=headers, id=stored.message_id))

        self._server.plan("publish", CONDITIONS[type(error)], times=times, match=matches, entity=self._name)

    def freeze(self, operation: str) -> None:
        self._server.freeze(operation, None if operation == "open" else self._name)

    def thaw(self, operation: str) -> None:
        self._server.thaw(operation)

    def disconnect(self) -> None:
        self._server.disconnect()


class EventHubsHarness(Harness):
    """A hub of the stand-in, its checkpoints in a SQLite file."""

    name = "eventhubs"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {
        "C27": "keeps positions in a store of ours: one settlement of several cannot be refused there",
        "C33": "numbers the events of a partition without gaps",
        "C35": "gives partitions away through the store; test_eventhubs_faults.py takes them so, and asks the same",
        "C36": "gives partitions away through the store; test_eventhubs_kills.py asks the same of dead members",
        "C40": "has no lease that work could outlast; C43 asks for the membership",
        "C42": "has no lease that work could outlast; C43 asks for the membership",
        "C45": "keeps positions in a store of ours: one settlement of several cannot be refused there",
        "C51": "gives partitions away through the store; test_eventhubs_faults.py takes them so, and asks the same",
        "C52": "keeps no positions at the service that could go with a hub",
        "C53": "counts no bytes in its client; test_eventhubs_faults.py asks for the bound of a partition's buffer",
        "C54": "has no generations of members that could be asked for",
        "C60": "has no lease that work could outlast; C43 asks for the membership",
        "R08": "has no lease",
        "R15": "has no lease",
        "R22": "keeps positions in a store of ours: one settlement of several cannot be refused there",
        "R30": "has no lease",
        "R38": "has no lease that could be lost",
    }
    native_type = EventData
    patience = 30.0
    quiet = 0.5
    short = 1.0
    volume = 500
    saturation = 2.0

    server: ClassVar[AzureServer | None] = None

    def __init__(self) -> None:
        if EventHubsHarness.server is None:
            EventHubsHarness.server = AzureServer()
        self._server = EventHubsHarness.server
        self._folder = tempfile.mkdtemp(prefix="eventflows-eventhubs-")
        self._before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = self._server.connection_string
        self._silent: socket.socket | None = None

    @property
    def source_options(self) -> Mapping[str, object]:  # type: ignore[override]
        """A group for those who name none."""
        return {"group": "$Default", "checkpoints": f"{self._folder}/checkpoints.db", "balance": 0.5}

    def create(self, name: str) -> None:
        self._server.hub(name, partitions=3, groups=None)

    def source_url(self, name: str) -> str:
        return f"eventhubs://{self._server.host}/{name}"

    def faults(self, name: str) -> StandInFaults:
        return StandInFaults(self._server, name)

    @property
    def body_limit(self) -> int:
        """The largest message, less what its envelope takes: not exact to the byte, so a KiB either way."""
        return 1_048_575

    def missing_url(self, side: Literal["source", "destination"]) -> str:
        return f"eventhubs://{self._server.host}/no-such-hub"

    def bad_credentials(self) -> tuple[str, Mapping[str, object], str]:
        key = "YS1rZXktdGhhdC1pcy13cm9uZw=="
        self.create("guarded")
        wrong = Secret(self._server.connection_string_of(KEY_NAME, key))
        return f"eventhubs://{self._server.host}/guarded", {**self.source_options, "connection_string": wrong}, key

    def secret_options(self) -> tuple[Mapping[str, object], str]:
        return {"connection_string": Secret(self._server.connection_string)}, KEY

    def unreachable_url(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as place:
            port = place.getsockname()[1]
        return f"eventhubs://127.0.0.1:{port}/orders"

    def silent_url(self) -> str:
        if self._silent is None:
            self._silent = socket.create_server(("127.0.0.1", 0))
        return f"eventhubs://127.0.0.1:{self._silent.getsockname()[1]}/orders"

    def error_table(self) -> Iterable[tuple[BaseException, type[BrokerError], bool]]:
        from eventhubs_errors import TABLE

        return TABLE

    def translate(self, error: BaseException) -> BrokerError:
        return translate(error, "eventhubs://namespace/telemetry", "receive")

    def committed(self, name: str, group: str | None = None) -> Mapping[str, int]:
        with contextlib.closing(sqlite3.connect(f"{self._folder}/checkpoints.db")) as store:
            if not store.execute("select 1 from sqlite_master where name = 'checkpoint'").fetchone():
                return {}
            where = "where eventhub_name = ? and consumer_group = ?"
            query = f"select partition_id, sequence_number from checkpoint {where}"  # noqa: S608 - words of ours
            rows = store.execute(query, (name, group or "$Default")).fetchall()
        return {f"{name}/{partition}": number + 1 for partition, number in rows}

    def close(self) -> None:
        if self._silent is not None:
            self._silent.close()

        def clear() -> None:
            self._server.broker.hubs.clear()
            self._server.broker.faults.clear()

        self._server.call(clear)
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._before
