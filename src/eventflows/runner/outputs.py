"""Results of `apply` as messages: their keys, their ids, and dead-letter copies."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import attrs

from eventflows.codec import encode, to_messages
from eventflows.errors import EncodeError
from eventflows.message import Delivery, Message, Messages
from eventflows.runner.held import Held
from eventflows.runner.outcome import detail_of
from eventflows.runner.workers import Encode

Key = str | Callable[[Any], str | None] | None

SMALL_HEADERS: Final = ("ef-reason", "ef-source", "ef-position", "ef-flow")
"""What a dead-letter copy keeps when it is too large with everything."""


def id_prefix(*parts: str | None) -> str:
    """Digest what makes a flow's outputs its own: source, flow, destination."""
    return hashlib.blake2b("\0".join(part or "" for part in parts).encode(), digest_size=12).hexdigest()


def encoder(*, key: Key, headers: Mapping[str, str] | None, prefix: str) -> Encode:
    """Make the function that turns a result into messages with keys and deterministic ids.

    Args:
        key: A key for all, or what gives one for a result; None: the input's key.
        headers: For all; None: none.
        prefix: Begins every id; the same for the same flow, source and destination.
    """
    fixed = dict(headers or {})

    def to_outputs(result: object, held: Held, index: int) -> list[Message]:
        if result is None:
            return []
        chunk = held.chunk
        keys = chunk.keys
        own = None if keys is None else keys[index]
        stem = f"{prefix}-{chunk.position(index)}-"
        kind = type(result)
        if kind is not Messages and kind is not Message:
            body, content_type = encode(result)
            chosen = own if key is None else key_of(key, result)
            return [Message(body, headers=fixed, key=chosen, id=stem + "0", content_type=content_type)]
        values = cast("Messages", result).values if kind is Messages else (result,)
        made: list[Message] = []
        for value in values:
            chosen = own if key is None else key_of(key, value)
            for message in to_messages(value, key=chosen, headers=fixed):
                made.append(message if message.id else attrs.evolve(message, id=f"{stem}{len(made)}"))
        return made

    return to_outputs


def key_of(key: Key, result: object) -> str | None:
    """Give the key of one result.

    Raises:
        EncodeError: The function gave something else than text or None.
    """
    chosen = key(result) if callable(key) else key
    if chosen is not None and not isinstance(chosen, str):
        raise EncodeError(f"key= gave a {type(chosen).__name__}, expected str or None")
    return chosen


def dead_letter_copy(delivery: Delivery, *, flow: str, reason: str, attempts: int, error: BaseException) -> Message:
    """Copy a message for the dead letter: body, key and headers untouched, why beside them."""
    message = delivery.message
    added = {
        "ef-reason": reason,
        "ef-error-type": type(error).__name__,
        "ef-error": detail_of(error),
        "ef-attempts": str(attempts),
        "ef-source": delivery.source,
        "ef-position": delivery.position,
        "ef-flow": flow,
        "ef-failed-at": datetime.datetime.now(datetime.UTC).isoformat(),
    }
    prefix = id_prefix("dead-letter", delivery.source, flow)
    return Message(
        message.body,
        headers={**message.headers, **added},
        key=message.key,
        id=f"{prefix}-{delivery.position}",
        content_type=message.content_type,
    )


def cut_down(copy: Message) -> Message | None:
    """Make a dead-letter copy smaller: first without the error's text, then with few headers; None: it is smallest."""
    if "ef-error" in copy.headers:
        kept = {name: value for name, value in copy.headers.items() if name != "ef-error"}
    else:
        kept = {name: copy.headers[name] for name in SMALL_HEADERS if name in copy.headers}
        if len(kept) == len(copy.headers):
            return None
    return attrs.evolve(copy, headers=kept)
