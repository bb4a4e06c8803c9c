"""Bytes to values, by the annotation of `apply`'s input, and values to bytes.

What JSON cannot say exactly is refused by its path, never changed in silence: NaN, infinities and NaT, lone
surrogates, bytes inside a document, two keys that become one text. Integers beyond 64 bits survive, up to the 308
digits that a float reaches. Of equal keys in one object that is read, the last one counts, as in Python's own reader.

A `Decimal`, `UUID`, path, date or time is written as text, an `Enum` as its value, an attrs class or dataclass as its
fields, a set as a list, a masked array with null where it is masked. A `datetime` without a zone is written without
one; numpy's `datetime64` is written to the microsecond.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import math
import os
import re
import sys
import threading
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows.errors import ConfigError, DecodeError, EncodeError
from eventflows.message import Message, Messages

BINARY: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

DEEPEST: Final = 254
"""Levels of nesting that are written: orjson's own limit."""

SMALL: Final = 480
"""Bytes below which Python packs objects tightly."""

_DIGITS: Final = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
_NINETEEN: Final = b"0" * 19
_BEYOND_64_BITS: Final = re.compile(rb"(?:(?<=-)[0-9]{19,}|(?<![^\[,:\s])[0-9]{20,})(?![.eE0-9])")
_SHOWN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")
_BINARY_KINDS: Final = re.compile(
    r"(image|audio|video|font)/.*|application/(octet-stream|pdf|zip|gzip|avro|cbor|msgpack|(x-)?protobuf|x-msgpack)"
)
_LOSSY: Final = "cannot be written as JSON; leave it out, or use None"

Plain = Callable[[bytes | None], object]


@attrs.frozen
class Decoder:
    """Makes values of bodies."""

    plain: Plain
    """For a body whose message says no content type."""
    by_type: Callable[[bytes | None, str | None], object]
    """For any body, with its content type."""


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
        return Decoder(_load, _by_content_type)
    if inner is bytes:
        plain: Plain = _identity if optional else _bytes
    elif inner is str:
        plain = _or_none(_text) if optional else _text
    else:
        plain = _structurer(annotation)
        plain = _or_none(plain) if optional else plain
    return Decoder(plain, lambda body, _: plain(body))


def _element(annotation: object) -> object:
    arguments = typing.get_args(annotation)
    origin = typing.get_origin(annotation) or annotation
    if annotation in (inspect.Parameter.empty, Any, object):
        return annotation
    if origin not in (list, Sequence) or len(arguments) > 1:
        raise ConfigError(f"apply takes a batch: annotate its input as list[...], not {_named(annotation)}.")
    return arguments[0] if arguments else Any


def _optional(annotation: object) -> tuple[bool, object]:
    arguments = typing.get_args(annotation)
    if type(None) in arguments and typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [argument for argument in arguments if argument is not type(None)]
        return True, rest[0] if len(rest) == 1 else annotation
    return False, annotation


def _or_none(plain: Plain) -> Plain:
    return lambda body: None if body is None else plain(body)


def _identity(body: bytes | None) -> bytes | None:
    return body


def _bytes(body: bytes | None) -> bytes:
    if body is None:
        raise DecodeError("a tombstone has no body; annotate the input as ... | None to receive it")
    return body


def _text(body: bytes | None) -> str:
    try:
        return _bytes(body).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"not UTF-8 at byte {error.start}; annotate the input as bytes to receive it") from None


def _by_content_type(body: bytes | None, content_type: str | None) -> object:
    if body is None or content_type is None:
        return _load(body)
    return _reader(content_type)(body)


@functools.lru_cache(maxsize=256)
def _reader(content_type: str) -> Plain:
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(("/json", "+json")):
        return _load
    if kind.startswith("text/"):
        return _text
    return _identity if _BINARY_KINDS.fullmatch(kind) else _load


# --- JSON: orjson, imported at the first use -------------------------------------------------------------------------


def _first_loads(body: Any) -> Any:  # noqa: ANN401 - stands in for orjson.loads until it is imported
    _import_orjson()
    return _loads(body)


