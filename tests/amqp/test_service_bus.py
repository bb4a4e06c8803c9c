"""The stand-in, as the vendor's own Service Bus client sees it."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage, ServiceBusReceiver
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessageNotFoundError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusConnectionError,
    ServiceBusServerBusyError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from amqp import AzureServer
from amqp.server import KEY_NAME

NAME = "orders"


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    """One stand-in for the module."""
    with AzureServer() as server:
        yield server


@pytest.fixture
def client(azure: AzureServer) -> Iterator[ServiceBusClient]:
    """The vendor's client, without retries of its own."""
    azure.call(azure.broker.queues.clear)
    azure.call(azure.broker.topics.clear)
    with ServiceBusClient.from_connection_string(azure.connection_string, retry_total=0, try_timeout=5) as client:
        yield client


def send(client: ServiceBusClient, *messages: ServiceBusMessage, to: str = NAME) -> None:
    """Send to a queue."""
    with client.get_queue_sender(to) as sender:
        sender.send_messages(list(messages), timeout=5)


def take(receiver: ServiceBusReceiver, count: int = 1) -> list[bytes]:
    """Receive so many bodies, or fewer after a second, and complete them."""
    got: list[bytes] = []
    while len(got) < count and (found := receiver.receive_messages(count - len(got), max_wait_time=1)):
        for message in found:
            got.append(b"".join(message.body))
            receiver.complete_message(message)
    return got


@contextlib.contextmanager
def closed_behind(handler: Any) -> Iterator[None]:
    """Open a sender or receiver that is refused, and close it: the client leaves its socket open otherwise."""
    try:
        with handler:
            yield
    finally:
        handler.close()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_message_arrives_with_all_it_had(azure: AzureServer, client: ServiceBusClient) -> None:
    """Body, properties and headers make the round trip, and completing ends it."""
    azure.queue(NAME)
    send(client, ServiceBusMessage(b"\x00body", message_id="1", content_type="a/b", application_properties={"h": "v"}))
    with client.get_queue_receiver(NAME) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        got = (b"".join(message.body), message.message_id, message.content_type, message.application_properties)
        receiver.complete_message(message)
    assert got == (b"\x00body", "1", "a/b", {b"h": b"v"})
    assert azure.counts(NAME)["active"] == 0


def test_an_abandoned_message_comes_again_and_dies_after_too_many(azure: AzureServer, client: ServiceBusClient) -> None:
    """Each abandon counts; the last one makes it a dead letter with a reason."""
    azure.queue(NAME, max_delivery=2)
    send(client, ServiceBusMessage(b"x"))
    counts = []
    with client.get_queue_receiver(NAME) as receiver:
        while messages := receiver.receive_messages(1, max_wait_time=0.5):
            counts.append(messages[0].delivery_count)
            receiver.abandon_message(messages[0])
    with client.get_queue_receiver(NAME, sub_queue="deadletter") as receiver:
        [dead] = receiver.receive_messages(1, max_wait_time=2)
        receiver.complete_message(dead)
    assert (counts, dead.dead_letter_reason) == ([0, 1], "MaxDeliveryCountExceeded")


def test_a_lock_that_ends_costs_a_delivery(azure: AzureServer, client: ServiceBusClient) -> None:
    """Whoever is late learns that the lock is lost; the message comes again, its count grown."""
    azure.queue(NAME, lock=60)
    send(client, ServiceBusMessage(b"x"))
    with client.get_queue_receiver(NAME) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        azure.expire_locks()
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
        with pytest.raises(MessageLockLostError):
            receiver.renew_message_lock(message)
        [again] = receiver.receive_messages(1, max_wait_time=2)
        assert again.delivery_count == 1


