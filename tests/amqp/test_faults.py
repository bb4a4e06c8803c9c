"""The stand-in's hooks, as the vendor's clients meet them: each does what it says, to what it names."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage
from azure.servicebus.exceptions import (
    MessageLockLostError,
    OperationTimeoutError,
    ServiceBusConnectionError,
    ServiceBusQuotaExceededError,
    SessionCannotBeLockedError,
)

from amqp import AzureServer
from eventflows.testing.conditions import Background, wait_until

NAME = "orders"
HUB = "telemetry"


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    """One stand-in for the module."""
    with AzureServer() as server:
        yield server


@pytest.fixture(autouse=True)
def fresh(azure: AzureServer) -> None:
    """A fresh queue and hub, and nothing that goes wrong."""
    azure.call(azure.broker.queues.clear)
    azure.call(azure.broker.hubs.clear)
    azure.call(azure.broker.faults.clear)
    azure.queue(NAME, lock=30)
    azure.hub(HUB, partitions=2)


@pytest.fixture
def client(azure: AzureServer) -> Iterator[ServiceBusClient]:
    """The vendor's client, without retries of its own."""
    with ServiceBusClient.from_connection_string(azure.connection_string, retry_total=0, try_timeout=5) as client:
        yield client


def send(client: ServiceBusClient, *bodies: bytes) -> None:
    """Send to the queue, one by one."""
    with client.get_queue_sender(NAME) as sender:
        for body in bodies:
            sender.send_messages(ServiceBusMessage(body), timeout=5)


def test_rejection_names_its_condition_and_takes_nothing(azure: AzureServer, client: ServiceBusClient) -> None:
    """Of one entity only: the same refusal planned for another changes nothing here."""
    azure.plan("publish", "amqp:resource-limit-exceeded", entity=NAME)
    azure.plan("publish", "com.microsoft:server-busy", entity="another")
    with client.get_queue_sender(NAME) as sender:
        with pytest.raises(ServiceBusQuotaExceededError):
            sender.send_messages(ServiceBusMessage(b"x"), timeout=5)
        assert azure.counts(NAME)["active"] == 0
        sender.send_messages(ServiceBusMessage(b"x"), timeout=5)


def test_muted_publication_is_taken_without_an_answer(azure: AzureServer, client: ServiceBusClient) -> None:
    """The client gives up, and the message is there all the same."""
    azure.mute(NAME)
    with client.get_queue_sender(NAME) as sender, pytest.raises(OperationTimeoutError):
        sender.send_messages(ServiceBusMessage(b"x"), timeout=0.5)
    assert azure.counts(NAME)["active"] == 1


def test_frozen_settlement_is_done_without_an_answer(azure: AzureServer, client: ServiceBusClient) -> None:
    """The message is gone, and the client goes on waiting: it has no bound of its own below a minute."""
    send(client, b"x")
    with client.get_queue_receiver(NAME) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        azure.freeze("settle", NAME)
        waiting = Background(lambda: receiver.complete_message(message))
        wait_until(lambda: azure.counts(NAME)["active"] == 0, 5, what="the end of the message")
        assert waiting.running
        azure.call(azure.broker.faults.clear)
        azure.disconnect()
        with contextlib.suppress(Exception):  # whatever the client makes of a connection that is cut under it
            waiting.result(20)


def test_one_lock_ends_and_the_others_stay(azure: AzureServer, client: ServiceBusClient) -> None:
    """The message that matches comes again, its count grown; the other is completed as if nothing had been."""
    send(client, b"one", b"two")
    with client.get_queue_receiver(NAME, prefetch_count=2) as receiver:
        found = {b"".join(one.body): one for one in receiver.receive_messages(2, max_wait_time=2)}
        azure.expire_locks(lambda message: message.body == b"one")
        receiver.complete_message(found[b"two"])
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(found[b"one"])
        [again] = receiver.receive_messages(1, max_wait_time=2)
        assert (b"".join(again.body), again.delivery_count) == (b"one", 1)


def test_detached_link_says_its_condition(azure: AzureServer, client: ServiceBusClient) -> None:
    """Only the links that match are detached, and their client is told why."""
    with client.get_queue_receiver(NAME) as receiver, client.get_queue_sender(NAME) as sender:
        assert azure.detach("amqp:link:detach-forced", match=lambda link: link.sends and NAME in link.address) == 1
        with pytest.raises(ServiceBusConnectionError):
            receiver.receive_messages(1, max_wait_time=2)
        sender.send_messages(ServiceBusMessage(b"x"), timeout=5)


