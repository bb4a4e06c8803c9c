"""Bytes to values, by the annotation of `apply`'s input, and values to bytes.

What JSON cannot say exactly is refused by its path, never changed in silence: NaN and infinities, lone surrogates,
bytes inside a document. Integers of any size survive. Of equal keys in one object the last one counts, as in Python's
own reader. A `Decimal`, `UUID`, date or time is written as text; a `datetime` without a zone is written without one.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import json
import math
import os
import re
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
import orjson

from eventflows.errors import ConfigError, DecodeError, EncodeError
from eventflows.message import Message, Messages

BINARY: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

DEEPEST: Final = 250
"""Levels of nesting that are written; orjson's own limit is 254."""

SMALL: Final = 480
"""Bytes below which Python packs objects tightly."""

_DIGITS: Final = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19
_NAN: Final = "cannot be written as JSON; leave it out, or use None"


@attrs.frozen
class Decoder:
    """Makes values of bodies."""

    plain: Callable[[bytes | None], object]
    """For a body whose message says no content type."""
    by_type: Callable[[bytes | None, str | None], object]
    """For any body, with its content type."""


def decoder(annotation: object) -> Decoder:
    """Make the decoder of an input.

    Args:
        annotation: Of `apply`'s input; `inspect.Parameter.empty`, `Any` or `object`: JSON, unless the content type
            says text or binary.

    Raises:
        ConfigError: Nothing can be decoded into this type; the text says what can.
    """
    optional, inner = _optional(annotation)
    if inner in (inspect.Parameter.empty, Any, object):
        return Decoder(_load, _by_content_type)
    if inner is bytes:
        plain: Callable[[bytes | None], object] = _identity if optional else _bytes
    elif inner is str:
        plain = _or_none(_text) if optional else _text
    else:
        plain = _structurer(annotation)
        plain = _or_none(plain) if optional else plain
    return Decoder(plain, lambda body, _: plain(body))


def _optional(annotation: object) -> tuple[bool, object]:
    arguments = typing.get_args(annotation)
    if type(None) in arguments:
        rest = [argument for argument in arguments if argument is not type(None)]
        return True, rest[0] if len(rest) == 1 else annotation
    return False, annotation


def _or_none(plain: Callable[[bytes | None], object]) -> Callable[[bytes | None], object]:
    return lambda body: None if body is None else plain(body)


def _identity(body: bytes | None) -> bytes | None:
    return body


def _bytes(body: bytes | None) -> bytes:
    if body is None:
        raise DecodeError("a tombstone has no body; annotate the input as bytes | None to receive it")
    return body


def _text(body: bytes | None) -> str:
    try:
        return _bytes(body).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"not UTF-8 at byte {error.start}; annotate the input as bytes to receive it") from None


def _load(body: bytes | None) -> object:
    if body is None:
        return None
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise DecodeError(_json_problem(body, error)) from None
    if _LONG_NUMBER in body.translate(_DIGITS):
        return _load_exactly(body)
    return value


def _load_exactly(body: bytes) -> object:
    # orjson has accepted it, so it is strict JSON; it reads integers beyond 64 bits as floats, the standard library
    # does not.
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise DecodeError("a number has more digits than can be read") from None


def _json_problem(body: bytes, error: orjson.JSONDecodeError) -> str:
    if not body.strip():
        return "an empty body is not JSON"
    if "recursion" in error.msg.lower():
        return "JSON nested too deeply"
    return f"not JSON ({error.msg.partition(':')[0]}, line {error.lineno} column {error.colno})"


def _by_content_type(body: bytes | None, content_type: str | None) -> object:
    if body is None or content_type is None:
        return _load(body)
    kind = content_type.partition(";")[0].strip().lower()
    if kind.startswith("text/"):
        return _text(body)
    if kind == BINARY or kind.startswith(("image/", "audio/", "video/")):
        return body
    return _load(body)


def _structurer(annotation: object) -> Callable[[bytes | None], object]:
    converter = _converter()
    try:
        hook = converter.get_structure_hook(annotation)
    except Exception as error:
        raise ConfigError(
            f"apply's input is annotated {_type_name(annotation)}, which JSON cannot be decoded into "
            f"({type(error).__name__}). Use bytes, str, an attrs class, a dataclass, list[...], dict[str, ...], "
            "or no annotation."
        ) from error

    def structure(body: bytes | None) -> object:
        value = _load(_bytes(body))
        try:
            return hook(value, annotation)
        except RecursionError:
            raise DecodeError("nested too deeply") from None
        except Exception as error:  # noqa: BLE001 - whatever a class's own validators raise is about the body
            raise _structure_problem(error, annotation) from None

    return structure


