"""Messages as SQS carries them: text that XML allows, and ten attributes at most."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final

import attrs

from eventflows.errors import BrokerError, InvalidMessageError, TooLargeError
from eventflows.message import Message

MAX_BYTES: Final = 1_048_576
"""Of a message, and of a batch. Source: Amazon SQS developer guide, message quotas; a queue may be set to less."""
MAX_ATTRIBUTES: Final = 10
MAX_DELAY: Final = 900

ENCODING: Final = "ef-encoding"
KEY: Final = "ef-key"
ID: Final = "ef-id"
TYPE: Final = "ef-content-type"
PACKED: Final = "ef-packed"
_OURS: Final = frozenset((ENCODING, KEY, ID, TYPE, PACKED))
_EMPTY_BODY: Final = "(empty)"

_FORBIDDEN: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Source: Amazon SQS API reference, SendMessage, MessageBody: what XML 1.0 has not."""
_NAME: Final = re.compile(r"(?!(?:aws|amazon)\.)(?!.*\.\.)[A-Za-z0-9_-](?:[A-Za-z0-9_.-]{0,254}[A-Za-z0-9_-])?", re.I)
"""Source: Amazon SQS developer guide, message attribute components."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
"""Group and deduplication ids. Source: Amazon SQS API reference, SendMessage."""

Entry = dict[str, Any]
"""One entry of SendMessageBatch, without its Id."""


@attrs.frozen
class Written:
    """A message as it is sent."""

    entry: Entry
    size: int
    """Bytes, as the service counts them."""
    group: str | None
    """Of a FIFO queue."""


def write(message: Message, *, fifo: bool, limit: int = MAX_BYTES) -> Written | BrokerError:
    """Write a message; gives its own fault when it cannot be sent."""
    fault = _fault(message, fifo)
    if fault is not None:
        return fault
    try:
        body, encoding = _body(message.body or b"")
        attributes = _attributes(message, encoding, fifo=fifo)
    except (AttributeError, TypeError, UnicodeEncodeError):
        return InvalidMessageError(
            "headers, key, id and content type are text that UTF-8 can write; one of them is not."
        )
    entry: Entry = {"MessageBody": body}
    if attributes:
        entry["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
    if fifo:
        entry["MessageGroupId"] = token(message.key or "")
        entry["MessageDeduplicationId"] = uuid.uuid4().hex if message.id is None else token(message.id)
    if message.options.get("delay"):
        entry["DelaySeconds"] = message.options["delay"]
    size = len(body if body.isascii() else body.encode()) + sum(
        len(name) + len("String") + len(value.encode()) for name, value in attributes.items()
    )
    if size > limit:
        return TooLargeError(
            f"a message of {size} bytes as SQS counts them (bodies that are not text grow by a third); "
            f"the queue takes {limit}."
        )
    return Written(entry, size, entry.get("MessageGroupId"))


def _fault(message: Message, fifo: bool) -> BrokerError | None:
    if not isinstance(message.body, bytes):
        if message.body is None:
            return InvalidMessageError("SQS takes no tombstone (a body of None); publish b'' instead.")
        return InvalidMessageError(f"a body is bytes; this one is {type(message.body).__name__}.")
    if fifo and not message.key:
        return InvalidMessageError("a FIFO queue needs a key for every message: it is the message group.")
    for name, value in message.options.items():
        if name != "delay":
            return InvalidMessageError(f"SQS has no message option {name!r}; it has 'delay'.")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DELAY:
            return InvalidMessageError(f"delay={value!r}: a delay is 0 to {MAX_DELAY} whole seconds.")
        if fifo:
            return InvalidMessageError("a FIFO queue delays all its messages or none: it has no option 'delay'.")
    return None


def _body(body: bytes) -> tuple[str, str | None]:
    if not body:
        return _EMPTY_BODY, "empty"
    try:
        text = body.decode()
        if not _FORBIDDEN.search(text):
            return text, None
    except UnicodeDecodeError:
        pass
    return base64.b64encode(body).decode(), "base64"


def _attributes(message: Message, encoding: str | None, *, fifo: bool) -> dict[str, str]:
    """Give names and values: ours first, then headers; what does not fit goes into one, as JSON."""
    key = None if fifo and message.key is not None and _TOKEN.fullmatch(message.key) else message.key
    own = {ENCODING: encoding, KEY: key, ID: message.id, TYPE: message.content_type}
    given = {name: value for name, value in own.items() if value is not None}
    native = {name: value for name, value in given.items() if _plain(value)}
    packed: dict[str, Any] = {name: value for name, value in given.items() if name not in native}
    headers = {}
    fitting = {
        name: value
        for name, value in message.headers.items()
        if _NAME.fullmatch(name) and name not in _OURS and _plain(value)
    }
    if len(native) + len(fitting) > MAX_ATTRIBUTES or len(fitting) < len(message.headers) or packed:
        room = MAX_ATTRIBUTES - len(native) - 1
        fitting = dict(list(fitting.items())[:room])
        headers = {name: value for name, value in message.headers.items() if name not in fitting}
    if headers:
        packed["headers"] = headers
        for text in [*headers, *headers.values()]:
            text.encode()  # a lone surrogate is nobody's text; JSON would let it through
    if packed:
        native[PACKED] = json.dumps(packed, separators=(",", ":"))
    return {**native, **fitting}


def _plain(value: str) -> bool:
    value.encode()
    return bool(value) and not _FORBIDDEN.search(value)


def token(text: str) -> str:
    """Give a text as a group or deduplication id: itself where that is allowed, else a digest."""
    return text if _TOKEN.fullmatch(text) else "ef-" + hashlib.blake2b(text.encode(), digest_size=24).hexdigest()


def read_body(native: Mapping[str, Any]) -> bytes:
    """Read the body of a received message."""
    body = str(native["Body"]).encode("utf-8", "surrogatepass")
    encoding = _value(native, ENCODING) if "MessageAttributes" in native else None
    if encoding is None:
        return body
    if encoding == "empty" and body == _EMPTY_BODY.encode():
        return b""
    if encoding == "base64":
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error:
            return body  # a stranger's, who uses our word for something else
    return body


def read_key(native: Mapping[str, Any], *, fifo: bool) -> str | None:
    """Read the key of a received message."""
    key = _value(native, KEY)
    if key is None:
        key = _packed(native).get(KEY)
    if key is None and fifo:
        key = native.get("Attributes", {}).get("MessageGroupId")
    return key


def read_type(native: Mapping[str, Any]) -> str | None:
    """Read the content type of a received message."""
    found = _value(native, TYPE)
    return _packed(native).get(TYPE) if found is None else found


def read(native: Mapping[str, Any], body: bytes, *, fifo: bool) -> Message:
    """Read a received message."""
    packed = _packed(native)
    headers = {
        name: _text(value)
        for name, value in native.get("MessageAttributes", {}).items()
        if name not in _OURS or (name == PACKED and not packed)
    }
    headers.update(packed.get("headers", {}))
    id = _value(native, ID)
    return Message(
        body,
        headers=headers,
        key=read_key(native, fifo=fifo),
        id=packed.get(ID, native["MessageId"]) if id is None else id,
        content_type=read_type(native),
    )


def _value(native: Mapping[str, Any], name: str) -> str | None:
    attribute = native.get("MessageAttributes", {}).get(name)
    return None if attribute is None else _text(attribute)


def _text(attribute: Mapping[str, Any]) -> str:
    if "StringValue" in attribute:
        return str(attribute["StringValue"])
    return base64.b64encode(bytes(attribute.get("BinaryValue", b""))).decode()


def _packed(native: Mapping[str, Any]) -> dict[str, Any]:
    """Read what was packed; a stranger's attribute of that name is not, and stays a header."""
    text = _value(native, PACKED)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict) or not all(
        isinstance(value, str) or (name == "headers" and isinstance(value, dict)) for name, value in found.items()
    ):
        return {}
    headers = found.get("headers", {})
    return found if isinstance(headers, dict) and all(isinstance(v, str) for v in headers.values()) else {}
