"""Bytes to what JSON is made of, and to text; orjson is imported at the first use."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventflows._codec_parts import Plain
from eventflows.errors import DecodeError

_DIGITS: Final = bytes(ord("0") if ord("0") <= byte <= ord("9") else ord(" ") for byte in range(256))
_NINETEEN: Final = b"0" * 19

TOGETHER: Final = 64 * 1024
"""Bytes of bodies that are looked at together: few enough to stay in a processor's cache, where they cost half."""

_BEYOND_64_BITS: Final = re.compile(rb"(?:(?<=-)[0-9]{19,}|(?<![^\[,:\s])[0-9]{20,})(?![.eE0-9])")


def as_it_is(body: bytes | None) -> bytes | None:
    return body


def needed(body: bytes | None) -> bytes:
    if body is None:
        raise DecodeError("a tombstone has no body; annotate the input as ... | None to receive it")
    return body


def text(body: bytes | None) -> str:
    try:
        return needed(body).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"not UTF-8 at byte {error.start}; annotate the input as bytes to receive it") from None


def _first_loads(body: Any) -> Any:  # noqa: ANN401 - stands in for orjson.loads until it is imported
    _import_orjson()
    return _loads(body)


_loads: Callable[[Any], Any] = _first_loads


def _import_orjson() -> None:
    global _loads
    import orjson

    _loads = orjson.loads


def load(body: bytes | None) -> object:
    try:
        value = _loads(body)
    except ValueError as error:
        if body is None:
            return None
        raise _not_json(body, error) from None
    # orjson reads an integer beyond 64 bits as a float; one has 19 digits or more in a row. This is the cheapest test
    # that never misses: rfind takes half the time of `in`, and a tenth of a regular expression's.
    if body.translate(_DIGITS).rfind(_NINETEEN) >= 0 and _BEYOND_64_BITS.search(body):  # type: ignore[union-attr,arg-type]
        return reload(body)  # type: ignore[arg-type]
    return value


def loader_of(bodies: Sequence[bytes | None]) -> Plain:
    """Give what loads any of these as `load` does; looked at together for long integers, they cost half of it."""
    return _load_short if all_short(bodies) else load


def all_short(bodies: Sequence[bytes | None]) -> bool:
    """Say whether each of these was looked at and has too few digits for an integer beyond 64 bits."""
    try:
        size = sum(map(len, bodies))  # type: ignore[arg-type]
    except TypeError:  # a tombstone among them
        return False
    if not size:
        return False
    step = max(len(bodies) * TOGETHER // size, 1)
    parts = (b" ".join(bodies[start : start + step]) for start in range(0, len(bodies), step))  # type: ignore[arg-type]
    return all(part.translate(_DIGITS).rfind(_NINETEEN) < 0 for part in parts)


def short_loads() -> Callable[[Any], Any]:
    """Give what reads a short body the quickest; a ValueError says that it is no JSON."""
    if _loads is _first_loads:
        _import_orjson()
    return _loads


def _load_short(body: bytes | None) -> object:
    try:
        return _loads(body)
    except ValueError as error:
        raise _not_json(body, error) from None  # type: ignore[arg-type]


def reload(body: bytes, parse_float: Callable[[str], object] | None = None) -> object:
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
