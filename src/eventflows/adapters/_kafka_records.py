"""Messages as Kafka's clients take them: checked, their text written as bytes."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import attrs

from eventflows.errors import BrokerError, InvalidMessageError, TooLargeError
from eventflows.message import Batch

MAX_BYTES: Final = 1_000_000
"""Body, key and headers; a topic takes batches of 1,048,588 bytes by default (its config `max.message.bytes`)."""
ID_HEADER: Final = "ef-id"
TYPE_HEADER: Final = "content-type"
OPTIONS: Final = {"partition", "timestamp"}
_TEXT: Final = frozenset({str})
_BYTES: Final = frozenset({bytes})
_OF_HEADERS: Final = 37
"""What the names of both headers, and saying how long they are, take at most."""


@attrs.frozen
class Outgoing:
    """Messages of which none needs a look, in columns; a column is None when no message has anything in it."""

    values: Sequence[bytes]
    keys: Sequence[bytes | None] | None
    ids: Sequence[str] | None
    content_types: Sequence[str] | None

    def headers(self) -> Iterator[list[tuple[str, str]] | None]:
        """Give the headers of one message after another, in the same list: it is written anew for the next one.

        librdkafka's module reads a list of pairs in two thirds of the time of a dict.
        """
        ids = None if self.ids is None else zip(repeat(ID_HEADER), self.ids, strict=False)
        types = None if self.content_types is None else zip(repeat(TYPE_HEADER), self.content_types, strict=False)
        one: list[tuple[str, str]] = [("", "")]
        if ids is not None and types is not None:
            one *= 2
            for one[0], one[1] in zip(ids, types, strict=True):
                yield one
        elif ids is not None or types is not None:
            for one[0] in ids or types or ():
                yield one
        else:
            yield from repeat(None, len(self.values))

    def records(self) -> list[dict[str, Any]]:
        """Give them one by one."""
        keys = repeat(None, len(self.values)) if self.keys is None else self.keys
        return [
            {"value": value, "key": key, "headers": [(name, text.encode()) for name, text in headers or ()]}
            for value, key, headers in zip(self.values, keys, self.headers(), strict=True)
        ]


def columns_of(batch: Batch) -> Outgoing | None:
    """Give a batch in columns; None when any of its messages needs a look: it has headers of its own, or is odd."""
    if any(batch.headers) or any(batch.options) or set(map(type, batch.bodies)) != _BYTES:
        return None
    ids, content_types = (column if _any(column) else None for column in (batch.ids, batch.content_types))
    columns: list[Any] = [column for column in (ids, content_types) if column is not None]
    for texts in columns:
        if set(map(type, texts)) != _TEXT or not all(map(str.isascii, texts)):
            return None
    keys: list[bytes | None] | None = None
    if _any(batch.keys):
        try:
            keys = [None if key is None else _bytes(key) for key in batch.keys]
        except (UnicodeEncodeError, AttributeError):
            return None
        columns.append(list(filter(None, keys)))
    columns.append(batch.bodies)
    if sum(max(map(len, column), default=0) for column in columns) + _OF_HEADERS > MAX_BYTES:
        return None
    return Outgoing(batch.bodies, keys, ids, content_types)  # type: ignore[arg-type]


def _any(column: Sequence[str | None]) -> bool:
    return column.count(None) < len(column)


def records_of(batch: Batch) -> Iterator[dict[str, Any] | BrokerError]:
    """Give what the client takes, or the message's own fault, of each; one after another, so that few are there."""
    columns = (batch.bodies, batch.keys, batch.headers, batch.ids, batch.content_types, batch.options)
    return map(_record, *columns)


def _record(*message: Any) -> dict[str, Any] | BrokerError:  # noqa: ANN401 - nobody has looked at them yet
    try:
        return _checked(*message)
    except BrokerError as error:
        return error
    except (UnicodeEncodeError, AttributeError, TypeError):
        return InvalidMessageError("headers, key, id and content type are text; one of them is not.")


def _checked(
    body: bytes | None,
    key: str | None,
    headers: Mapping[str, str],
    id: str | None,
    content_type: str | None,
    options: Mapping[str, object],
) -> dict[str, Any]:
    if not (body is None or isinstance(body, bytes)):
        raise InvalidMessageError(f"a body is bytes; this one is {type(body).__name__}.")
    if body is None and key is None:
        raise InvalidMessageError("a tombstone (a body of None) needs a key.")
    found = [(name, _bytes(value)) for name, value in headers.items()] if headers else []
    size = sum([len(name.encode("utf-8")) + len(value) + 10 for name, value in found]) if headers else 0
    if id is not None:
        found.append((ID_HEADER, _bytes(id)))
        size += len(found[-1][1]) + 15
    if content_type is not None:
        found.append((TYPE_HEADER, _bytes(content_type)))
        size += len(found[-1][1]) + 22
    record: dict[str, Any] = {"value": body, "key": None if key is None else _bytes(key), "headers": found}
    size += len(body or b"") + len(record["key"] or b"")
    if size > MAX_BYTES:
        raise TooLargeError(f"a message of {size} bytes, body, key and headers together; Kafka takes {MAX_BYTES}.")
    if options:
        record |= _options(options)
    return record


def _options(options: Mapping[str, object]) -> dict[str, Any]:
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise InvalidMessageError(f"kafka has no message option {unknown[0]!r}; it has partition and timestamp.")
    found: dict[str, Any] = {}
    if "partition" in options:
        found["partition"] = options["partition"]
        if not isinstance(found["partition"], int):
            raise InvalidMessageError("partition is a whole number.")
    if "timestamp" in options:
        when = options["timestamp"]
        if not isinstance(when, datetime.datetime) or when.tzinfo is None:
            raise InvalidMessageError("timestamp is a datetime with a time zone.")
        found["timestamp_ms"] = int(when.timestamp() * 1000)
    return found


def _bytes(text: str) -> bytes:
    # What was no UTF-8 when it was received goes back to the same bytes.
    return text.encode("utf-8", "surrogateescape")
