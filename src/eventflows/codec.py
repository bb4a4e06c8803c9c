"""Bytes to values, by the annotation of `apply`'s input, and values to bytes.

What JSON cannot say exactly is refused by its path, never changed in silence: NaN, infinities and NaT, lone
surrogates, bytes inside a document, two keys that become one text. Integers beyond 64 bits survive, up to the 308
digits that a float reaches. Of equal keys in one object that is read, the last one counts, as in Python's own reader.

A `Decimal`, `UUID`, path, date or time is written as text, an `Enum` as its value, an attrs class or dataclass as its
fields, a set as a list, a masked array with null where it is masked. A `datetime` without a zone is written without
one; numpy's `datetime64` is written to the microsecond.
"""

from __future__ import annotations

import datetime
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows._codec_load import as_it_is, load, loader_of, needed, text
from eventflows._codec_parts import Plain, Together
from eventflows._codec_plain import dump_slowly, is_numpy, listed, moment, native, plain_text, refuse_nan, simpler
from eventflows._codec_structure import named, objects_together, structurer
from eventflows.errors import ConfigError
from eventflows.message import Message, Messages

BINARY: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

SMALL: Final = 480
"""Bytes below which Python packs objects tightly."""

_BINARY_KINDS: Final = re.compile(
    r"(image|audio|video|font)/.*|application/(octet-stream|pdf|zip|gzip|avro|cbor|msgpack|(x-)?protobuf|x-msgpack)"
)


@attrs.frozen
class Decoder:
    """Makes values of bodies."""

    plain: Plain
    """For a body whose message says no content type."""
    by_type: Callable[[bytes | None, str | None], object]
    """For any body, with its content type."""
    together: Together | None = None
    """Makes a quicker `plain` for bodies that are there together; None: there is none."""

    def reader(self, bodies: Sequence[bytes | None]) -> Plain:
        """Give what reads any of these as `plain` does."""
        return self.plain if self.together is None else self.together(bodies)


def decoder(annotation: object, *, batch: bool = False) -> Decoder:
    """Make the decoder of an input.

    Args:
        annotation: Of `apply`'s input; `inspect.Parameter.empty`, `Any` or `object`: JSON, unless the content type
            says text or binary.
        batch: The annotation is of a whole batch, `list[T]`; what is decoded is one T.

    Raises:
        ConfigError: Nothing can be decoded into this type; the text says what can.
    """
    if batch:
        annotation = _element(annotation)
    optional, inner = _optional(annotation)
    if inner in (inspect.Parameter.empty, Any, object):
        return Decoder(load, _by_content_type, loader_of)
    if inner is bytes:
        plain: Plain = as_it_is if optional else needed
    elif inner is str:
        plain = _or_none(text) if optional else text
    else:
        plain = structurer(annotation)
        together = None if optional else objects_together(annotation, plain)
        if together is not None:
            plain = together(())
            return Decoder(plain, lambda body, _: plain(body), together)
        plain = _or_none(plain) if optional else plain
    return Decoder(plain, lambda body, _: plain(body))


def _element(annotation: object) -> object:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation) or annotation
    if annotation in (inspect.Parameter.empty, Any, object):
        return annotation
    if origin not in (list, Sequence) or len(arguments) > 1:
        raise ConfigError(f"apply takes a batch: annotate its input as list[...], not {named(annotation)}.")
    return arguments[0] if arguments else Any


def _optional(annotation: object) -> tuple[bool, object]:
    arguments = typing.get_args(annotation)
    if type(None) in arguments and typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        return True, rest[0] if len(rest) == 1 else annotation
    return False, annotation


def _or_none(plain: Plain) -> Plain:
    return lambda body: None if body is None else plain(body)


def _by_content_type(body: bytes | None, content_type: str | None) -> object:
    if body is None or content_type is None:
        return load(body)
    return _reader(content_type)(body)


@functools.lru_cache(maxsize=256)
def _reader(content_type: str) -> Plain:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(("/json", "+json")):
        return load
    if kind.startswith("text/"):
        return text
    return as_it_is if _BINARY_KINDS.fullmatch(kind) else load


def _first_dumps(value: Any, default: Any, options: Any) -> bytes:  # noqa: ANN401 - stands in for orjson.dumps
    del options
    _import_orjson()
    return _dumps(value, default, _options)


_dumps: Callable[[Any, Any, Any], bytes] = _first_dumps
_options = 0


def _import_orjson() -> None:
    global _dumps, _options
    import orjson

    # orjson's own way drops private fields of dataclasses, adds their cached properties, and rounds a zone's offset.
    # Without numpy the option for it would import it.
    _options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    _dumps = orjson.dumps


def encode(value: object) -> tuple[bytes, str]:
    """Write a value: bytes as they are, text as UTF-8, anything else as JSON.

    Returns:
        The body and its content type.

    Raises:
        EncodeError: It cannot be written without a loss; the text says where in it and why.
    """
    if type(value) is not dict:
        if isinstance(value, str):
            return plain_text(value, "$").encode("utf-8"), TEXT
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value), BINARY
    try:
        body = _dumps(value, _default, _options)
    except TypeError:  # orjson's JSONEncodeError is a TypeError
        return dump_slowly(value), JSON
    if body.rfind(b"null") >= 0:
        refuse_nan(value)  # orjson writes NaN and infinities as null
    # orjson hands out a body at the front of a block of 1 KiB; a copy, held until it is confirmed, takes what it needs.
    return (b"".join((body, b"")) if len(body) < SMALL else body), JSON


def _default(value: Any) -> object:  # noqa: ANN401 - whatever orjson does not write
    """Make something that orjson writes; TypeError when there is nothing."""
    global _options
    if isinstance(value, (datetime.date, datetime.time)):
        return moment(value, "")
    if is_numpy(value):
        import orjson

        numbers = native(value)
        _options |= orjson.OPT_SERIALIZE_NUMPY
        if numbers is not None:
            return orjson.Fragment(orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY))
        return listed(value, "")
    simple = simpler(value)
    if simple is value:
        raise TypeError
    return simple


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