def test_a_renewed_lock_lasts(azure: AzureServer, client: ServiceBusClient) -> None:
    """While it is renewed nobody else gets the message."""
    azure.queue(NAME, lock=1)
    send(client, ServiceBusMessage(b"x"))
    with client.get_queue_receiver(NAME) as receiver, client.get_queue_receiver(NAME) as other:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        for _ in range(4):
            assert other.receive_messages(1, max_wait_time=0.5) == []
            receiver.renew_message_lock(message)
        receiver.complete_message(message)


def test_closing_releases_what_was_fetched_ahead(azure: AzureServer, client: ServiceBusClient) -> None:
    """What a client fetched ahead and never gave out comes back at once, at no cost."""
    azure.queue(NAME)
    send(client, *(ServiceBusMessage(b"%d" % number) for number in range(5)))
    with client.get_queue_receiver(NAME, prefetch_count=5) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        receiver.complete_message(message)
    until(lambda: azure.counts(NAME)["locked"] == 0)
    with client.get_queue_receiver(NAME) as receiver:
        assert {one.delivery_count for one in receiver.receive_messages(4, max_wait_time=2)} == {0}


def test_a_scheduled_message_waits_and_can_be_cancelled(azure: AzureServer, client: ServiceBusClient) -> None:
    """It is peeked at before its time, delivered at it, and one that is cancelled never comes."""
    azure.queue(NAME)
    with client.get_queue_sender(NAME) as sender, client.get_queue_receiver(NAME) as receiver:
        due = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=1)
        [number] = sender.schedule_messages([ServiceBusMessage(b"never")], due)
        sender.schedule_messages([ServiceBusMessage(b"later")], due)
        assert len(receiver.peek_messages(5, sequence_number=1)) == 2
        sender.cancel_scheduled_messages([number])
        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages([number])
        assert receiver.receive_messages(1, max_wait_time=0.3) == []
        assert take(receiver, 2) == [b"later"]


def test_duplicates_are_dropped_by_message_id(azure: AzureServer, client: ServiceBusClient) -> None:
    """The second message of an id succeeds, and does not arrive."""
    azure.queue(NAME, duplicates=60)
    send(client, ServiceBusMessage(b"one", message_id="1"), ServiceBusMessage(b"two", message_id="1"))
    with client.get_queue_receiver(NAME) as receiver:
        assert take(receiver, 2) == [b"one"]


def test_a_deferred_message_is_received_by_its_number(azure: AzureServer, client: ServiceBusClient) -> None:
    """It comes to nobody who does not ask for it."""
    azure.queue(NAME)
    send(client, ServiceBusMessage(b"x"))
    with client.get_queue_receiver(NAME) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        receiver.defer_message(message)
        assert receiver.receive_messages(1, max_wait_time=0.3) == []
        [deferred] = receiver.receive_deferred_messages([message.sequence_number or 0])
        receiver.complete_message(deferred)
    assert azure.counts(NAME)["deferred"] == 0


def test_every_subscription_of_a_topic_gets_everything(azure: AzureServer, client: ServiceBusClient) -> None:
    """A topic fans out."""
    azure.topic(NAME, "a", "b")
    with client.get_topic_sender(NAME) as sender:
        sender.send_messages(ServiceBusMessage(b"x"), timeout=5)
    for name in ("a", "b"):
        with client.get_subscription_receiver(NAME, name) as receiver:
            assert take(receiver) == [b"x"]


def test_a_session_has_one_owner_and_its_order(azure: AzureServer, client: ServiceBusClient) -> None:
    """The next free session is given out, another owner is refused, and its messages come in order."""
    azure.queue(NAME, sessions=True)
    send(client, *(ServiceBusMessage(b"%d" % n, session_id=f"s{n % 2}") for n in range(4)))
    with client.get_queue_receiver(NAME, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=2) as receiver:
        name = receiver.session.session_id
        with pytest.raises(SessionCannotBeLockedError), closed_behind(client.get_queue_receiver(NAME, session_id=name)):
            pass
        receiver.session.set_state(b"kept")
        assert (take(receiver, 2), receiver.session.get_state()) == ([b"0", b"2"], b"kept")
    with client.get_queue_receiver(NAME, session_id="s1") as receiver:
        assert take(receiver, 2) == [b"1", b"3"]


