"""Results of `apply` as messages: their keys, their ids, and dead-letter copies."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from eventflows.codec import to_messages
from eventflows.errors import EncodeError
from eventflows.message import Batch, Delivery, Message, Messages
from eventflows.runner.held import Held
from eventflows.runner.outcome import detail_of
from eventflows.runner.runs import Parcel

Key = str | Callable[[Any], str | None] | None

SMALL_HEADERS: Final = ("ef-reason", "ef-source", "ef-position", "ef-flow")
"""What a dead-letter copy keeps when it is too large with everything."""
TRACE_HEADERS: Final = ("traceparent", "tracestate")
"""W3C trace context, carried from an input to its outputs."""


def id_prefix(*parts: str | None) -> str:
    """Digest what makes a flow's outputs its own: source, flow, destination."""
    return hashlib.blake2b("\0".join(part or "" for part in parts).encode(), digest_size=12).hexdigest()


class Packer:
    """Makes messages of results, with keys and deterministic ids.

    Args:
        key: A key for all, or what gives one for a result; None: the input's key.
        headers: For all; None: none.
        prefix: Begins every id; the same for the same flow, source and destination.
    """

    def __init__(self, *, key: Key, headers: Mapping[str, str] | None, prefix: str) -> None:
        self._key = key
        self._headers: Mapping[str, str] = dict(headers or {})
        self._prefix = prefix
        self.computes_keys = callable(key)

    def key_of(self, result: object) -> str | None:
        """Give the key of one result.

        Raises:
            EncodeError: The function gave something else than text or None.
        """
        return key_of(self._key, result)

    def row(
        self,
        held: Held,
        start: int,
        bodies: list[bytes | None],
        content_types: list[str | None],
        keys: list[str | None] | None,
    ) -> Parcel:
        """Make a parcel of one output for each of several inputs in a row."""
        chunk = held.chunk
        stop = start + len(bodies)
        if keys is None:
            if isinstance(self._key, str):
                keys = [self._key] * len(bodies)
            elif chunk.keys is not None:
                keys = list(chunk.keys[start:stop])
        headers: list[Mapping[str, str]] | None = None
        if chunk.headers is not None:
            headers = [self._traced(own) for own in chunk.headers[start:stop]]
        elif self._headers:
            headers = [self._headers] * len(bodies)
        prefix = self._prefix
        ids = [f"{prefix}-{position}-0" for position in chunk.positions_of(start, stop)]
        batch = Batch(bodies, headers=headers, keys=keys, ids=ids, content_types=content_types)
        return Parcel(held, start, stop, batch)

    def several(self, result: Message | Messages, held: Held, index: int) -> list[Message]:
        """Make the messages of a result that is a `Message`, or several."""
        own = None if held.chunk.keys is None else held.chunk.keys[index]
        return self.named(self.unnamed(result, own), held, index)

    def unnamed(self, result: Message | Messages, own: str | None) -> list[Message]:
        """Make them without ids; what is given as `Message` keeps its key and headers.

        Args:
            result: What `apply` returned.
            own: The input's key.
        """
        values = result.values if isinstance(result, Messages) else (result,)
        made: list[Message] = []
        for value in values:
            key = own if self._key is None else key_of(self._key, value)
            made.extend(to_messages(value, key=key, headers=self._headers))
        return made

    def named(self, messages: list[Message], held: Held, index: int) -> list[Message]:
        """Give ids to those that have none, and the trace context of their input."""
        stem = f"{self._prefix}-{held.chunk.position(index)}-"
        named = [m if m.id else attrs.evolve(m, id=f"{stem}{number}") for number, m in enumerate(messages)]
        trace = self._trace(None if held.chunk.headers is None else held.chunk.headers[index])
        if not trace:
            return named
        return [m if "traceparent" in m.headers else attrs.evolve(m, headers={**trace, **m.headers}) for m in named]

    def _traced(self, headers: Mapping[str, str] | None) -> Mapping[str, str]:
        trace = self._trace(headers)
        return {**trace, **self._headers} if trace else self._headers

    @staticmethod
    def _trace(headers: Mapping[str, str] | None) -> dict[str, str]:
        if not headers or "traceparent" not in headers:
            return {}
        return {name: headers[name] for name in TRACE_HEADERS if name in headers}


def key_of(key: Key, result: object) -> str | None:
    """Give the key of one result.

    Raises:
        EncodeError: The function gave something else than text or None.
    """
    chosen = key(result) if callable(key) else key
    if chosen is not None and not isinstance(chosen, str):
        raise EncodeError(f"key= gave a {type(chosen).__name__}, expected str or None")
    return chosen


def type_of(error: BaseException) -> str:
    """Name the type of an error: its own `error_type`, as hosted algorithms give it, else its class."""
    try:
        own = getattr(error, "error_type", None)
    except Exception:  # noqa: BLE001 - somebody's property
        own = None
    return own[:200] if isinstance(own, str) and own else type(error).__name__


def dead_letter_copy(delivery: Delivery, *, flow: str, reason: str, attempts: int, error: BaseException) -> Message:
    """Copy a message for the dead letter: body, key and headers untouched, why beside them."""
    message = delivery.message
    added = dead_letter_headers(delivery, flow=flow, reason=reason, attempts=attempts, error=error)
    prefix = id_prefix("dead-letter", delivery.source, flow)
    return Message(
        message.body,
        headers={**message.headers, **added},
        key=message.key,
        id=f"{prefix}-{delivery.position}",
        content_type=message.content_type,
    )


def dead_letter_headers(
    delivery: Delivery, *, flow: str, reason: str, attempts: int, error: BaseException
) -> dict[str, str]:
    """Say why a message is dead, what was tried, and where it was."""
    return {
        "ef-reason": reason,
        "ef-error-type": type_of(error),
        "ef-error": detail_of(error),
        "ef-attempts": str(attempts),
        "ef-source": delivery.source,
        "ef-position": delivery.position,
        "ef-flow": flow,
        "ef-failed-at": datetime.datetime.now(datetime.UTC).isoformat(),
    }


def cut_down(copy: Message) -> Message | None:
    """Make a dead-letter copy smaller: first without the error's text, then with few headers; None: it is smallest."""
    if "ef-error" in copy.headers:
        kept = {name: value for name, value in copy.headers.items() if name != "ef-error"}
    else:
        kept = {name: copy.headers[name] for name in SMALL_HEADERS if name in copy.headers}
        if len(kept) == len(copy.headers):
            return None
    return attrs.evolve(copy, headers=kept)