def _structure_problem(error: Exception, annotation: object) -> DecodeError:
    import cattrs

    # transform_error makes text; a character that no path contains keeps problem and path apart.
    lines = cattrs.transform_error(error, path="$", format_exception=_problem)
    if not isinstance(error, cattrs.BaseValidationError):
        return DecodeError(_problem(error, annotation))
    problem, _, path = lines[0].rpartition(" @ ")
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return DecodeError(problem + more, path=re.sub(r"\['(\w+)'\]", r".\1", path))


def _problem(error: BaseException, kind: object) -> str:
    import cattrs

    if isinstance(error, _UnexpectedError):
        return f"expected {error}"
    if isinstance(error, KeyError):
        return "missing"
    if isinstance(error, cattrs.ForbiddenExtraKeysError):
        return "unexpected fields"
    return f"expected {_type_name(kind)}" if kind is not None else "does not fit"


def _type_name(kind: object) -> str:
    return kind.__qualname__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


class _UnexpectedError(ValueError):
    """The text is what was expected."""


def _exactly(*kinds: type, name: str) -> Callable[[object, object], Any]:
    def structure(value: object, _: object) -> object:
        if type(value) not in kinds:
            raise _UnexpectedError(name)
        return kinds[0](value)

    return structure


def _parsed(parse: Callable[[str], object], name: str) -> Callable[[object, object], Any]:
    def structure(value: object, _: object) -> object:
        try:
            return parse(value) if isinstance(value, str) else _raise(name)
        except (ValueError, ArithmeticError):
            raise _UnexpectedError(name) from None

    return structure


def _raise(name: str) -> object:
    raise _UnexpectedError(name)


def _decimal(value: object, _: object) -> decimal.Decimal:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _UnexpectedError("a decimal as text")
    try:
        return decimal.Decimal(value if isinstance(value, int) else str(value))
    except ArithmeticError:
        raise _UnexpectedError("a decimal as text") from None


@functools.cache
def _converter() -> Any:  # noqa: ANN401 - cattrs is imported where it is first needed
    import cattrs
    from cattrs.strategies import configure_union_passthrough

    converter = cattrs.Converter(detailed_validation=True)
    configure_union_passthrough(str | bool | int | float | None, converter)
    converter.register_structure_hook(int, _exactly(int, name="int"))
    converter.register_structure_hook(float, _exactly(float, int, name="float"))
    converter.register_structure_hook(str, _exactly(str, name="str"))
    converter.register_structure_hook(bool, _exactly(bool, name="bool"))
    converter.register_structure_hook(bytes, lambda *_: _raise("no bytes inside JSON"))
    converter.register_structure_hook(decimal.Decimal, _decimal)
    for kind, parse, name in (
        (datetime.datetime, datetime.datetime.fromisoformat, "an ISO 8601 date and time"),
        (datetime.date, datetime.date.fromisoformat, "an ISO 8601 date"),
        (datetime.time, datetime.time.fromisoformat, "an ISO 8601 time"),
        (uuid.UUID, uuid.UUID, "a UUID"),
    ):
        converter.register_structure_hook(kind, _parsed(parse, name))
    return converter


