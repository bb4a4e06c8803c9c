"""A real Kafka under test."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import confluent_kafka
import kafka.errors
from confluent_kafka import KafkaError, KafkaException
from kafka.admin import MemberToRemove
from kafka.consumer.fetcher import ConsumerRecord

from eventflows.adapters import _kafka_rd_errors
from eventflows.adapters._kafka_python_errors import TABLE, translate
from eventflows.errors import BrokerError
from eventflows.message import Message
from eventflows.protocols import Subscriber
from eventflows.secret import Secret
from eventflows.testing import Harness
from eventflows.testing.conditions import wait_until
from kafka import KafkaProducer
from kafka_use import administrator, committed
from servers.kafka import KafkaServer, gate, shared
from servers.kafka_gate import PRODUCE, KafkaGate, Request
from servers.process import free_port

NO_LEASE = "has no lease that could be lost; C35 asks the same of a lost lane"
NO_LIMIT = "has no lease that work could outlast; C43 asks for the membership"
SKIPS: Mapping[str, str] = {
    "C16": "is asked through a client that connects again by itself; C44 asks that nothing is lost",
    "C27": NO_LEASE,
    "C40": NO_LIMIT,
    "C42": NO_LEASE,
    "C45": "settles positions, not messages; test_kafka_commits.py has every commit refused, for a while and for good",
    "C60": NO_LIMIT,
}


class KafkaFaults:
    """What goes wrong with a real broker: it does not answer, and connections break.

    Args:
        server: The broker.
        gate: What stands before it.
    """

    def __init__(self, server: KafkaServer, gate: KafkaGate) -> None:
        self._server = server
        self._gate = gate

    def freeze(self, operation: str) -> None:
        """Stop its process."""
        self._server.freeze()

    def thaw(self, operation: str) -> None:
        """Let it go on."""
        self._server.thaw()

    def disconnect(self) -> None:
        """Cut every connection."""
        self._gate.disconnect()

    def fail_message(self, match: Callable[[Message], bool], error: BrokerError, *, times: int = 1) -> None:
        """Cut the connection on which a message that matches would be published.

        Raises:
            ValueError: The error is none that a broken connection has.
        """
        if not error.retryable:
            raise ValueError(f"a broken connection is no {type(error).__name__}")
        left = [None] * times

        def rule(request: Request) -> bool:
            if request.api != PRODUCE or not left:
                return False
            return any(match(Message(value)) for _, value in request.values()) and left.pop() is None

        self._gate.rules.append(rule)


class DeadMembers(KafkaFaults):
    """Members can be taken for dead, too.

    Args:
        server: The broker.
        gate: What stands before it.
        group: Whose members.
    """

    def __init__(self, server: KafkaServer, gate: KafkaGate, group: str) -> None:
        super().__init__(server, gate)
        self._group = group

    def expire_leases(self) -> None:
        """Remove every member from the group; they learn it by their next heartbeat."""
        with administrator(self._server) as admin:
            members = admin.describe_groups([self._group])[self._group]["members"]
            admin.remove_group_members(self._group, [MemberToRemove(member_id=one["member_id"]) for one in members])


class KafkaHarness(Harness):
    """`kafka://`, plain text."""

    name = "kafka"
    allowed_skips: ClassVar[Mapping[str, str] | None] = SKIPS
    native_type = ConsumerRecord
    patience = 40.0
    quiet = 1.0
    short = 1.0
    saturation = 8.0
    partitions: ClassVar[int] = 4
    source_options: ClassVar[Mapping[str, object]] = {"group": "g", "session_timeout": 6}
    listener: ClassVar[str] = "GATED"

    def __init__(self) -> None:
        self._server = shared()
        self._gate = gate()
        self._fetched_before = self._gate.fetched
        self._group = f"g-{uuid.uuid4().hex[:8]}"
        self._sockets: list[socket.socket] = []

    def group_of(self, group: str | None) -> str:
        """Give each test groups of its own."""
        return self._group if group is None else f"{self._group}-{group}"

    def source_url(self, name: str) -> str:
        """Name the topic."""
        return f"kafka://{self._server.address(self.listener)}/{name}"

    def source(self, name: str, group: str | None = None, **options: Any) -> tuple[str, dict[str, Any]]:
        """Give URL and options of a source."""
        return self.source_url(name), {**self.source_options, "group": self.group_of(group), **options}

    @property
    def body_limit(self) -> int:
        """The adapter's own."""
        return self.capabilities.max_publish_bytes or 0

    def create(self, name: str) -> None:
        """Make the topic, and wait until it is there."""
        with administrator(self._server) as admin:
            admin.create_topics({name: {"num_partitions": self.partitions, "replication_factor": 1}})
            admin.wait_for_topics([name])

    def close(self) -> None:
        """Close what listened, and let everything pass again."""
        self._gate.refusals.clear()
        self._gate.rules.clear()
        self._gate.answer_rules.clear()
        for one in self._sockets:
            one.close()

    def faults(self, name: str) -> Any:
        """The broker can be frozen, and connections cut."""
        return KafkaFaults(self._server, self._gate)

    def fetched_bytes(self, subscriber: Subscriber) -> int:
        """Count what came through the gate since the test began: it has one subscriber."""
        return self._gate.fetched - self._fetched_before

    def generation(self, name: str, group: str | None = None) -> int:
        """Give the newest generation that a member has spoken of."""
        return self._gate.generations.get(self.group_of(group), 0)

    def missing_url(self, side: Literal["source", "destination"]) -> str:
        """Topics are not made by themselves."""
        return self.source_url("no-such-topic")

    def bad_credentials(self) -> tuple[str, Mapping[str, object], str]:
        """A user with the wrong password."""
        options = {"group": "g", "username": "alice", "password": Secret("wrong-pw-99")}
        return f"kafka://{self._server.address('SASL_PLAINTEXT')}/topic", options, "wrong-pw-99"

    def unreachable_url(self) -> str:
        """A port on which nobody listens."""
        return f"kafka://127.0.0.1:{free_port()}/topic"

    def silent_url(self) -> str:
        """A port that accepts and says nothing."""
        one = socket.create_server(("127.0.0.1", 0))
        self._sockets.append(one)
        return f"kafka://127.0.0.1:{one.getsockname()[1]}/topic"

    def error_table(self) -> Iterable[tuple[BaseException, type[BrokerError], bool]]:
        """Make an error of each class."""
        for name, kind in TABLE.items():
            yield getattr(kafka.errors, name)("from the client"), kind, kind("").retryable

    def translate(self, error: BaseException) -> BrokerError:
        """Translate as the adapter does."""
        return translate(error, "kafka://broker/topic")

    def committed(self, name: str, group: str | None = None) -> Mapping[str, int]:
        """Ask the group coordinator."""
        found = committed(self._server, self.group_of(group))
        return {f"{partition.topic}/{partition.partition}": offset for partition, offset in found.items()}

    def revoke(self, subscriber: Subscriber) -> bool:
        """Remove every member from its group, as an administrator may, and wait until it has noticed."""
        coordinator = subscriber._group.member._consumer._coordinator  # type: ignore[attr-defined]
        member = coordinator._generation.member_id
        with administrator(self._server) as admin:
            admin.remove_group_members(self._group, [MemberToRemove(member_id=member)])
        wait_until(lambda: coordinator._generation.member_id != member or coordinator._generation.is_lost(), 10,
                   what="the member notices")  # fmt: skip
        return True

    def make_gaps(self, name: str) -> Iterable[bytes]:
        """Transactions, committed and aborted, leave offsets without messages."""
        producer = KafkaProducer(
            bootstrap_servers=self._server.address(), transactional_id=uuid.uuid4().hex, retry_backoff_ms=5
        )
        try:
            producer.init_transactions()
            for number in range(4):
                producer.begin_transaction()
                producer.send(name, b"%d" % number, key=b"one").get(10)
                if number % 2:
                    producer.abort_transaction()
                else:
                    producer.commit_transaction()
        finally:
            producer.close(5)
        return [b"0", b"2"]

    def recreate(self, name: str) -> bool:
        """Delete the topic, and make it again."""
        with administrator(self._server) as admin:
            admin.delete_topics([name])
            wait_until(lambda: name not in admin.list_topics(), 10, what="the topic is gone")
        self.create(name)
        return True