def _first_dumps(value: Any, default: Any, options: Any) -> bytes:  # noqa: ANN401 - stands in for orjson.dumps
    del options
    _import_orjson()
    return _dumps(value, default, _options)


_loads: Callable[[Any], Any] = _first_loads
_dumps: Callable[[Any, Any, Any], bytes] = _first_dumps
_options = 0


def _import_orjson() -> None:
    global _loads, _dumps, _options
    import orjson

    # orjson's own way drops private fields of dataclasses, adds their cached properties, and rounds a zone's offset.
    # Without numpy the option for it would import it.
    _options = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
    _loads, _dumps = orjson.loads, orjson.dumps


def _load(body: bytes | None) -> object:
    try:
        value = _loads(body)
    except ValueError as error:
        if body is None:
            return None
        raise _not_json(body, error) from None
    # orjson reads an integer beyond 64 bits as a float; one has 19 digits or more in a row. This is the cheapest test
    # that never misses: rfind takes half the time of `in`, and a tenth of a regular expression's.
    if body.translate(_DIGITS).rfind(_NINETEEN) >= 0 and _BEYOND_64_BITS.search(body):  # type: ignore[union-attr,arg-type]
        return _reload(body)  # type: ignore[arg-type]
    return value


def _reload(body: bytes, parse_float: Callable[[str], object] | None = None) -> object:
    """Read by the standard library what orjson has accepted: strict JSON, but integers of any size."""
    import json

    try:
        return json.loads(body, parse_float=parse_float)
    except (ValueError, RecursionError) as error:
        raise DecodeError("nested too deeply" if isinstance(error, RecursionError) else "a number too long") from None


def _not_json(body: bytes, error: ValueError) -> DecodeError:
    problem = getattr(error, "msg", "").partition(":")[0]
    if not body.strip():
        return DecodeError("empty body, expected JSON")
    if "infinity" in problem:
        return DecodeError("a number too large to be read")
    if "depth" in problem or "recursion" in problem:
        return DecodeError("nested too deeply")
    where = f"line {getattr(error, 'lineno', '?')} column {getattr(error, 'colno', '?')}"
    return DecodeError(f"not JSON ({problem}, {where})")


# --- structuring -----------------------------------------------------------------------------------------------------


def _structurer(annotation: object) -> Plain:
    _refuse_bytes(annotation, [annotation])
    try:
        hook = _converter().get_structure_hook(annotation)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(_unsupported(annotation, error)) from error
    exact = False

    def structure(body: bytes | None) -> object:
        nonlocal exact
        written = exact
        value = _load(_bytes(body))
        try:
            return hook(_reload(body, _Written) if written else value, annotation)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - whatever a class's own validators raise is about the body
            if not written and _needs_digits(error):
                exact = True
                return structure(body)
            raise _first_problem(error, annotation) from None

    return structure


def _unsupported(annotation: object, error: Exception) -> str:
    inner = getattr(error, "type_", annotation)
    which = _named(annotation) if inner is annotation else f"{_named(annotation)} with {_named(inner)} in it"
    why = f" ({error})" if isinstance(error, NameError) else ""
    return (
        f"apply's input is annotated {which}, which JSON cannot be decoded into{why}. "
        "Use bytes, str, an attrs class, a dataclass, list[...], dict[str, ...], or no annotation."
    )


def _named(kind: object) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_named, arguments))
    if origin is typing.Annotated:
        return _named(arguments[0])
    if arguments:
        return f"{_named(origin)}[{', '.join(map(_named, arguments))}]"
    name = getattr(kind, "__name__", None) or str(kind)
    return {"NoneType": "None", "Ellipsis": "..."}.get(name, name)