def encode(value: object) -> tuple[bytes, str]:
    """Write a value: bytes as they are, text as UTF-8, anything else as JSON.

    Returns:
        The body and its content type.

    Raises:
        EncodeError: It cannot be written without a loss; the text says where in it and why.
    """
    if type(value) is dict:
        pass
    elif isinstance(value, str):
        try:
            return value.encode("utf-8"), TEXT
        except UnicodeEncodeError as error:
            raise EncodeError(f"a lone surrogate at character {error.start} cannot be written as UTF-8") from None
    elif isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BINARY
    try:
        body = orjson.dumps(value, _default, orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # orjson's JSONEncodeError is a TypeError
        return _dump_slowly(value), JSON
    if b"null" in body:
        _plain(value, "$", 0)  # orjson writes NaN and infinities as null
    # orjson hands out a body at the front of a block of 1 KiB; a copy, held until it is confirmed, takes what it needs.
    return (b"".join((body, b"")) if len(body) < SMALL else body), JSON


def _dump_slowly(value: object) -> bytes:
    """Write what orjson does not: long integers, keys that are not text; or say where the trouble is."""
    try:
        return json.dumps(_plain(value, "$", 0), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
            "utf-8"
        )
    except (RecursionError, ValueError, UnicodeEncodeError) as error:
        if isinstance(error, EncodeError):
            raise
        raise EncodeError(f"cannot be written as JSON ({type(error).__name__})") from None


def _default(value: object) -> object:
    """Make something that orjson writes; TypeError when there is nothing."""
    simple = _simpler(value)
    if simple is value:
        raise TypeError
    return simple


def _simpler(value: object) -> object:
    kind: type = type(value)
    if attrs.has(kind):
        return {field.name: getattr(value, field.name) for field in attrs.fields(kind)}
    if isinstance(value, (decimal.Decimal, os.PathLike)):
        return str(value)
    if isinstance(value, (set, frozenset, tuple, collections.deque)):
        return list(value)
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return dict(value)
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return value


def _plain(value: object, path: str, depth: int) -> object:
    """Make plain JSON values of everything, or say where that fails."""
    if depth > DEEPEST:
        raise EncodeError(f"nested more than {DEEPEST} levels deep, or inside itself", path=_cut(path))
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value, path, depth + 1)
    if isinstance(value, str):
        return _plain_text(value, path)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EncodeError(f"{'NaN' if math.isnan(value) else 'infinity'} {_NAN}", path=path)
        return float(value)
    if isinstance(value, Mapping):
        return {_plain_key(key, path): _plain(item, _below(path, key), depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return orjson.loads(orjson.dumps(value)) if not _odd_time(value) else _refuse_time(path)
    if isinstance(value, uuid.UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_fields(((f.name, getattr(value, f.name)) for f in dataclasses.fields(value)), path, depth)
    simple = _simpler(value)
    if simple is not value:
        return _plain(simple, path, depth + 1)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise EncodeError("bytes cannot be written inside JSON; return them alone, or as text (base64)", path=path)
    raise EncodeError(
        f"a {type(value).__qualname__} cannot be written as JSON; return a dict, an attrs class or a dataclass",
        path=path,
    )


def _odd_time(value: object) -> bool:
    return isinstance(value, datetime.time) and value.tzinfo is not None


def _refuse_time(path: str) -> object:
    raise EncodeError("a time with a zone but no date cannot be written; use a datetime", path=path)


def _plain_fields(fields: Iterable[tuple[str, object]], path: str, depth: int) -> dict[str, object]:
    return {name: _plain(item, f"{path}.{name}", depth + 1) for name, item in fields}


def _plain_text(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise EncodeError("a lone surrogate cannot be written as UTF-8", path=path) from None
    return str(value)


def _plain_key(key: object, path: str) -> str:
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return _plain_text(key, f"{path} (a key)")
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, (int, uuid.UUID)):
        return str(key)
    if isinstance(key, (datetime.date, datetime.time)):
        return key.isoformat()
    if isinstance(key, float) and math.isfinite(key):
        return repr(float(key))
    simple = _simpler(key)
    if isinstance(simple, (str, int, float)):
        return _plain_key(simple, path)
    raise EncodeError(f"a {type(key).__qualname__} cannot be a key in JSON; use text", path=path)


def _below(path: str, key: object) -> str:
    return f"{path}.{key}" if isinstance(key, str) and key.isidentifier() else f"{path}[...]"


def _cut(path: str) -> str:
    return path if len(path) <= 80 else f"{path[:77]}..."


def to_messages(result: object, *, key: str | None = None, headers: Mapping[str, str] | None = None) -> list[Message]:
    """Make messages of a result of `apply`: None makes none, `Messages` several, a `Message` is taken as it is.

    Args:
        result: What `apply` returned.
        key: Of the messages that are made; those given as `Message` keep theirs.
        headers: Of the messages that are made.

    Raises:
        EncodeError: A value cannot be written; the text says where in it and why.
    """
    return list(_messages(result, key, headers or {}))


def _messages(result: object, key: str | None, headers: Mapping[str, str]) -> Iterator[Message]:
    if result is None:
        return
    if isinstance(result, Message):
        yield result
    elif isinstance(result, Messages):
        for value in result.values:
            yield from _messages(value, key, headers)
    else:
        body, content_type = encode(result)
        yield Message(body, headers=headers, key=key, content_type=content_type)
