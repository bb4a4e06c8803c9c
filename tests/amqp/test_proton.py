"""The stand-in, as a client sees it that has nothing in common with the vendor's: Apache Qpid Proton, in C."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Iterator
from urllib.parse import quote_plus

import pytest
from proton import Delivery, Message, symbol
from proton.handlers import MessagingHandler
from proton.reactor import Filter, LinkOption, Selector
from proton.utils import BlockingConnection, BlockingReceiver, LinkDetached, SendException

from amqp import AzureServer
from amqp.server import KEY, KEY_NAME

UP_TO = 10.0


@pytest.fixture(scope="module")
def stand_in() -> Iterator[AzureServer]:
    """One stand-in for the module."""
    with AzureServer() as server:
        yield server


@pytest.fixture
def azure(stand_in: AzureServer) -> AzureServer:
    """The stand-in, without what another test has left there."""
    stand_in.call(stand_in.broker.queues.clear)
    stand_in.call(stand_in.broker.hubs.clear)
    return stand_in


@pytest.fixture
def connection(azure: AzureServer) -> Iterator[BlockingConnection]:
    """A connection that has shown its token."""
    made = BlockingConnection(f"amqp://{azure.host}", timeout=UP_TO, allowed_mechs="ANONYMOUS")
    try:
        assert shown(made, azure, KEY) == 202
        yield made
    finally:
        made.close()


def shown(connection: BlockingConnection, azure: AzureServer, key: str) -> int:
    """Show a token to `$cbs`; gives the status."""
    place, until = f"sb://{azure.host}/", str(int(time.time()) + 600)
    digest = hmac.new(key.encode(), f"{quote_plus(place)}\n{until}".encode(), hashlib.sha256).digest()
    signed = quote_plus(base64.b64encode(digest))
    token = f"SharedAccessSignature sr={quote_plus(place)}&sig={signed}&se={until}&skn={KEY_NAME}"
    answers, asks = connection.create_receiver("$cbs", credit=1), connection.create_sender("$cbs")
    asks.send(
        Message(
            id="1",
            body=token,
            properties={"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": place},
        )
    )
    answer = answers.receive(UP_TO)  # settled when it was sent
    assert answer.correlation_id == "1"
    status: int = answer.properties["status-code"]
    answers.close()
    asks.close()
    return status


def take(receiver: BlockingReceiver) -> Message:
    """Receive one message, not settled."""
    return receiver.receive(UP_TO)


def test_message_makes_the_round_trip(azure: AzureServer, connection: BlockingConnection) -> None:
    """Properties of every section, and types that the vendor's client never sends."""
    azure.queue("orders")
    sent = Message(
        id="7", subject="s", group_id="g", content_type="a/b", body={"list": [1, -1, 2**40], "yes": True, "text": "é"},
        properties={"one": 1, "half": 0.5, "text": "t"},
    )  # fmt: skip
    connection.create_sender("orders").send(sent)
    receiver = connection.create_receiver("orders", credit=1)
    got = take(receiver)
    receiver.accept()
    assert (got.id, got.subject, got.group_id, got.content_type) == ("7", "s", "g", "a/b")
    assert (got.body, got.properties) == (sent.body, sent.properties)
    assert got.annotations[symbol("x-opt-sequence-number")] == 1


def test_large_message_crosses_in_pieces() -> None:
    """Both peers split transfers where the other's frames are small."""
    body = "".join(map(str, range(40_000)))
    pieces: list[str] = []  # of what comes; Proton ends a connection whose frames are larger than it allows
    with AzureServer(max_frame=4096) as azure:
        azure.queue("orders")
        small = BlockingConnection(f"amqp://{azure.host}", UP_TO, allowed_mechs="ANONYMOUS", max_frame_size=4096)
        try:
            assert shown(small, azure, KEY) == 202
            azure.broker.faults.trace = lambda _, __, said: pieces.append(said.kind)
            small.create_sender("orders").send(Message(body=body))
            receiver = small.create_receiver("orders", credit=1)
            assert take(receiver).body == body
            receiver.accept()
        finally:
            small.close()
    assert pieces.count("transfer") > len(body) // 4096