def _needs_digits(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(_InexactError) is not None
    return isinstance(error, _InexactError)


def _first_problem(error: BaseException, annotation: object) -> DecodeError:
    import cattrs

    found: list[tuple[str, str]] = []
    stack: list[tuple[BaseException, str, object, str, str]] = [(error, "$", annotation, "", "$")]
    while stack:  # not by recursion: a body may be nested as deeply as Python's stack allows
        error, path, kind, field, parent = stack.pop()
        if isinstance(error, cattrs.IterableValidationError):
            notes, others = error.group_exceptions()
            below = [(inner, _below(path, note.index), note.type, "", path) for inner, note in notes]
        elif isinstance(error, cattrs.ClassValidationError):
            fields, others = error.group_exceptions()
            below = [(inner, _below(path, note.name), note.type, note.name, path) for inner, note in fields]
        elif type(error) is KeyError and error.args == (field,):
            found.append((parent, f'missing field "{field}"'))
            continue
        else:
            found.append((path, _problem(error, kind, field)))
            continue
        stack += reversed(below + [(inner, path, None, _named(error.cl), path) for inner in others])
    path, problem = found[0]
    return DecodeError(problem + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""), path=_cut(path))


def _problem(error: BaseException, kind: object, within: str) -> str:
    if isinstance(error, _UnexpectedError):
        return f"expected {error}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"expected {_named(kind)}" if kind is not None else f"does not fit {within} ({type(error).__name__})"


class _UnexpectedError(ValueError):
    """The text is what was expected."""


class _InexactError(_UnexpectedError):
    """A number was read as a float, and its digits are needed as they were written."""


class _Written(float):
    """A number, and how it was written."""

    def __init__(self, text: str) -> None:
        self.text = text


_making: Final = threading.local()
_IntKey = typing.NewType("_IntKey", int)
_FloatKey = typing.NewType("_FloatKey", float)
_KEYS: Final[dict[object, object]] = {int: _IntKey, float: _FloatKey}


@functools.cache
def _converter() -> Any:  # noqa: ANN401 - cattrs is imported where it is first needed
    import uuid

    import cattrs
    from cattrs.strategies import configure_union_passthrough

    converter: Any = cattrs.Converter(detailed_validation=True)
    configure_union_passthrough(str | bool | int | float | None, converter)
    for kind, hook in {
        int: _exactly(int),
        float: _exactly(float, int, _Written),
        str: _exactly(str),
        bool: _exactly(bool),
        enum.Enum: _enum,
        decimal.Decimal: _decimal,
        datetime.datetime: _parsed(datetime.datetime.fromisoformat, "an ISO 8601 date and time"),
        datetime.date: _parsed(datetime.date.fromisoformat, "an ISO 8601 date"),
        datetime.time: _parsed(datetime.time.fromisoformat, "an ISO 8601 time"),
        uuid.UUID: _parsed(uuid.UUID, "a UUID"),
    }.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(lambda kind: kind is _IntKey, _parsed(_int_key, "int"))
    converter.register_structure_hook_func(lambda kind: kind is _FloatKey, _parsed(float, "float"))
    converter.register_structure_hook_factory(_is_literal, _literal)
    converter.register_structure_hook_factory(_has_shape, _shaped)
    return converter


def _has_shape(kind: object) -> bool:
    if getattr(_making, "kind", None) is kind:
        _making.kind = None
        return False
    return _shape(kind) is not None


def _shape(kind: Any) -> type | None:  # noqa: ANN401 - an annotation
    """Say which JSON a type is made of, an object or an array; None: neither, or cattrs knows better."""
    origin = typing.get_origin(kind) or kind
    if not isinstance(origin, type) or issubclass(origin, (str, bytes, bytearray, memoryview, enum.Enum)):
        return None
    if attrs.has(origin) or dataclasses.is_dataclass(origin) or issubclass(origin, Mapping):
        return dict
    return list if issubclass(origin, (Sequence, collections.abc.Set)) else None


