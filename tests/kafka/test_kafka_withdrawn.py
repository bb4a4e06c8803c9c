"""Rights and topics that are taken from a running flow: it is told, by the right name, and blames no message."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping

import attrs
import pytest
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from eventflows import HaltedError, NotFoundError, PermissionDeniedError, publisher, subscriber
from eventflows.flow import Flow
from eventflows.locate import open_publisher
from eventflows.message import Message
from eventflows.observe import Observer
from eventflows.secret import Secret
from eventflows.testing import wait_until
from eventflows.testing.conditions import Background, pass_time
from kafka_use import CLIENTS, administrator, committed, ends, fresh_topic
from servers.kafka import PASSWORDS, KafkaServer, shared

pytestmark = [pytest.mark.trial, pytest.mark.timeout(180)]
TOLD = 10.0
"""Seconds within which a flow must have ended."""


@pytest.fixture
def server() -> KafkaServer:
    """The broker that all share."""
    return shared()


@attrs.frozen
class Place:
    """What a flow needs: three topics, a group, and the options of its user."""

    server: KafkaServer
    client: str
    secured: bool
    source: str
    destination: str
    dead: str
    group: str

    @classmethod
    def make(cls, server: KafkaServer, client: str, *, secured: bool) -> Place:
        """Make the topics."""
        source, destination, dead = (fresh_topic(server) for _ in range(3))
        return cls(server, client, secured, source, destination, dead, f"withdrawn-{uuid.uuid4().hex[:8]}")

    def flow(self, guarantee: str, observer: Observer) -> Flow[..., object]:
        """Make a flow that passes bodies on."""

        def apply(input: bytes) -> bytes:
            return input

        base = f"kafka://{self.server.address('SASL_PLAINTEXT' if self.secured else 'PLAINTEXT')}"
        user = {"username": "alice", "password": Secret(PASSWORDS["alice"])} if self.secured else {}
        options: Mapping[str, object] = {**user, **CLIENTS[self.client]}
        passing = publisher(f"{base}/{self.destination}", **options)(apply)
        dead = "halt" if self.secured else f"{base}/{self.dead}?client={self.client}"
        return subscriber(
            f"{base}/{self.source}", group=self.group, guarantee=guarantee, dead_letter=dead, observers=[observer],
            **options,
        )(passing)  # fmt: skip

    def publish(self, count: int) -> None:
        """Publish to the source."""
        with open_publisher(f"kafka://{self.server.address()}/{self.source}") as out:
            assert not any(one.error for one in out.publish([Message(b"%d" % number) for number in range(count)]))

    def at_rest(self) -> bool:
        """Say whether all of the source is done and committed."""
        return committed(self.server, self.group) == ends(self.server, self.source)

    def rights(self) -> dict[str, list[ACL]]:
        """Give what alice needs, by what it is for."""

        def rule(kind: ResourceType, name: str, operation: ACLOperation, how: ACLResourcePatternType) -> list[ACL]:
            return [ACL("User:alice", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name, how))]

        literal, prefixed = ACLResourcePatternType.LITERAL, ACLResourcePatternType.PREFIXED
        return {
            "topic": rule(ResourceType.TOPIC, self.source, ACLOperation.READ, literal),
            "group": rule(ResourceType.GROUP, self.group, ACLOperation.READ, literal),
            "destination": rule(ResourceType.TOPIC, self.destination, ACLOperation.WRITE, literal),
            "transactions": rule(
                ResourceType.TRANSACTIONAL_ID, f"eventflows-{self.group}-", ACLOperation.WRITE, prefixed
            ),
        }


class Troubles(Observer):
    """Keeps what a flow tells of places that fail."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def reconnecting(self, *, flow: str, place: str, error: Exception, delay: float) -> None:
        """Keep it."""
        self.errors.append(error)


@pytest.fixture
def place(server: KafkaServer, client: str) -> Iterator[Place]:
    """Topics that alice may use, and a group; her rights end with the test."""
    place = Place.make(server, client, secured=True)
    rules = [rule for rules in place.rights().values() for rule in rules]
    with administrator(server) as admin:
        admin.create_acls(rules)
        yield place
        admin.delete_acls(rules)