class KafkaScenarioHarness(KafkaHarness):
    """The same for scenarios, in which members are taken for dead."""

    def faults(self, name: str) -> Any:
        """The broker can be told that every member of the group is dead."""
        return DeadMembers(self._server, self._gate, self.group_of(None))


class RdHarness(KafkaHarness):
    """The same through librdkafka."""

    native_type = confluent_kafka.Message
    source_options: ClassVar[Mapping[str, object]] = {**KafkaHarness.source_options, "client": "librdkafka"}
    destination_options: ClassVar[Mapping[str, object]] = {"client": "librdkafka"}

    def bad_credentials(self) -> tuple[str, Mapping[str, object], str]:
        """A user with the wrong password."""
        url, options, secret = super().bad_credentials()
        return url, {**options, "client": "librdkafka"}, secret

    def error_table(self) -> Iterable[tuple[BaseException, type[BrokerError], bool]]:
        """Make an error of each code."""
        for name, kind in _kafka_rd_errors.TABLE.items():
            error = KafkaError(getattr(KafkaError, name), "from the client")
            yield KafkaException(error), kind, kind("").retryable

    def translate(self, error: BaseException) -> BrokerError:
        """Translate as the adapter does."""
        return _kafka_rd_errors.translate(error, "kafka://broker/topic")

    def revoke(self, subscriber: Subscriber) -> bool:
        """Remove every member from its group, as an administrator may, and wait until it has noticed."""
        consumer = subscriber._group.member.handle  # type: ignore[attr-defined]
        member = consumer.memberid()
        with administrator(self._server) as admin:
            admin.remove_group_members(self._group, [MemberToRemove(member_id=member)])
        wait_until(lambda: consumer.memberid() != member, 10, what="the member notices")
        return True


class KafkaRunnerHarness(KafkaHarness):
    """The same for the runner, whose faults are of one end only: a frozen broker would freeze both."""

    allowed_skips: ClassVar[Mapping[str, str] | None] = None

    def faults(self, name: str) -> None:
        """None that the source would not have, too."""


class RdScenarioHarness(RdHarness):
    """The same for scenarios, in which members are taken for dead."""

    def faults(self, name: str) -> Any:
        """The broker can be told that every member of the group is dead."""
        return DeadMembers(self._server, self._gate, self.group_of(None))


class RdRunnerHarness(RdHarness):
    """The same through librdkafka."""

    allowed_skips: ClassVar[Mapping[str, str] | None] = None

    def faults(self, name: str) -> None:
        """None that the source would not have, too."""