def _shaped(kind: Any, converter: Any) -> Callable[[Any, Any], object]:  # noqa: ANN401 - an annotation, cattrs
    """Wrap cattrs' own hook, which takes any iterable for a list: text, for one, and the keys of an object."""
    shape, arguments = _shape(kind), typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if _field_names(origin) is not None:
        unset = {field.name for field in _fields(origin) if not field.init}
        _refuse_bytes(kind, (hint for name, hint in typing.get_type_hints(origin).items() if name not in unset))
    made = kind
    if shape is dict and len(arguments) == 2 and arguments[0] in _KEYS:
        made = origin[_KEYS[arguments[0]], arguments[1]]  # keys are always text in JSON
    fill = None
    if shape is list and hasattr(origin, "_fields"):  # a named tuple; cattrs does not resolve its annotations
        hints, fill = typing.get_type_hints(origin), origin
        made = tuple[tuple(hints.get(name, Any) for name in origin._fields)]  # type: ignore[misc]
    simple = arguments[0] if origin is list and arguments and arguments[0] in (int, float, str, bool) else None
    _making.kind = made  # the next question for exactly this type is for cattrs' own
    hook = converter.get_structure_hook(made, cache_result=False)

    def structure(value: object, _: object) -> object:
        if type(value) is not shape:
            raise _UnexpectedError(_named(kind))
        if simple is not None and set(map(type, value)) <= {simple}:  # type: ignore[call-overload]
            return value  # all of them are what is asked for: the list need not be made anew
        return hook(value, made) if fill is None else fill(*hook(value, made))

    return structure


def _exactly(*kinds: type) -> Callable[[Any, Any], object]:
    def structure(value: object, asked: object) -> object:
        if type(value) not in kinds:
            raise _UnexpectedError(_named(asked))
        return asked(value) if isinstance(asked, type) else kinds[0](value)  # a subclass is asked for, an IntEnum

    return structure


def _parsed(parse: Callable[[str], object], name: str) -> Callable[[Any, Any], object]:
    def structure(value: object, _: object) -> object:
        try:
            return parse(value if isinstance(value, str) else "")
        except ValueError:
            raise _UnexpectedError(name) from None

    return structure


def _int_key(text: str) -> int:
    number = int(text)
    if str(number) != text:  # "01" and "1" would become one key
        raise ValueError
    return number


def _decimal(value: object, _: object) -> decimal.Decimal:
    if type(value) is float:
        raise _InexactError("a decimal")
    if type(value) not in (str, int, _Written):
        raise _UnexpectedError("a decimal")
    try:
        return decimal.Decimal(value.text if isinstance(value, _Written) else value)  # type: ignore[arg-type]
    except ArithmeticError:
        raise _UnexpectedError("a decimal") from None


def _is_literal(kind: Any) -> bool:  # noqa: ANN401 - an annotation
    origin: object = typing.get_origin(kind)
    return origin is typing.Literal


def _literal(kind: object, _: object) -> Callable[[Any, Any], object]:
    items = [(item.value if isinstance(item, enum.Enum) else item, item) for item in typing.get_args(kind)]
    table = {(type(value), value): item for value, item in items}

    def structure(value: object, _: object) -> object:
        if not isinstance(value, (str, int, type(None))) or (type(value), value) not in table:
            raise _UnexpectedError(_named(kind))
        return table[type(value), value]

    return structure


def _enum(value: object, kind: Any) -> object:  # noqa: ANN401 - an Enum class
    member = kind(value)
    # Python holds 1, 1.0 and True for equal; JSON's reader should not.
    if isinstance(value, (bool, float)) and type(member.value) is not type(value):
        raise _UnexpectedError(_named(kind))
    return member


def _refuse_bytes(annotation: object, kinds: Iterable[object]) -> None:
    for kind in kinds:
        if typing.get_origin(kind) is typing.ClassVar:
            continue
        if kind is bytes:
            raise ConfigError(
                f"apply's input is annotated {_named(annotation)} with bytes in it, and JSON has no bytes. "
                "Use bytes alone for the raw body, or str for text such as base64."
            )
        _refuse_bytes(annotation, typing.get_args(kind))


# --- encoding --------------------------------------------------------------------------------------------------------


