"""Messages as Service Bus has them, and back."""

from __future__ import annotations

import datetime
from typing import Any, Final

from eventflows.adapters._servicebus_types import Native, Outgoing
from eventflows.errors import InvalidMessageError
from eventflows.message import Message

LONGEST_ID: Final = 128
"""Characters of a message id and of a session id (Service Bus quotas)."""
OPTIONS: Final = ("correlation_id", "delay", "reply_to", "scheduled_at", "subject", "time_to_live", "to")
"""Of a message: `delay` and `time_to_live` in seconds, `scheduled_at` a datetime with a zone, the others text."""
REASON: Final = "DeadLetterReason"
DETAIL: Final = "DeadLetterErrorDescription"


def outgoing(message: Message) -> Outgoing:
    """Write a message for the client.

    Raises:
        InvalidMessageError: It cannot be written; the text says what.
    """
    from azure.servicebus import ServiceBusMessage
    from azure.servicebus.amqp import AmqpAnnotatedMessage

    fault = _fault(message)
    if fault is not None:
        raise InvalidMessageError(fault)
    if not message.options:  # the client takes this, too, and it costs a third of its own class
        properties = {"message_id": message.id, "group_id": message.key, "content_type": message.content_type}
        headers = dict(message.headers) or None
        return AmqpAnnotatedMessage(data_body=message.body, properties=properties, application_properties=headers)
    fields: dict[str, Any] = {}
    for name, value in message.options.items():
        name, value = _option(name, value)
        fields[name] = value
    if message.id is not None:
        fields["message_id"] = message.id
    return ServiceBusMessage(
        message.body,
        session_id=message.key,
        content_type=message.content_type,
        application_properties=dict(message.headers) or None,  # type: ignore[arg-type]
        **fields,
    )


def _fault(message: Message) -> str | None:
    """Say what is wrong with a message; None: nothing."""
    if not isinstance(message.body, bytes):
        return f"a body here is bytes; this one is {type(message.body).__name__}."
    plain = message.content_type is None or (isinstance(message.content_type, str) and message.content_type.isascii())
    if plain and message.key is message.id is None and not message.headers and not message.options:
        return None
    unknown = sorted(set(message.options) - set(OPTIONS))
    if unknown:
        return f"servicebus:// has no message option {unknown[0]!r}; it has {', '.join(OPTIONS)}."
    for what, text in (("id", message.id), ("key", message.key)):
        if text is not None and not (isinstance(text, str) and 0 < len(text) <= LONGEST_ID):
            return f"the {what} of a message here is text of 1 to {LONGEST_ID} characters."
    texts = [*message.headers, *message.headers.values(), message.content_type or ""]
    try:
        _ = [text.encode("utf-8") for text in (*texts, message.key or "", message.id or "")]
    except (AttributeError, UnicodeEncodeError):
        return "headers, key, id and content type are text that UTF-8 can write; one of them is not."
    return None


def _option(name: str, value: object) -> tuple[str, Any]:
    if name in ("delay", "time_to_live"):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise InvalidMessageError(f"the message option {name!r} is a number of seconds, 0 or more.")
        span = datetime.timedelta(seconds=value)
        if name == "time_to_live":
            return name, span
        return "scheduled_enqueue_time_utc", datetime.datetime.now(datetime.UTC) + span
    if name == "scheduled_at":
        if not isinstance(value, datetime.datetime) or value.tzinfo is None:
            raise InvalidMessageError("the message option 'scheduled_at' is a datetime with a time zone.")
        return "scheduled_enqueue_time_utc", value.astimezone(datetime.UTC)
    if not isinstance(value, str):
        raise InvalidMessageError(f"the message option {name!r} is text.")
    return name, value


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def body_of(native: Native) -> bytes:
    """Give the bytes of a body; one that was sent as a value or a sequence is written as text.

    Messages of other clients may have such bodies; ours are always data.
    """
    if native.body_type.value == "data":
        return b"".join(bytes(part) for part in native.body)
    value = native.body if native.body_type.value == "value" else list(native.body)
    return value if isinstance(value, bytes) else _text(value).encode("utf-8")


def incoming(native: Native, body: bytes) -> Message:
    """Read a message from the client."""
    headers = {_text(name): _text(value) for name, value in (native.application_properties or {}).items()}
    if REASON in headers:
        headers.setdefault("ef-reason", headers[REASON])
    if DETAIL in headers:
        headers.setdefault("ef-error", headers[DETAIL])
    return Message(
        body,
        headers=headers,
        key=key_of(native),
        id=None if native.message_id is None else _text(native.message_id),
        content_type=None if native.content_type is None else _text(native.content_type),
    )


def key_of(native: Native) -> str | None:
    """Give the key: the session id."""
    return None if native.session_id is None else _text(native.session_id)
