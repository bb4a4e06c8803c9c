"""What reading and writing share: the fields of a class, and the path to a place in a document."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

Plain = Callable[[bytes | None], object]
Together = Callable[[Sequence[bytes | None]], Plain]

_SHOWN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}")


def fields(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 - an attrs class or a dataclass
    return tuple(attrs.fields(kind)) if attrs.has(kind) else dataclasses.fields(kind)


@functools.lru_cache(maxsize=1024)
def field_names(kind: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - a class
    known = attrs.has(kind) or dataclasses.is_dataclass(kind)
    return tuple(field.name for field in fields(kind)) if known else None


def below(path: str, place: object) -> str:
    if isinstance(place, int):
        return f"{path}[{place}]"
    shown = isinstance(place, str) and _SHOWN_KEY.fullmatch(place)
    return f"{path}.{place}" if shown else f"{path}[...]"  # a key may be data, such as an address


def cut(path: str) -> str:
    return path if len(path) <= 80 else f"{path[:77]}..."
