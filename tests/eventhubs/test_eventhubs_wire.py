"""Events as the client's AMQP layer has read them, and the `EventData` that is made only when somebody looks."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.settings import settings
from azure.eventhub import EventData
from azure.eventhub._pyamqp.message import Message as Native
from azure.eventhub._pyamqp.message import Properties
from azure.eventhub.aio import EventHubConsumerClient

from eventflows.adapters._eventhubs_claims import Claim, EventHubsChunk
from eventflows.adapters._eventhubs_events import leave_unmade
from eventflows.adapters._eventhubs_wire import body_of

CONNECTION = "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=k;SharedAccessKey=s;UseDevelopmentEmulator=true"
KEY = {
    "fully_qualified_namespace": "shop.servicebus.windows.net",
    "eventhub_name": "telemetry",
    "consumer_group": "g",
    "partition_id": "0",
}


def read(number: int, **sections: Any) -> Native:
    """Make an event as the AMQP layer reads it."""
    notes = {
        b"x-opt-sequence-number": number,
        b"x-opt-offset": str(number * 100).encode(),
        b"x-opt-enqueued-time": 1_700_000_000_000 + number,
    }
    return Native(message_annotations=notes | sections.pop("notes", {}), **sections)


def reader() -> Any:
    """Have the client make a reader of a partition; nothing is connected."""

    async def ignore(events: object) -> None:
        pass

    client = EventHubConsumerClient.from_connection_string(CONNECTION, "g", eventhub_name="telemetry")
    leave_unmade(client)
    return client._create_consumer("g", "0", "-1", ignore)


def handed_over(native: Native) -> Any:
    """Let a reader hand over an event."""
    one = reader()
    one._message_buffer.append(native)
    return one._next_message_in_buffer()


class Span:
    """What traces the client, as far as it asks for it here."""


def test_event_is_handed_over_as_it_was_read() -> None:
    """The client makes nothing of it."""
    native = read(7, data=[b"x"])
    assert handed_over(native) is native


def test_event_is_handed_over_the_clients_own_way_when_it_is_traced() -> None:
    """Who traces looks into each event."""
    settings.tracing_implementation = Span
    try:
        assert isinstance(handed_over(read(7, data=[b"x"])), EventData)
    finally:
        settings.tracing_implementation.unset_value()


def test_event_is_handed_over_the_clients_own_way_when_its_version_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done in its place is known to fit the versions that were looked at."""
    monkeypatch.setattr("azure.eventhub.__version__", "6.0.0")
    assert isinstance(handed_over(read(7, data=[b"x"])), EventData)


def test_link_that_is_opened_again_begins_behind_the_last_event() -> None:
    """The client asks the last event for its offset."""
    one = reader()
    for number in (7, 8):
        one._message_buffer.append(read(number, data=[b"x"]))
        one._next_message_in_buffer()
    assert one._last_received_event.offset == EventData._from_message(read(8)).offset == "800"


@pytest.mark.parametrize(
    ("sections", "body"),
    [
        ({"data": [b"one"]}, b"one"),
        ({"data": [b"one", b"two"]}, b"onetwo"),
        ({"data": [b""]}, b""),
        ({"value": b"bytes"}, b"bytes"),
        ({"value": "text"}, b"text"),
        ({"sequence": [[1, 2]]}, b"[[1, 2]]"),
    ],
)
def test_body_is_the_same_before_an_event_is_made_and_after(sections: dict[str, Any], body: bytes) -> None:
    """Whatever sections it came in."""
    native = read(7, **sections)
    assert (body_of(native), body_of(EventData._from_message(native))) == (body, body)


def test_delivery_is_the_same_before_an_event_is_made_and_after() -> None:
    """Message, position and time are those of the client's own object."""
    natives = [
        read(7, data=[b"bare"]),
        read(
            8,
            data=[b"full"],
            notes={b"x-opt-partition-key": b"key"},
            properties=Properties(message_id=b"id", content_type=b"application/json"),
            application_properties={b"name": b"value"},
        ),
    ]

    def deliveries(events: list[Any]) -> list[tuple[object, ...]]:
        chunk = EventHubsChunk(
            [(event, body_of(event)) for event in events], Claim("eventhubs://shop", KEY, None, None)
        )
        columns = (chunk.keys, chunk.content_types, chunk.numbers)
        return [(one.message, one.position, one.enqueued_at, type(one.native), columns) for one in chunk]

    before = deliveries(natives)
    assert before == deliveries([EventData._from_message(one) for one in natives])
    assert before[1][0].headers == {"name": "value"}  # type: ignore[attr-defined]