def encode(value: object) -> tuple[bytes, str]:
    """Write a value: bytes as they are, text as UTF-8, anything else as JSON.

    Returns:
        The body and its content type.

    Raises:
        EncodeError: It cannot be written without a loss; the text says where in it and why.
    """
    if type(value) is not dict:
        if isinstance(value, str):
            return _plain_text(value, "$").encode("utf-8"), TEXT
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value), BINARY
    try:
        body = _dumps(value, _default, _options)
    except TypeError:  # orjson's JSONEncodeError is a TypeError
        return _dump_slowly(value), JSON
    if body.rfind(b"null") >= 0:
        _refuse_nan(value)  # orjson writes NaN and infinities as null
    # orjson hands out a body at the front of a block of 1 KiB; a copy, held until it is confirmed, takes what it needs.
    return (b"".join((body, b"")) if len(body) < SMALL else body), JSON


def _default(value: Any) -> object:  # noqa: ANN401 - whatever orjson does not write
    """Make something that orjson writes; TypeError when there is nothing."""
    global _options
    if isinstance(value, (datetime.date, datetime.time)):
        return _moment(value, "")
    if _is_numpy(value):
        import orjson

        native = _native(value)
        _options |= orjson.OPT_SERIALIZE_NUMPY
        if native is not None:
            return orjson.Fragment(orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY))
        return _listed(value, "")
    simple = _simpler(value)
    if simple is value:
        raise TypeError
    return simple


def _refuse_nan(value: object) -> None:
    try:
        _finite_encoder()(value)  # ten times faster than the walk, and finds the same
    except Exception:  # noqa: BLE001 - whatever it is, the walk says where
        _plain(value, "$", 0)


@functools.cache
def _finite_encoder() -> Callable[[object], str]:
    import json

    return json.JSONEncoder(allow_nan=False, check_circular=False, default=_looked_at).encode


def _looked_at(value: Any) -> object:  # noqa: ANN401 - whatever the standard library does not write
    if isinstance(value, enum.Enum):
        return value.value
    if _is_numpy(value):
        return _listed(value, "") if value.dtype.kind != "M" else ""
    simple = _simpler(value)
    return "" if simple is value else simple  # what has no parts was written by orjson, so it is no NaN


def _dump_slowly(value: object) -> bytes:
    """Write what orjson does not: long integers, keys that are not text; or say where the trouble is."""
    import json

    try:
        plain = _plain(value, "$", 0)
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except EncodeError:
        raise
    except Exception as error:  # noqa: BLE001 - a value's own properties and methods may raise anything
        raise EncodeError(f"cannot be written as JSON ({type(error).__name__})") from None