def threads() -> int:
    """Count the threads of this process, native ones included."""
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
@pytest.mark.parametrize("lost", ["topic", "group"])
def test_flow_that_may_no_longer_read_halts_within_ten_seconds_when_nothing_comes(
    place: Place, lost: str, guarantee: str
) -> None:
    """Topic and group are told apart, no message is needed to learn it, and no thread stays."""
    place.publish(5)
    with administrator(place.server) as admin:
        before = threads()
        flow = place.flow(guarantee, Troubles())
        run = Background(lambda: flow.run(signals=False))
        wait_until(place.at_rest, 30, what="everything done", every=0.2)
        admin.delete_acls(place.rights()[lost])
        begun = time.monotonic()
        with pytest.raises(HaltedError, match=rf"ACL on the {lost}: READ") as caught:
            run.result(TOLD, "the halt")
        assert time.monotonic() - begun < TOLD
        wait_until(lambda: threads() <= before, what="the end of its threads")
    assert isinstance(caught.value.__cause__, PermissionDeniedError)


@pytest.mark.parametrize("lost", ["destination", "transactions"])
def test_transactions_that_are_no_longer_allowed_halt_the_flow_within_ten_seconds(place: Place, lost: str) -> None:
    """What could not be committed is not: the position stays."""
    place.publish(5)
    with administrator(place.server) as admin:
        flow = place.flow("exactly-once", Troubles())
        run = Background(lambda: flow.run(signals=False))
        wait_until(place.at_rest, 30, what="everything done", every=0.2)
        admin.delete_acls(place.rights()[lost])
        pass_time(0.5)
        place.publish(5)
        with pytest.raises(HaltedError, match="Ask for an ACL") as caught:
            run.result(TOLD, "the halt")
    assert isinstance(caught.value.__cause__, PermissionDeniedError)
    assert list(committed(place.server, place.group).values()) == [5]


def test_outputs_that_may_no_longer_be_published_are_told_within_ten_seconds(place: Place) -> None:
    """The flow keeps them, says why, and publishes them when it may again."""
    troubles = Troubles()
    flow = place.flow("at-least-once", troubles)
    with flow.running(), administrator(place.server) as admin:
        place.publish(5)
        wait_until(place.at_rest, 30, what="everything done", every=0.2)
        admin.delete_acls(place.rights()["destination"])
        pass_time(0.5)
        place.publish(5)
        wait_until(lambda: troubles.errors, TOLD, what="trouble")
        assert isinstance(troubles.errors[0], PermissionDeniedError)
        admin.create_acls(place.rights()["destination"])
        wait_until(place.at_rest, 30, what="everything done", every=0.2)
    assert sum(ends(place.server, place.destination).values()) == 10


def test_destination_that_is_deleted_halts_an_exactly_once_flow_and_blames_no_message(
    server: KafkaServer, client: str
) -> None:
    """No transaction can be committed: nothing is dead-lettered, the position stays, and the topic is named."""
    place = Place.make(server, client, secured=False)
    place.publish(5)
    flow = place.flow("exactly-once", Troubles())
    run = Background(lambda: flow.run(signals=False))
    wait_until(place.at_rest, 30, what="everything done", every=0.2)
    with administrator(server) as admin:
        admin.delete_topics([place.destination])
    place.publish(100)
    with pytest.raises(HaltedError, match=f"there is no topic '{place.destination}'") as caught:
        run.result(40.0, "the halt")
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert (list(committed(server, place.group).values()), list(ends(server, place.dead).values())) == ([5], [0])


def test_destination_that_is_deleted_is_told_and_no_message_blamed(server: KafkaServer, client: str) -> None:
    """Outputs wait for it, nothing is dead-lettered, and they are published when it is made anew."""
    place, troubles = Place.make(server, client, secured=False), Troubles()
    flow = place.flow("at-least-once", troubles)
    with flow.running(), administrator(server) as admin:
        place.publish(5)
        wait_until(place.at_rest, 30, what="everything done", every=0.2)
        admin.delete_topics([place.destination])
        place.publish(100)
        wait_until(lambda: any(isinstance(one, NotFoundError) for one in troubles.errors), 20, what="NotFoundError")
        admin.create_topics({place.destination: {"num_partitions": 1}}, wait_for_metadata=True)
        wait_until(place.at_rest, 30, what="everything done", every=0.2)
    assert (sum(ends(server, place.destination).values()) >= 100, list(ends(server, place.dead).values())) == (
        True, [0],
    )  # fmt: skip
