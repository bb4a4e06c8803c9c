"""Values that orjson does not write, one step or all the way to plain JSON values; what cannot be said is refused."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import functools
import math
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from eventflows._codec_parts import below, cut, field_names
from eventflows.errors import EncodeError

DEEPEST: Final = 254
"""Levels of nesting that are written: orjson's own limit."""

_LOSSY: Final = "cannot be written as JSON; leave it out, or use None"


def simpler(value: Any) -> object:  # noqa: ANN401 - whatever orjson does not write
    """Take one step towards JSON; the value itself when there is none."""
    kind: type = type(value)
    names = field_names(kind)
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


def refuse_nan(value: object) -> None:
    try:
        _finite_encoder()(value)  # ten times faster than the walk, and finds the same
    except Exception:  # noqa: BLE001 - whatever it is, the walk says where
        plain_value(value, "$", 0)


@functools.cache
def _finite_encoder() -> Callable[[object], str]:
    import json

    return json.JSONEncoder(allow_nan=False, check_circular=False, default=_looked_at).encode


def _looked_at(value: Any) -> object:  # noqa: ANN401 - whatever the standard library does not write
    if isinstance(value, enum.Enum):
        return value.value
    if is_numpy(value):
        return listed(value, "") if value.dtype.kind != "M" else ""
    simple = simpler(value)
    return "" if simple is value else simple  # what has no parts was written by orjson, so it is no NaN


def dump_slowly(value: object) -> bytes:
    """Write what orjson does not: long integers, keys that are not text; or say where the trouble is."""
    import json

    try:
        plain = plain_value(value, "$", 0)
        return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except EncodeError:
        raise
    except Exception as error:  # noqa: BLE001 - a value's own properties and methods may raise anything
        raise EncodeError(f"cannot be written as JSON ({type(error).__name__})") from None


def is_numpy(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def native(value: Any) -> Any:  # noqa: ANN401 - a numpy value
    """Make the numbers that orjson writes by itself; None for another kind, and for another class of array."""
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8 or hasattr(value, "mask"):
        return None
    if not hasattr(value, "flags") or value.ndim == 0:
        return value[()]
    return sys.modules["numpy"].asarray(value, dtype=value.dtype.newbyteorder("="), order="C")


def listed(value: Any, path: str) -> object:  # noqa: ANN401 - a numpy value
    items = value.tolist()
    if value.dtype.kind in "mM" or type(items) is type(value):
        raise EncodeError(f"a numpy {value.dtype} {_LOSSY}", path=path)
    return items


def _plain_numpy(value: Any, path: str, depth: int) -> object:  # noqa: ANN401 - a numpy value
    import orjson

    if value.dtype.kind == "M" and not hasattr(value, "mask"):
        if value.ndim:
            return [plain_value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        if value != value:
            raise EncodeError(f"NaT {_LOSSY}", path=path)
        return orjson.loads(orjson.dumps(value[()], option=orjson.OPT_SERIALIZE_NUMPY))
    plain = plain_value(listed(value, path), path, depth)
    numbers = native(value)  # a float32 has fewer digits than the float that it becomes in a list
    return plain if numbers is None else orjson.loads(orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY))


def plain_value(value: Any, path: str, depth: int) -> object:  # noqa: ANN401 - any value
    """Make plain JSON values of everything, or say where that fails."""
    if depth > DEEPEST:
        raise EncodeError(f"nested more than {DEEPEST} levels deep, or inside itself", path=cut(path))
    if value is None or value is True or value is False:
        return value
    if isinstance(value, enum.Enum):
        return plain_value(value.value, path, depth)
    if isinstance(value, str):
        return plain_text(value, path)
    if isinstance(value, (int, float)):
        return _plain_number(value, path)
    if isinstance(value, (datetime.date, datetime.time)):
        return moment(value, path)
    if is_numpy(value):
        return _plain_numpy(value, path, depth)
    value = simpler(value)
    if isinstance(value, dict):
        plain = {_plain_key(key, path): plain_value(item, below(path, key), depth + 1) for key, item in value.items()}
        if len(plain) < len(value):
            raise EncodeError("two keys become the same text", path=path)
        return plain
    if isinstance(value, list):
        return [plain_value(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _plain_rest(value, path)


def _plain_rest(value: object, path: str) -> str:
    import uuid

    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, str):
        return plain_text(value, path)
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


def moment(value: datetime.date | datetime.time, path: str) -> str:
    if isinstance(value, datetime.time) and value.tzinfo is not None:
        raise EncodeError("a time with a zone but no date cannot be written; use a datetime", path=path)
    if value != value:  # pandas' NaT is a datetime
        raise EncodeError(f"NaT {_LOSSY}", path=path)
    return value.isoformat()


def plain_text(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodeError(f"a lone surrogate, at character {error.start}, cannot be written", path=path) from None
    return str(value)


def _plain_key(key: Any, path: str) -> str:  # noqa: ANN401 - any key
    if isinstance(key, (bool, type(None))):
        return {None: "null", True: "true", False: "false"}[key]
    try:
        simple = plain_value(key, f"{path} (a key)", 0)
    except EncodeError as error:
        raise EncodeError(f"a key cannot be written: {error.problem}", path=path) from None
    if isinstance(simple, (dict, list, bool, type(None))):
        raise EncodeError(f"a key of type {type(key).__name__} cannot be written as JSON; use text", path=path)
    return simple if isinstance(simple, str) else repr(simple)
