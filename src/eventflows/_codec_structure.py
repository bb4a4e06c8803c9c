"""What JSON is made of into the annotated types, by cattrs; a misfit is named by its path."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import functools
import threading
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows._codec_load import all_short, load, needed, reload, short_loads
from eventflows._codec_parts import Plain, Together, below, cut, field_names, fields
from eventflows.errors import ConfigError, DecodeError

_making: Final = threading.local()
_IntKey = typing.NewType("_IntKey", int)
_FloatKey = typing.NewType("_FloatKey", float)
_OBJECTS: Final = (dict, dict[str, Any], dict[str, object])
"""What JSON's reader gives as it is: keys are always text."""
_KEYS: Final[dict[object, object]] = {int: _IntKey, float: _FloatKey}


def structurer(annotation: object) -> Plain:
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
        value = load(needed(body))
        try:
            return hook(reload(body, _Written) if written else value, annotation)  # type: ignore[arg-type]
        except Exception as error:  # noqa: BLE001 - whatever a class's own validators raise is about the body
            if not written and _needs_digits(error):
                exact = True
                return structure(body)
            raise _first_problem(error, annotation) from None

    return structure


def objects_together(annotation: object, structure: Plain) -> Together | None:
    """Give what makes readers of JSON objects that are given as they are; None: this annotation wants something else.

    Args:
        annotation: What is wanted.
        structure: Reads one, and says what is wrong with it.
    """
    if annotation not in _OBJECTS:
        return None

    def together(bodies: Sequence[bytes | None]) -> Plain:
        read = short_loads() if all_short(bodies) else load

        def as_read(body: bytes | None) -> object:
            try:
                value = read(body)
            except ValueError:
                return structure(body)  # which says what is wrong
            return value if type(value) is dict else structure(body)

        return as_read

    return together


def _unsupported(annotation: object, error: Exception) -> str:
    inner = getattr(error, "type_", annotation)
    which = named(annotation) if inner is annotation else f"{named(annotation)} with {named(inner)} in it"
    why = f" ({error})" if isinstance(error, NameError) else ""
    return (
        f"apply's input is annotated {which}, which JSON cannot be decoded into{why}. "
        "Use bytes, str, an attrs class, a dataclass, list[...], dict[str, ...], or no annotation."
    )


def named(kind: object) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(named, arguments))
    if origin is typing.Annotated:
        return named(arguments[0])
    if arguments:
        return f"{named(origin)}[{', '.join(map(named, arguments))}]"
    name = getattr(kind, "__name__", None) or str(kind)
    return {"NoneType": "None", "Ellipsis": "..."}.get(name, name)


def _refuse_bytes(annotation: object, kinds: Iterable[object]) -> None:
    for kind in kinds:
        if typing.get_origin(kind) is typing.ClassVar:
            continue
        if kind is bytes:
            raise ConfigError(
                f"apply's input is annotated {named(annotation)} with bytes in it, and JSON has no bytes. "
                "Use bytes alone for the raw body, or str for text such as base64."
            )
        _refuse_bytes(annotation, typing.get_args(kind))


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
            inside = [(inner, below(path, note.index), note.type, "", path) for inner, note in notes]
        elif isinstance(error, cattrs.ClassValidationError):
            places, others = error.group_exceptions()
            inside = [(inner, below(path, note.name), note.type, note.name, path) for inner, note in places]
        elif type(error) is KeyError and error.args == (field,):
            found.append((parent, f'missing field "{field}"'))
            continue
        else:
            found.append((path, _problem(error, kind, field)))
            continue
        stack += reversed(inside + [(inner, path, None, named(error.cl), path) for inner in others])
    path, problem = found[0]
    return DecodeError(problem + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""), path=cut(path))


def _problem(error: BaseException, kind: object, within: str) -> str:
    if isinstance(error, _UnexpectedError):
        return f"expected {error}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"expected {named(kind)}" if kind is not None else f"does not fit {within} ({type(error).__name__})"


class _UnexpectedError(ValueError):
    """The text is what was expected."""


class _InexactError(_UnexpectedError):
    """A number was read as a float, and its digits are needed as they were written."""


class _Written(float):
    """A number, and how it was written."""

    def __init__(self, text: str) -> None:
        self.text = text


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
    if field_names(origin) is not None:
        unset = {field.name for field in fields(origin) if not field.init}
        _refuse_bytes(kind, (hint for name, hint in typing.get_type_hints(origin).items() if name not in unset))
    made = kind
    if shape is dict and len(arguments) == 2 and arguments[0] in _KEYS:
        made = origin[_KEYS[arguments[0]], arguments[1]]  # keys are always text in JSON
    fill = None
    if shape is list and hasattr(origin, "_fields"):  # a named tuple; cattrs does not resolve its annotations
        hints, fill = typing.get_type_hints(origin), origin
        made = tuple[tuple(hints.get(name, Any) for name in origin._fields)]  # type: ignore[misc]
    simple = arguments[0] if origin is list and arguments and arguments[0] in (int, float, str, bool) else None
    free = kind in _OBJECTS
    _making.kind = made  # the next question for exactly this type is for cattrs' own
    hook = converter.get_structure_hook(made, cache_result=False)

    def structure(value: object, _: object) -> object:
        if type(value) is not shape:
            raise _UnexpectedError(named(kind))
        if free:
            return value
        if simple is not None and set(map(type, value)) <= {simple}:  # type: ignore[call-overload]
            return value  # all of them are what is asked for: the list need not be made anew
        return hook(value, made) if fill is None else fill(*hook(value, made))

    return structure


def _exactly(*kinds: type) -> Callable[[Any, Any], object]:
    def structure(value: object, asked: object) -> object:
        if type(value) not in kinds:
            raise _UnexpectedError(named(asked))
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
            raise _UnexpectedError(named(kind))
        return table[type(value), value]

    return structure


def _enum(value: object, kind: Any) -> object:  # noqa: ANN401 - an Enum class
    member = kind(value)
    # Python holds 1, 1.0 and True for equal; JSON's reader should not.
    if isinstance(value, (bool, float)) and type(member.value) is not type(value):
        raise _UnexpectedError(named(kind))
    return member