def failed(receiver: Any) -> bool:
    """Receive once; says whether that raised."""
    try:
        receiver.receive_messages(1, max_wait_time=0.2)
    except Exception:  # noqa: BLE001 - the client has no class of its own for it
        return True
    return False


def test_ended_session_ends_the_links_in_it(azure: AzureServer, client: ServiceBusClient) -> None:
    """What was held stays locked; the client's next call fails, and a new link finds the entity as it was."""
    send(client, b"x")
    with client.get_queue_receiver(NAME) as receiver:
        receiver.receive_messages(1, max_wait_time=2)
        assert azure.end_sessions() > 0
        wait_until(lambda: failed(receiver), 10, what="an error of the client")
    assert azure.counts(NAME)["locked"] == 1
    azure.expire_locks()
    with client.get_queue_receiver(NAME) as receiver:
        assert len(receiver.receive_messages(1, max_wait_time=2)) == 1


def test_reset_ends_every_connection(azure: AzureServer, client: ServiceBusClient) -> None:
    """They can be counted, and are gone at once."""
    with client.get_queue_receiver(NAME):
        assert azure.connections > 0
        azure.disconnect()
        wait_until(lambda: azure.connections == 0, 5, what="the end of every connection")


def test_delay_holds_every_answer_back(azure: AzureServer, client: ServiceBusClient) -> None:
    """To a publication, a settlement, and a request of management; each arrives, later."""
    with client.get_queue_sender(NAME) as sender, client.get_queue_receiver(NAME) as receiver:
        azure.delay(0.3)
        took = []
        for call in (
            lambda: sender.send_messages(ServiceBusMessage(b"x"), timeout=5),
            lambda: receiver.peek_messages(1),
            lambda: receiver.complete_message(receiver.receive_messages(1, max_wait_time=2)[0]),
        ):
            began = time.monotonic()
            call()
            took.append(time.monotonic() - began)
    assert min(took) >= 0.3


def test_frozen_reader_is_given_nothing_until_it_is_thawed(azure: AzureServer, client: ServiceBusClient) -> None:
    """Its credit is not used; what waits comes when it is thawed."""
    azure.freeze("receive", NAME)
    send(client, b"x")
    with client.get_queue_receiver(NAME) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
        azure.thaw("receive")
        assert len(receiver.receive_messages(1, max_wait_time=5)) == 1


def test_stolen_partition_is_kept_by_the_higher_epoch(azure: AzureServer) -> None:
    """Its reader is told so, and a new one with a lower epoch is refused; another partition is read as before."""
    hub: dict[str, Any] = {"eventhub_name": HUB, "retry_total": 0}
    with EventHubProducerClient.from_connection_string(azure.connection_string, **hub) as producer:
        for partition in ("0", "1"):
            batch = producer.create_batch(partition_id=partition)
            batch.add(EventData(partition.encode()))
            producer.send_batch(batch)
    azure.steal(HUB, "0")
    seen: dict[str, list[str]] = {"0": [], "1": []}
    refused: list[str] = []
    reader = EventHubConsumerClient.from_connection_string(azure.connection_string, "$Default", **hub)

    def read() -> None:
        reader.receive(
            lambda context, event: seen[context.partition_id].append(event.body_as_str()),
            on_error=lambda context, error: refused.append(str(error)),
            starting_position="-1", owner_level=1,
        )  # fmt: skip

    reading = Background(read)
    wait_until(lambda: seen["1"] and refused, 20, what="the event of one, and the refusal of the other")
    reader.close()
    reading.result(20)
    assert seen == {"0": [], "1": ["1"]}
    assert "epoch" in refused[0]


def test_trace_hears_every_frame(azure: AzureServer, client: ServiceBusClient) -> None:
    """From the opening of a connection on: what a client does can be read afterwards."""
    kinds: list[str] = []

    def trace(_: str, __: int, said: Any) -> None:
        kinds.append(said.kind)

    def listen() -> None:
        azure.broker.faults.trace = trace

    azure.call(listen)
    send(client, b"x")
    assert [*dict.fromkeys(kinds)] == ["open", "begin", "attach", "flow", "transfer", "detach", "end", "close"]


def test_counts_say_where_every_message_is(azure: AzureServer, client: ServiceBusClient) -> None:
    """Active, locked, deferred, dead."""
    send(client, b"1", b"2", b"3", b"4")
    with client.get_queue_receiver(NAME, prefetch_count=3) as receiver:
        messages = receiver.receive_messages(3, max_wait_time=2)
        receiver.defer_message(messages[0])
        receiver.dead_letter_message(messages[1])
        assert azure.counts(NAME) == {"active": 2, "locked": 2, "deferred": 1, "scheduled": 0, "dead": 1}