def test_every_outcome_does_what_it_says(azure: AzureServer, connection: BlockingConnection) -> None:
    """Accepted is gone; released comes again at no cost; modified costs a delivery; rejected is dead."""
    azure.queue("orders")
    sender = connection.create_sender("orders")
    for body in ("accepted", "released", "modified", "rejected"):
        sender.send(Message(body=body))
    receiver = connection.create_receiver("orders", credit=4)
    counts: dict[str, list[int]] = {}
    seen: set[str] = set()
    for _ in range(6):  # two of them come twice
        message = take(receiver)
        counts.setdefault(message.body, []).append(message.delivery_count)
        first = message.body not in seen
        seen.add(message.body)
        if message.body == "released" and first:
            receiver.release(delivered=False)
        elif message.body == "modified" and first:
            receiver.fetcher.unsettled[0].local.failed = True
            receiver.settle(Delivery.MODIFIED)
        else:
            receiver.settle(Delivery.REJECTED if message.body == "rejected" else Delivery.ACCEPTED)
    assert counts == {"accepted": [0], "released": [0, 0], "modified": [0, 1], "rejected": [0]}
    connection.create_receiver("orders", credit=0, name="another").close()  # every word before it has been heard
    assert azure.counts("orders") == {"active": 0, "locked": 0, "deferred": 0, "scheduled": 0, "dead": 1}


def test_credit_is_kept(azure: AzureServer, connection: BlockingConnection) -> None:
    """Of five messages three are sent to one that asked for three."""
    azure.queue("orders")
    sender = connection.create_sender("orders")
    for number in range(5):
        sender.send(Message(body=number))
    still = MessagingHandler(prefetch=0, auto_accept=False)  # asks for no more by itself
    connection.create_receiver("orders", credit=3, handler=still)
    connection.create_receiver("orders", credit=0, name="another")  # the credit of the first has been heard
    assert azure.counts("orders")["locked"] == 3


def test_refusals_are_told(azure: AzureServer, connection: BlockingConnection) -> None:
    """A missing entity, a planned rejection, a wrong key: each by the protocol's own means."""
    azure.queue("orders")
    with pytest.raises(LinkDetached, match="amqp:not-found"):
        connection.create_sender("nobody-made-this")
    sender = connection.create_sender("orders")
    azure.plan("publish", "com.microsoft:server-busy", entity="orders")
    with pytest.raises(SendException):
        sender.send(Message(body="x"))
    sender.send(Message(body="y"))
    assert azure.counts("orders")["active"] == 1
    stranger = BlockingConnection(f"amqp://{azure.host}", timeout=UP_TO, allowed_mechs="ANONYMOUS")
    try:
        assert shown(stranger, azure, "d3Jvbmc=") == 401
    finally:
        stranger.close()


class SessionFilter(Filter):
    """Asks for one session."""

    def __init__(self, name: str | None) -> None:
        super().__init__({symbol("com.microsoft:session-filter"): name})


def test_session_is_attached_to_by_its_filter(azure: AzureServer, connection: BlockingConnection) -> None:
    """In order, and nothing of another session."""
    azure.queue("ordered", sessions=True)
    sender = connection.create_sender("ordered")
    for number in range(4):
        sender.send(Message(body=number, group_id=f"s{number % 2}"))
    options: list[LinkOption] = [SessionFilter("s1")]
    receiver = connection.create_receiver("ordered", credit=10, options=options)
    assert [take(receiver).body for _ in range(2)] == [1, 3]


def test_events_are_read_from_a_position(azure: AzureServer, connection: BlockingConnection) -> None:
    """A partition of a hub, by the selector that the service documents."""
    azure.hub("telemetry", partitions=2)
    sender = connection.create_sender("telemetry/Partitions/0")
    for number in range(3):
        sender.send(Message(body=number))
    chosen = Selector("amqp.annotation.x-opt-sequence-number > '0'", name="apache.org:selector-filter:string")
    receiver = connection.create_receiver("telemetry/ConsumerGroups/$Default/Partitions/0", credit=10, options=[chosen])
    assert [take(receiver).body for _ in range(2)] == [1, 2]


def test_connection_is_kept_when_it_is_silent(azure: AzureServer) -> None:
    """A client that wants to hear something twice a second hears it."""
    quiet = BlockingConnection(f"amqp://{azure.host}", timeout=UP_TO, heartbeat=1, allowed_mechs="ANONYMOUS")
    try:
        done = threading.Event()
        threading.Timer(2.5, done.set).start()
        quiet.wait(done.is_set, timeout=UP_TO)
        assert shown(quiet, azure, KEY) == 202
    finally:
        quiet.close()
