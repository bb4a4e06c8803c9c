"""Classes, values and a reader that the tests of the codec share."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import inspect
import uuid
from typing import NamedTuple, NewType, TypedDict

import attrs

from eventflows.codec import decoder

NOTHING = inspect.Parameter.empty
HIDDEN = "hunter2"


class Colour(enum.Enum):
    """An enum of text and a number."""

    RED = "red"
    THREE = 3


class Level(enum.IntEnum):
    """Numbers with names."""

    LOW = 1


class Size(enum.StrEnum):
    """Texts with names."""

    BIG = "big"


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: int


@attrs.define
class Item:
    """An attrs class."""

    name: str
    price: int


@attrs.define
class Order:
    """An attrs class of attrs classes."""

    items: list[Item]
    note: str | None = None


@dataclasses.dataclass
class Box:
    """A dataclass."""

    width: int
    depth: float = 1.0


@dataclasses.dataclass
class Hoard:
    """A dataclass with more than its public fields."""

    _hidden: int

    @functools.cached_property
    def computed(self) -> int:
        return 4


class Reading(TypedDict):
    """A typed dict."""

    value: float


@attrs.define
class Checked:
    """An attrs class with a validator."""

    value: int = attrs.field(validator=attrs.validators.lt(10))


@attrs.define
class Tree:
    """A class of itself."""

    branches: list[Tree] = attrs.field(factory=list)


@attrs.define
class Astray:
    """A class with an annotation that names nothing."""

    field: Nowhere  # type: ignore[name-defined] # noqa: F821 - that is the case


@attrs.define
class Raw:
    """A class that JSON cannot fill."""

    data: bytes


UserId = NewType("UserId", int)
NOW = dt.datetime(2026, 1, 2, 3, 4, 5, 678)
AWARE = NOW.replace(tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=30)))
ODD_ZONE = NOW.replace(tzinfo=dt.timezone(dt.timedelta(minutes=19, seconds=32)))
ID = uuid.UUID(int=7)


def plain(annotation: object, body: bytes | None) -> object:
    """Decode a body that says no content type."""
    return decoder(annotation).plain(body)


def nested(levels: int, value: object = None) -> object:
    """Put lists into lists."""
    for _ in range(levels):
        value = [value]
    return value