def test_waiting_for_a_session_ends_in_time(azure: AzureServer, client: ServiceBusClient) -> None:
    """No session comes: the client is told so when its time is over."""
    azure.queue(NAME, sessions=True)
    with (
        pytest.raises(OperationTimeoutError),
        closed_behind(client.get_queue_receiver(NAME, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=0.5)),
    ):
        pass


def test_a_lost_session_lock_ends_its_receiver(azure: AzureServer, client: ServiceBusClient) -> None:
    """What was held comes again, and its old owner cannot complete it."""
    azure.queue(NAME, sessions=True)
    send(client, ServiceBusMessage(b"x", session_id="s"))
    with client.get_queue_receiver(NAME, session_id="s") as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        azure.expire_locks()
        with pytest.raises((SessionLockLostError, ServiceBusConnectionError)):
            receiver.complete_message(message)
    assert azure.counts(NAME)["locked"] == 0


def test_a_large_message_crosses_in_several_frames(azure: AzureServer, client: ServiceBusClient) -> None:
    """A body as large as the link allows arrives whole."""
    azure.queue(NAME)
    body = bytes(range(256)) * 1000
    send(client, ServiceBusMessage(body))
    with client.get_queue_receiver(NAME) as receiver:
        assert take(receiver) == [body]


def test_a_missing_queue_is_not_found(azure: AzureServer, client: ServiceBusClient) -> None:
    """The refusal has the class that the service's own has."""
    with pytest.raises(MessagingEntityNotFoundError), closed_behind(client.get_queue_sender("no-such")):
        pass


def test_a_wrong_key_is_refused(azure: AzureServer, client: ServiceBusClient) -> None:
    """Signatures are checked."""
    azure.queue(NAME)
    wrong = azure.connection_string_of(KEY_NAME, "d3Jvbmc=")
    with (
        ServiceBusClient.from_connection_string(wrong, retry_total=0) as stranger,
        pytest.raises(ServiceBusAuthenticationError),
        closed_behind(stranger.get_queue_sender(NAME)),
    ):
        pass


def test_a_planned_refusal_comes_once(azure: AzureServer, client: ServiceBusClient) -> None:
    """The next send is refused, the one after it is not."""
    azure.queue(NAME)
    azure.plan("publish", "com.microsoft:server-busy")
    with client.get_queue_sender(NAME) as sender:
        with pytest.raises(ServiceBusServerBusyError):
            sender.send_messages(ServiceBusMessage(b"x"), timeout=5)
        sender.send_messages(ServiceBusMessage(b"y"), timeout=5)
    assert azure.counts(NAME)["active"] == 1


def test_a_frozen_publish_is_not_answered_until_it_is_thawed(azure: AzureServer, client: ServiceBusClient) -> None:
    """The client's own time-out ends the call; what was published is taken all the same, later."""
    azure.queue(NAME)
    azure.freeze("publish")
    with client.get_queue_sender(NAME) as sender:
        with pytest.raises(OperationTimeoutError):
            sender.send_messages(ServiceBusMessage(b"x"), timeout=1)
        azure.thaw("publish")
    assert azure.counts(NAME)["active"] == 1


def test_work_goes_on_after_the_network_was_cut(azure: AzureServer) -> None:
    """A message in hand is completed over a new connection while its lock lives."""
    azure.call(azure.broker.queues.clear)
    azure.queue(NAME)
    with ServiceBusClient.from_connection_string(azure.connection_string, retry_backoff_factor=0.1) as client:
        send(client, ServiceBusMessage(b"x"))
        with client.get_queue_receiver(NAME) as receiver:
            [message] = receiver.receive_messages(1, max_wait_time=2)
            azure.disconnect()
            receiver.complete_message(message)
    assert azure.counts(NAME)["active"] == 0