def _fields(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 - an attrs class or a dataclass
    return tuple(attrs.fields(kind)) if attrs.has(kind) else dataclasses.fields(kind)


@functools.lru_cache(maxsize=1024)
def _field_names(kind: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - a class
    known = attrs.has(kind) or dataclasses.is_dataclass(kind)
    return tuple(field.name for field in _fields(kind)) if known else None


def _simpler(value: Any) -> object:  # noqa: ANN401 - whatever orjson does not write
    """Take one step towards JSON; the value itself when there is none."""
    kind: type = type(value)
    names = _field_names(kind)
    if names is not None:
        return {name: getattr(value, name) for name in names}
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (set, frozenset, tuple, collections.deque)):
        return list(value)
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return dict(value)
    return value


def _is_numpy(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _native(value: Any) -> Any:  # noqa: ANN401 - a numpy value
    """Make the numbers that orjson writes by itself; None for another kind, and for another class of array."""
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8 or hasattr(value, "mask"):
        return None
    if not hasattr(value, "flags") or value.ndim == 0:
        return value[()]
    return sys.modules["numpy"].asarray(value, dtype=value.dtype.newbyteorder("="), order="C")


def _listed(value: Any, path: str) -> object:  # noqa: ANN401 - a numpy value
    listed = value.tolist()
    if value.dtype.kind in "mM" or type(listed) is type(value):
        raise EncodeError(f"a numpy {value.dtype} {_LOSSY}", path=path)
    return listed


def _plain_numpy(value: Any, path: str, depth: int) -> object:  # noqa: ANN401 - a numpy value
    import orjson

    if value.dtype.kind == "M" and not hasattr(value, "mask"):
        if value.ndim:
            return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        if value != value:
            raise EncodeError(f"NaT {_LOSSY}", path=path)
        return orjson.loads(orjson.dumps(value[()], option=orjson.OPT_SERIALIZE_NUMPY))
    plain = _plain(_listed(value, path), path, depth)
    native = _native(value)  # a float32 has fewer digits than the float that it becomes in a list
    return plain if native is None else orjson.loads(orjson.dumps(native, option=orjson.OPT_SERIALIZE_NUMPY))


def _plain(value: Any, path: str, depth: int) -> object:  # noqa: ANN401 - any value
    """Make plain JSON values of everything, or say where that fails."""
    if depth > DEEPEST:
        raise EncodeError(f"nested more than {DEEPEST} levels deep, or inside itself", path=_cut(path))
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        return _plain(value.value, path, depth)
    if isinstance(value, str):
        return _plain_text(value, path)
    if isinstance(value, (int, float)):
        return _plain_number(value, path)
    if isinstance(value, (datetime.date, datetime.time)):
        return _moment(value, path)
    if _is_numpy(value):
        return _plain_numpy(value, path, depth)
    value = _simpler(value)
    if isinstance(value, dict):
        plain = {_plain_key(key, path): _plain(item, _below(path, key), depth + 1) for key, item in value.items()}
        if len(plain) < len(value):
            raise EncodeError("two keys become the same text", path=path)
        return plain
    if isinstance(value, list):
        return [_plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _plain_rest(value, path)


def _plain_rest(value: object, path: str) -> str:
    import uuid

    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str):
        return _plain_text(value, path)
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise EncodeError("bytes cannot be written inside JSON; return them alone, or as text (base64)", path=path)
    kind = f"the class {value.__name__}" if isinstance(value, type) else f"a value of type {type(value).__name__}"
    raise EncodeError(f"{kind} cannot be written as JSON; return a dict, an attrs class or a dataclass", path=path)


def _plain_number(value: float, path: str) -> float:
    try:
        if not math.isfinite(value):
            raise EncodeError(f"{'NaN' if math.isnan(value) else 'infinity'} {_LOSSY}", path=path)
    except OverflowError:
        raise EncodeError(
            "an integer of more than 308 digits cannot be read again; write it as text", path=path
        ) from None
    return int(value) if isinstance(value, int) else float(value)


def _moment(value: datetime.date | datetime.time, path: str) -> str:
    if isinstance(value, datetime.time) and value.tzinfo is not None:
        raise EncodeError("a time with a zone but no date cannot be written; use a datetime", path=path)
    if value != value:  # pandas' NaT is a datetime
        raise EncodeError(f"NaT {_LOSSY}", path=path)
    return value.isoformat()


def _plain_text(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodeError(f"a lone surrogate, at character {error.start}, cannot be written", path=path) from None
    return str(value)


def _plain_key(key: Any, path: str) -> str:  # noqa: ANN401 - any key
    if isinstance(key, (bool, type(None))):
        return {None: "null", True: "true", False: "false"}[key]
    try:
        simple = _plain(key, f"{path} (a key)", 0)
    except EncodeError as error:
        raise EncodeError(f"a key cannot be written: {error.problem}", path=path) from None
    if isinstance(simple, (dict, list, bool, type(None))):
        raise EncodeError(f"a key of type {type(key).__name__} cannot be written as JSON; use text", path=path)
    return simple if isinstance(simple, str) else repr(simple)


def _below(path: str, place: object) -> str:
    if isinstance(place, int):
        return f"{path}[{place}]"
    shown = isinstance(place, str) and _SHOWN_KEY.fullmatch(place)
    return f"{path}.{place}" if shown else f"{path}[...]"  # a key may be data, such as an address


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