def test_lock_ends_by_the_clock(azure: AzureServer, client: ServiceBusClient) -> None:
    """Nobody renews it: its time over, the message is free again, at the cost of a delivery."""
    azure.queue("short", lock=1.0)
    with client.get_queue_sender("short") as sender:
        sender.send_messages(ServiceBusMessage(b"x"), timeout=5)
    with client.get_queue_receiver("short") as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=2)
        [again] = receiver.receive_messages(1, max_wait_time=5)
    assert (message.delivery_count, again.delivery_count) == (0, 1)


def test_session_lock_ends_by_the_clock(azure: AzureServer, client: ServiceBusClient) -> None:
    """Its session is free for others then."""
    azure.queue("ordered", lock=1.0, sessions=True)
    with client.get_queue_sender("ordered") as sender:
        sender.send_messages(ServiceBusMessage(b"x", session_id="s"), timeout=5)
    with client.get_queue_receiver("ordered", session_id="s") as receiver:
        receiver.receive_messages(1, max_wait_time=2)
        wait_until(lambda: azure.counts("ordered")["locked"] == 0, 5, what="the end of the session's lock")
    with client.get_queue_receiver("ordered", session_id="s") as receiver:
        assert len(receiver.receive_messages(1, max_wait_time=2)) == 1


def cut_session(azure: AzureServer, client: ServiceBusClient, *, lock: float) -> None:
    """Have a receiver hold one of two messages of a session, and cut its connection."""
    azure.queue("ordered", lock=lock, sessions=True)
    with client.get_queue_sender("ordered") as sender:
        for body in (b"held", b"waits"):
            sender.send_messages(ServiceBusMessage(body, session_id="s"), timeout=5)
    with client.get_queue_receiver("ordered", session_id="s") as receiver:
        receiver.receive_messages(1, max_wait_time=2)
        azure.disconnect()
        wait_until(lambda: azure.connections == 0, 5, what="the end of every connection")


def test_session_whose_owner_was_cut_is_nobody_elses_while_its_lock_lasts(
    azure: AzureServer, client: ServiceBusClient
) -> None:
    """Nobody has closed it: another receiver is refused."""
    cut_session(azure, client, lock=30.0)
    other = client.get_queue_receiver("ordered", session_id="s")
    with contextlib.closing(other), pytest.raises(SessionCannotBeLockedError):
        other.receive_messages(1, max_wait_time=2)
    assert azure.counts("ordered")["locked"] == 1


def test_session_whose_owner_was_cut_costs_what_it_held_a_delivery(
    azure: AzureServer, client: ServiceBusClient
) -> None:
    """It is free when its lock has ended; what had not been sent costs nothing."""
    cut_session(azure, client, lock=1.0)
    with client.get_queue_receiver("ordered", session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5) as receiver:
        found = receiver.receive_messages(1, max_wait_time=2) + receiver.receive_messages(1, max_wait_time=2)
    assert [(b"".join(one.body), one.delivery_count) for one in found] == [(b"held", 1), (b"waits", 0)]


def test_message_id_is_free_again_when_the_window_is_over(azure: AzureServer, client: ServiceBusClient) -> None:
    """Duplicates are dropped for so long, and no longer."""
    azure.queue("once", duplicates=1.0)
    with client.get_queue_sender("once") as sender:

        def sent() -> int:
            sender.send_messages(ServiceBusMessage(b"x", message_id="1"), timeout=5)
            return azure.counts("once")["active"]

        assert (sent(), sent()) == (1, 1)
        wait_until(lambda: sent() > 1, 5, what="the end of the window", every=0.3)


def test_message_whose_time_is_over_is_dead(azure: AzureServer, client: ServiceBusClient) -> None:
    """It goes to the dead letters with the service's own reason, when it would be delivered."""
    import datetime

    with client.get_queue_sender(NAME) as sender:
        sender.send_messages(ServiceBusMessage(b"x", time_to_live=datetime.timedelta(milliseconds=1)), timeout=5)
    with client.get_queue_receiver(NAME) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
    with client.get_queue_receiver(NAME, sub_queue="deadletter") as receiver:
        [dead] = receiver.receive_messages(1, max_wait_time=2)
    assert dead.dead_letter_reason == "TTLExpiredException"
