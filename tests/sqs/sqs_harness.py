"""SQS under test: ElasticMQ, behind a gate that can break things."""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs

from eventflows.adapters._sqs_errors import translate
from eventflows.adapters._sqs_wire import MAX_BYTES
from eventflows.errors import BrokerError
from eventflows.message import Message
from eventflows.protocols import Capabilities, Pending, Publisher, PublishResult
from eventflows.testing import Faults, Harness
from servers.elasticmq import ACCOUNT, REGION, elasticmq
from servers.gate import Gate, SqsFaults
from servers.process import free_port
from sqs_errors import CLASSES, CODES

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
SKIPS = {
    "C15": "checks no credentials in its local server; see tests/sqs/test_credentials.py",
    "C33": "settles each message alone: it has no position that could have gaps",
    "C34": "settles each message alone: it has no position that could be committed",
    "C52": "settles each message alone: it has no position that could outlive the topic",
    "C53": "fetches nothing ahead beyond what was asked for, so it has no bytes fetched to be compared",
    "C54": "has no generations of members",
    "R32": "has no groups, so two flows cannot read one message",
    "R25": "takes no secrets: credentials come by boto3's own chain",
}

NO_ORDER = dict.fromkeys(("R19", "R37", "R39"), "keeps no order of keys on standard queues; FIFO queues do")


@functools.cache
def _gate() -> Gate:
    return Gate(elasticmq().port)


class SqsHarness(Harness):
    """Standard queues."""

    name = "SQS"
    allowed_skips: ClassVar[Mapping[str, str] | None] = SKIPS | NO_ORDER
    native_type = dict
    patience = 60.0
    quiet = 1.5
    slack = 1.5
    short = 1.0
    lease = 2.0
    delay = 2.0
    saturation = 2.0
    volume = 480
    suffix: ClassVar[str] = ""
    # What a dead process held comes back after it; a pump that is late by half of it loses what it holds.
    source_options: ClassVar[Mapping[str, object]] = {"visibility": 8}

    def __init__(self) -> None:
        self._gate = _gate()
        self._former = {name: os.environ.get(name) for name in ENVIRONMENT}
        os.environ.update(ENVIRONMENT)
        self._direct = elasticmq().client()
        self._made: list[str] = []
        self._silent: socket.socket | None = None

    def close(self) -> None:
        """Remove the queues and the faults."""
        self._gate.on_call.clear()
        self._gate.on_entry.clear()
        self._gate.on_answer.clear()
        self._gate.received.clear()
        for name in self._made:
            self._direct.delete_queue(QueueUrl=self.direct_url(name))
        self._direct.close()
        if self._silent is not None:
            self._silent.close()
        for name, value in self._former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def fresh(self) -> str:
        """FIFO queues are known by their suffix."""
        return super().fresh() + self.suffix

    def attributes(self, name: str) -> dict[str, str]:
        """The attributes of a new queue."""
        return {}

    def create(self, name: str) -> None:
        """Make the queue."""
        self._direct.create_queue(QueueName=name, Attributes=self.attributes(name))
        self._made.append(name)

    def direct_url(self, name: str) -> str:
        """The queue's URL at the server itself."""
        return f"{elasticmq().endpoint}/{ACCOUNT}/{name}"

    def source_url(self, name: str) -> str:
        """The queue's URL at the gate, as a local server writes it."""
        name = name if name.endswith(self.suffix) else name + self.suffix
        return f"sqs://{REGION}/{ACCOUNT}/{name}?endpoint={self._gate.endpoint}"

    def short_lease(self) -> Mapping[str, object]:
        """The lease is an option of the source."""
        return {"visibility": int(self.lease)}

    def faults(self, name: str) -> Faults:
        """The gate's."""
        return SqsFaults(self._gate, name, self._direct, self.direct_url(name))

    @property
    def body_limit(self) -> int:
        """Bytes that are not text grow by a third, and say so in an attribute."""
        marker = len("ef-encoding") + len("String") + len("base64")
        return (MAX_BYTES - marker) // 4 * 3

    def missing_url(self, side: Literal["source", "destination"]) -> str:
        """A queue that nobody made."""
        return self.source_url("nobody-made-this")

    def unreachable_url(self) -> str:
        """A port where nobody listens."""
        return f"sqs://{REGION}/{ACCOUNT}/x{self.suffix}?endpoint=http://127.0.0.1:{free_port()}"

    def silent_url(self) -> str:
        """A port where somebody accepts, and says nothing."""
        self._silent = socket.create_server(("127.0.0.1", 0))
        return f"sqs://{REGION}/{ACCOUNT}/x{self.suffix}?endpoint=http://127.0.0.1:{self._silent.getsockname()[1]}"

    def error_table(self) -> Iterable[tuple[BaseException, type[BrokerError], bool]]:
        """Errors of the service, and of the client."""
        return [*CODES, *CLASSES]

    def translate(self, error: BaseException) -> BrokerError:
        """Translate as the adapter does."""
        return translate(error, "sqs://eu-west-1/orders")


class Keyed:
    """A publisher that gives a key of its own to every message without one: FIFO queues take no others."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._count = 0

    @property
    def capabilities(self) -> Capabilities:
        return self._publisher.capabilities

    def _with_keys(self, batch: Sequence[Message]) -> list[Message]:
        keyed = []
        for message in batch:
            self._count += 1
            keyed.append(attrs.evolve(message, key=f"own-{id(self)}-{self._count}") if not message.key else message)
        return keyed

    def send(self, batch: Sequence[Message]) -> Pending:
        return self._publisher.send(self._with_keys(batch))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        return self._publisher.publish(self._with_keys(batch), timeout=timeout)

    def open(self, *, timeout: float = 30.0) -> None:
        self._publisher.open(timeout=timeout)

    def close(self, *, timeout: float = 30.0) -> None:
        self._publisher.close(timeout=timeout)

    def __enter__(self) -> Keyed:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class SqsFifoHarness(SqsHarness):
    """FIFO queues."""

    name = "SQS FIFO"
    allowed_skips: ClassVar[Mapping[str, str] | None] = SKIPS
    suffix = ".fifo"

    def attributes(self, name: str) -> dict[str, str]:
        """A FIFO queue says so twice."""
        return {"FifoQueue": "true"}

    def publisher(self, name: str, **options: Any) -> Publisher:
        """Give every message a key."""
        return Keyed(super().publisher(name, **options))


class SqsRedriveHarness(SqsHarness):
    """Standard queues with a redrive policy: dead letters have a place of the broker's own."""

    name = "SQS with a redrive policy"

    @property
    def capabilities(self) -> Capabilities:
        """What is claimed once the policy has been read."""
        return attrs.evolve(super().capabilities, dead_letter=True)

    def create(self, name: str) -> None:
        """Make the queue, and one for its dead letters."""
        dead = f"{name.removesuffix(self.suffix)}-dead{self.suffix}"
        super().create(dead)
        super().create(name)
        policy = {"deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{dead}", "maxReceiveCount": 1000}
        self._direct.set_queue_attributes(
            QueueUrl=self.direct_url(name), Attributes={"RedrivePolicy": json.dumps(policy)}
        )


class SqsRedriveFifoHarness(SqsRedriveHarness, SqsFifoHarness):
    """FIFO queues with a redrive policy."""

    name = "SQS FIFO with a redrive policy"
