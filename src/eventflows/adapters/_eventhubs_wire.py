"""Events as Event Hubs has them, and back."""

from __future__ import annotations

from typing import Any, Final

from eventflows.adapters._eventhubs_events import Event, made
from eventflows.errors import InvalidMessageError
from eventflows.message import Message

OPTIONS: Final = ("partition",)
"""Of a message: `partition`, the id of the partition to write to, in place of a key."""
NUMBER: Final = b"x-opt-sequence-number"
KEY: Final = b"x-opt-partition-key"
"""What the service notes on an event."""


def fault_of(message: Message) -> str | None:
    """Say what is wrong with a message; None: nothing."""
    if not isinstance(message.body, bytes):
        return f"a body here is bytes; this one is {type(message.body).__name__}."
    if message.id is message.key is message.content_type is None and not message.headers and not message.options:
        return None
    unknown = sorted(set(message.options) - set(OPTIONS))
    if unknown:
        return f"eventhubs:// has no message option {unknown[0]!r}; it has {', '.join(OPTIONS)}."
    if "partition" in message.options and message.key is not None:
        return "a message has a key or a partition, not both."
    texts = [*message.headers, *message.headers.values(), message.content_type or "", message.id or ""]
    try:
        _ = [text.encode("utf-8") for text in (*texts, message.key or "")]
    except (AttributeError, UnicodeEncodeError):
        return "headers, key, id and content type are text that UTF-8 can write; one of them is not."
    return None


def outgoing(message: Message) -> Event:
    """Write a message for the client.

    Raises:
        InvalidMessageError: It cannot be written; the text says what.
    """
    from azure.eventhub import EventData

    fault = fault_of(message)
    if fault is not None:
        raise InvalidMessageError(fault)
    event: Event = EventData(message.body)
    if message.headers:
        event.properties.update(message.headers)
    if message.content_type is not None:
        event.content_type = message.content_type
    if message.id is not None:  # one that is made up here would cost three times the event
        event.message_id = message.id
    return event


def text_of(value: object) -> str | None:
    """Give text; the client gives some of it as bytes."""
    if value is None:
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def body_of(event: Event) -> bytes:
    """Give the bytes of a body; one that was sent as a value or a sequence is written as text."""
    data = getattr(event, "data", None)
    if data:
        return data[0] if len(data) == 1 else b"".join(data)
    raw = made(event).raw_amqp_message
    kind, body = raw.body_type, raw.body
    if kind == "data":
        return b"".join(body)
    value = body if kind == "value" else list(body)
    return value if isinstance(value, bytes) else str(text_of(value)).encode("utf-8")


def content_type_of(properties: Any) -> str | None:  # noqa: ANN401 - of an AMQP message
    """Give the content type; the event's own property of that name looks at every other one first."""
    return None if properties is None else text_of(properties.content_type)


def incoming(event: Event, body: bytes) -> Message:
    """Read an `EventData`."""
    return Message(
        body,
        headers={str(text_of(name)): str(text_of(value)) for name, value in (event.properties or {}).items()},
        key=text_of(event.partition_key),
        id=text_of(event.message_id),
        content_type=text_of(event.content_type),
    )
