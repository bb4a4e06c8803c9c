"""Bytes to values by the annotation, values to bytes, and what is refused on the way."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import inspect
import json
import math
import pathlib
import subprocess
import sys
import types
import typing
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventflows.codec import BINARY, JSON, TEXT, decoder, encode, to_messages
from eventflows.errors import ConfigError, DecodeError, EncodeError
from eventflows.message import Message, Messages
from eventflows.secret import Secret

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


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("annotation", [NOTHING, Any, object])
def test_body_is_read_as_json_when_nothing_says_otherwise(annotation: object) -> None:
    """Without an annotation and without a content type, a body is JSON."""
    assert plain(annotation, b'{"a": [1, 2.5, "x", null, true]}') == {"a": [1, 2.5, "x", None, True]}


@pytest.mark.parametrize(
    ("content_type", "value"),
    [
        (None, 7),
        ("application/json", 7),
        ("application/cloudevents+json; charset=utf-8", 7),
        ("text/json", 7),
        ("text/plain; charset=utf-8", "7"),
        ("Text/CSV", "7"),
        ("application/octet-stream", b"7"),
        ("image/png", b"7"),
        ("application/x-protobuf", b"7"),
        ("application/x-www-form-urlencoded", 7),
    ],
)
def test_content_type_decides_when_there_is_no_annotation(content_type: str | None, value: object) -> None:
    """Text comes as text and binary as bytes when the message says so; anything else is JSON."""
    assert decoder(NOTHING).by_type(b"7", content_type) == value


def test_annotation_wins_over_the_content_type() -> None:
    """An annotated input is decoded by its annotation, whatever the message says."""
    assert decoder(bytes).by_type(b"7", "application/json") == b"7"


def test_bytes_are_given_byte_for_byte() -> None:
    """An input annotated bytes gets the raw body."""
    body = bytes(range(256))

    assert plain(bytes, body) is body


def test_str_is_given_as_utf8_text() -> None:
    """An input annotated str gets text, an empty body included."""
    assert [plain(str, "grün 🦆".encode()), plain(str, b"")] == ["grün 🦆", ""]


@pytest.mark.parametrize("body", [b"\xff", "\ud800".encode("utf-8", "surrogatepass")], ids=["latin", "surrogate"])
def test_str_is_refused_when_the_body_is_not_utf8(body: bytes) -> None:
    """A body that is no UTF-8 says at which byte."""
    with pytest.raises(DecodeError, match=r"\$: not UTF-8 at byte 0"):
        plain(str, body)


@pytest.mark.parametrize(
    ("annotation", "body", "value"),
    [
        (Order, b'{"items":[{"name":"a","price":3}],"more":1}', Order([Item("a", 3)])),
        (Box, b'{"width":3}', Box(3)),
        (Reading, b'{"value":3}', {"value": 3.0}),
        (Point, b"[1,2]", Point(1, 2)),
        (list[Point], b"[[1,2]]", [Point(1, 2)]),
        (list[Item], b'[{"name":"a","price":3}]', [Item("a", 3)]),
        (dict[str, list[int]], b'{"a":[1]}', {"a": [1]}),
        (dict[int, str], b'{"-1":"a"}', {-1: "a"}),
        (dict[float, str], b'{"1.5":"a"}', {1.5: "a"}),
        (dict[Colour, int], b'{"red":1}', {Colour.RED: 1}),
        (Mapping[str, int], b'{"a":1}', {"a": 1}),
        (Sequence[int], b"[1]", (1,)),
        (tuple[int, str], b'[1,"a"]', (1, "a")),
        (tuple[int, ...], b"[1,2]", (1, 2)),
        (set[int], b"[1,1]", {1}),
        (frozenset[str], b'["a"]', frozenset("a")),
        (list, b'[1,"a"]', [1, "a"]),
        (dict, b'{"a":[1]}', {"a": [1]}),
        (int | str, b'"a"', "a"),
        (Item | Box, b'{"width":3}', Box(3)),
        (Item | str, b'"a"', "a"),
        (float | None, b"3", 3.0),
        (Literal["a", 1], b"1", 1),
        (Literal[True, 1], b"1", 1),
        (Colour, b'"red"', Colour.RED),
        (Level, b"1", Level.LOW),
        (Size, b'"big"', Size.BIG),
        (dt.datetime, b'"2026-01-02T03:04:05.000678+05:30"', AWARE),
        (dt.datetime, b'"2026-01-02T03:04:05.000678"', NOW),
        (dt.date, b'"2026-01-02"', NOW.date()),
        (dt.time, b'"03:04:05"', dt.time(3, 4, 5)),
        (uuid.UUID, b'"00000000-0000-0000-0000-000000000007"', ID),
        (decimal.Decimal, b'"1.10"', decimal.Decimal("1.10")),
        (pathlib.Path, b'"a/b"', pathlib.Path("a/b")),
        (UserId, b"7", 7),
        (Annotated[int, "metres"], b"7", 7),
        (Tree, b'{"branches":[{"branches":[]}]}', Tree([Tree()])),
        (float, b"123456789012345678901234567890", 123456789012345678901234567890.0),
        (int, b"123456789012345678901234567890", 123456789012345678901234567890),
    ],
    ids=str,
)
def test_json_is_structured_into_the_annotation(annotation: object, body: bytes, value: object) -> None:
    """Every type of the list is made from its JSON, of exactly that type."""
    made = plain(annotation, body)

    assert (made, type(made)) == (value, type(value))


@pytest.mark.parametrize(
    ("annotation", "body", "text"),
    [
        (int, b'"3"', "$: expected int"),
        (int, b"3.5", "$: expected int"),
        (int, b"true", "$: expected int"),
        (float, b'"3"', "$: expected float"),
        (float, b"true", "$: expected float"),
        (list[str], b"[3]", "$[0]: expected str"),
        (list[str], b'"abc"', "$: expected list[str]"),
        (list[str], b'{"a":1}', "$: expected list[str]"),
        (Sequence[str], b'"abc"', "$: expected Sequence[str]"),
        (set[str], b'"abc"', "$: expected set[str]"),
        (bool, b"1", "$: expected bool"),
        (dict[str, int], b"[1]", "$: expected dict[str, int]"),
        (dict[int, str], b'{"01":"a"}', "$[...]: expected int"),
        (Order, b"[]", "$: expected Order"),
        (Order, b"null", "$: expected Order"),
        (Reading, b"[]", "$: expected Reading"),
        (int | str, b"3.5", "$: expected int | str"),
        (Item | Box, b"{}", "$: expected Item | Box"),
        (Literal["a", 1], b"true", "$: expected one of 'a', 1"),
        (Literal["a", 1], b"[]", "$: expected one of 'a', 1"),
        (Colour, b'"blue"', "$: expected Colour"),
        (Colour, b"3.0", "$: expected Colour"),
        (Level, b"true", "$: expected Level"),
        (list[Size], b'["huge"]', "$[0]: expected Size"),
        (dt.datetime, b"3", "$: expected an ISO 8601 date and time"),
        (uuid.UUID, b'"x"', "$: expected a UUID"),
        (decimal.Decimal, b'"x"', "$: expected a decimal"),
        (decimal.Decimal, b"true", "$: expected a decimal"),
        (tuple[int, str], b"[1]", "$: does not fit tuple[int, str] (ValueError)"),
        (list[Checked], b'[{"value":77777}]', "$[0]: does not fit Checked (ValueError)"),
        (Order, b'{"items":[{"name":"a","price":1},{"name":"a","price":"b"}]}', "$.items[1].price: expected int"),
        (Order, b'{"items":[{"name":"a"}]}', '$.items[0]: missing field "price"'),
        (Order, b'{"items":[{"name":1},{}]}', "$.items[0].name: expected str (and 3 more)"),
        (Reading, b"{}", '$: missing field "value"'),
        (Tree, b'{"branches":[{"branches":3}]}', "$.branches[0].branches: expected list[Tree]"),
        (dict[str, int], b'{"a-b":"x"}', "$.a-b: expected int"),
    ],
    ids=str,
)
def test_misfit_is_refused_by_its_path(annotation: object, body: bytes, text: str) -> None:
    """Nothing is converted by guess; the error says where in the document, and what was expected."""
    with pytest.raises(DecodeError) as caught:
        plain(annotation, body)

    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("annotation", "body"),
    [
        (int, '"hunter2"'),
        (Colour, '"hunter2"'),
        (dt.datetime, '"hunter2"'),
        (dict[str, int], '{"to hunter2": 1.5}'),
        (dict[str, list[int]], '{"hunter2 @ x\'] y\\n": ["hunter2"]}'),
        (NOTHING, '{"a": hunter2}'),
        (list[Checked], '[{"value": "hunter2"}]'),
        (Item | Box, '{"hunter2": "hunter2"}'),
    ],
    ids=str,
)
def test_decode_error_never_shows_what_the_body_says(annotation: object, body: str) -> None:
    """Neither values nor keys that may be data get into an error."""
    with pytest.raises(DecodeError) as caught:
        plain(annotation, body.encode())

    assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "empty body"),
        (b" \n", "empty body"),
        (b"{", "not JSON"),
        (b"{} x", "not JSON"),
        (b"NaN", "not JSON"),
        (b"[Infinity]", "not JSON"),
        (b"\x00", "not JSON"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'"\\ud800"', "not JSON"),
        (b"1e400", "a number too large"),
        (b"1" * 5000, "a number too large"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b"[" * 1000 + b"1" * 20 + b"]" * 1000, "nested too deeply"),
    ],
    ids=lambda value: str(value[:12]),
)
def test_undecodable_body_is_a_decode_error(body: bytes, text: str) -> None:
    """A body that is no JSON says what is wrong with it, and never crashes the process."""
    with pytest.raises(DecodeError, match=text):
        plain(NOTHING, body)


def test_deep_json_is_a_decode_error_when_a_class_nests_in_itself() -> None:
    """A body nested more deeply than Python's stack is refused, with a path fit for one line."""
    with pytest.raises(DecodeError, match="nested too deeply") as caught:
        plain(Tree, b'{"branches":[' * 500 + b"]}" * 500)

    assert len(str(caught.value)) < 150


def test_large_body_is_read() -> None:
    """Ten megabytes are one value like any other."""
    assert plain(NOTHING, b'["' + b"x" * 10_000_000 + b'"]') == ["x" * 10_000_000]


@pytest.mark.parametrize(
    "number",
    [
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        10**18,
        10**19,
        -(10**18),
        -(10**19),
        10**307,
    ],
)
@pytest.mark.parametrize("form", ["{}", "[{}]", '{{"a":{}}}', '{{"a": {} }}', '["{}",0.1,{}]', "[\n{}\n]"])
def test_integer_of_any_size_survives(number: int, form: str) -> None:
    """Integers beyond 64 bits are read digit by digit, wherever they stand."""
    body = form.format(number, number).encode()

    assert repr(plain(NOTHING, body)) == repr(json.loads(body))


@pytest.mark.parametrize("body", [b"0.12345678901234567890123", b"12345678901234567890.5", b"123456789012345678901e3"])
def test_float_with_many_digits_stays_a_float(body: bytes) -> None:
    """A long fraction is a float, as it is everywhere in JSON."""
    assert plain(NOTHING, body) == float(body)


def test_last_of_equal_keys_counts() -> None:
    """Of equal keys in one object the last one is taken, as documented."""
    assert plain(NOTHING, b'{"a":1,"a":2}') == {"a": 2}


@pytest.mark.parametrize("text", ["1.10", "0.12345678901234567890123", "12345678901234567890123", "-1e-30"])
def test_decimal_keeps_its_digits_when_it_is_a_number(text: str) -> None:
    """A Decimal is made of the digits as they were written, not of the float next to them."""
    made = plain(list[decimal.Decimal | None], f"[null, {text}]".encode())

    assert str(made) == str([None, decimal.Decimal(text)])


@pytest.mark.parametrize("annotation", [NOTHING, bytes | None, str | None, typing.Optional[Order], int | None])  # noqa: UP045
def test_tombstone_is_none_when_the_input_may_be_none(annotation: object) -> None:
    """A message without a body is None for an input that takes None, or anything."""
    assert plain(annotation, None) is None


@pytest.mark.parametrize("annotation", [bytes, str, Order, int])
def test_tombstone_is_refused_when_the_input_takes_no_none(annotation: object) -> None:
    """A message without a body says how to receive it."""
    with pytest.raises(DecodeError, match=r"\| None"):
        plain(annotation, None)


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (np.ndarray, "ndarray"),
        (list[types.SimpleNamespace], "SimpleNamespace"),
        (list[int] | dict[str, int], r"list\[int\] \| dict\[str, int\]"),
        (bytearray, "bytearray"),
        (dt.timedelta, "timedelta"),
        (Astray, "Nowhere"),
        ("Order", "Order"),
        (list[bytes], r"list\[bytes\] with bytes"),
        (bytes | str, r"bytes \| str with bytes"),
        (Raw, "Raw with bytes"),
        (list[Raw], "Raw with bytes"),
    ],
    ids=str,
)
def test_annotation_is_refused_when_json_cannot_be_made_into_it(annotation: object, name: str) -> None:
    """What can never be decoded is refused before the first message, by its name and with the way out."""
    with pytest.raises(ConfigError, match=rf"{name}.*\. Use bytes"):
        decoder(annotation)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(list[int], 3), (Sequence[int], 3), (list, 3), (NOTHING, 3), (list[str], "3"), (list[bytes], b"3")],
    ids=str,
)
def test_element_is_decoded_when_the_annotation_is_of_a_batch(annotation: object, value: object) -> None:
    """With batches, each body is one element of the annotated list."""
    assert decoder(annotation, batch=True).plain(b"3") == value


@pytest.mark.parametrize("annotation", [int, np.ndarray, dict[str, int]])
def test_annotation_is_refused_when_a_batch_is_no_list(annotation: object) -> None:
    """With batches, the input is a list."""
    with pytest.raises(ConfigError, match=r"list\[\.\.\.\]"):
        decoder(annotation, batch=True)


# --- encoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "body", "content_type"),
    [
        (b"\x00\xff", b"\x00\xff", BINARY),
        (bytearray(b"a"), b"a", BINARY),
        (memoryview(b"abcd")[::2], b"ac", BINARY),
        ("grün", "grün".encode(), TEXT),
        (Size.BIG, b"big", TEXT),
        ({"a": 1}, b'{"a":1}', JSON),
        (None, b"null", JSON),
    ],
    ids=["bytes", "bytearray", "memoryview", "str", "str enum", "dict", "None"],
)
def test_result_says_its_content_type(value: object, body: bytes, content_type: str) -> None:
    """Bytes are binary as they are, text is UTF-8, anything else is JSON."""
    assert encode(value) == (body, content_type)


ENCODABLE = {
    "attrs": (Item("a", 1), {"name": "a", "price": 1}),
    "attrs in attrs": (Order([Item("a", 1)]), {"items": [{"name": "a", "price": 1}], "note": None}),
    "dataclass": (Box(1), {"width": 1, "depth": 1.0}),
    "dataclass, private field": (Hoard(1), {"_hidden": 1}),
    "namedtuple": (Point(1, 2), [1, 2]),
    "tuple": ((1, "a"), [1, "a"]),
    "set": ({1}, [1]),
    "frozenset": (frozenset([1]), [1]),
    "deque": (collections.deque([1]), [1]),
    "ordered dict": (collections.OrderedDict(a=1), {"a": 1}),
    "default dict": (collections.defaultdict(int, a=1), {"a": 1}),
    "mapping proxy": (types.MappingProxyType({"a": 1}), {"a": 1}),
    "datetime, naive": (NOW, "2026-01-02T03:04:05.000678"),
    "datetime, aware": (AWARE, "2026-01-02T03:04:05.000678+05:30"),
    "datetime, odd zone": (ODD_ZONE, "2026-01-02T03:04:05.000678+00:19:32"),
    "date": (NOW.date(), "2026-01-02"),
    "time": (NOW.time(), "03:04:05.000678"),
    "uuid": (ID, "00000000-0000-0000-0000-000000000007"),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "decimal, many digits": (decimal.Decimal("0.12345678901234567890123"), "0.12345678901234567890123"),
    "decimal NaN": (decimal.Decimal("NaN"), "NaN"),
    "enum": ([Colour.RED, Colour.THREE, Level.LOW, Size.BIG], ["red", 3, 1, "big"]),
    "path": (pathlib.PurePosixPath("a/b"), "a/b"),
    "integer beyond 64 bits": ([2**64, -(2**63) - 1], [2**64, -(2**63) - 1]),
    "integer key": ({1: "a"}, {"1": "a"}),
    "float key": ({1.5: "a"}, {"1.5": "a"}),
    "bool and None keys": ({True: 1, None: 2}, {"true": 1, "null": 2}),
    "uuid key": ({ID: 1}, {str(ID): 1}),
    "enum key": ({Colour.RED: 1}, {"red": 1}),
    "date key": ({NOW.date(): 1}, {"2026-01-02": 1}),
    "numpy key": ({np.int64(1): 1, np.str_("a"): 2}, {"1": 1, "a": 2}),
    "numpy int": ([np.int8(-1), np.uint64(2**64 - 1)], [-1, 2**64 - 1]),
    "numpy float": ([np.float64(1.5), np.float32(0.1), np.float16(0.5)], [1.5, 0.1, 0.5]),
    "numpy bool": (np.bool_(True), True),
    "numpy str": ([np.str_("a")], ["a"]),
    "array": (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
    "array, not contiguous": (np.arange(6).reshape(2, 3).T[::2], [[0, 3], [2, 5]]),
    "array, 32 bits, not contiguous": (np.array([0.1, 0.2, 0.3], dtype=np.float32)[::2], [0.1, 0.3]),
    "array, other byte order": (np.arange(3, dtype=">i4"), [0, 1, 2]),
    "array, 0 dimensions": (np.array(5.5), 5.5),
    "array, empty": (np.zeros((2, 0)), [[], []]),
    "array of bool": (np.array([True, False]), [True, False]),
    "array of str": (np.array(["a", "b"]), ["a", "b"]),
    "array of objects": (np.array([1, "a", None], dtype=object), [1, "a", None]),
    "array, masked": (np.ma.array([1, 2], mask=[False, True]), [1, None]),
    "datetime64": (np.datetime64("2026-01-02T03:04:05.000678999"), "2026-01-02T03:04:05.000678"),
    "array of datetime64": (np.array(["2026-01-02"], dtype="datetime64[ns]"), ["2026-01-02T00:00:00"]),
}


@pytest.mark.parametrize(("value", "written"), ENCODABLE.values(), ids=ENCODABLE.keys())
def test_value_is_written_as_json(value: object, written: object) -> None:
    """Every type of the list is written as it is documented."""
    assert json.loads(encode([value])[0]) == [written]


@pytest.mark.parametrize(("value", "written"), ENCODABLE.values(), ids=ENCODABLE.keys())
def test_value_is_written_alike_when_its_neighbours_need_the_slow_way(value: object, written: object) -> None:
    """What stands beside a long integer, or beside null, is written as it is without them."""
    assert json.loads(encode([value, 2**70, None])[0]) == [written, 2**70, None]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "$: NaN cannot"),
        ({"scores": [1.0, 2.0, math.inf]}, "$.scores[2]: infinity cannot"),
        ({"a": None, "b": [-math.inf]}, "$.b[0]: infinity cannot"),
        (Box(1, math.nan), "$.depth: NaN cannot"),
        ({"x": np.array([[1, math.nan]])}, "$.x[0][1]: NaN cannot"),
        (np.array(math.nan), "$: NaN cannot"),
        ([np.float32("nan")], "$[0]: NaN cannot"),
        (np.array([math.nan], dtype=object), "$[0]: NaN cannot"),
        ({math.nan: 1}, "$: a key cannot be written: NaN"),
        (np.array(["NaT"], dtype="datetime64[s]"), "$[0]: NaT cannot"),
        ([np.datetime64("NaT")], "$[0]: NaT cannot"),
        ([np.timedelta64(1, "s")], "$[0]: a numpy timedelta64[s] cannot"),
        ([np.longdouble(1)], f"$[0]: a numpy {np.dtype(np.longdouble)} cannot"),
        ({"a": np.complex64(1)}, "$.a: a value of type complex cannot"),
        ({"a": b"x"}, "$.a: bytes cannot be written inside JSON; return them alone"),
        ({"a": [np.bytes_(b"x")]}, "$.a[0]: bytes cannot"),
        ("a\ud800", "$: a lone surrogate, at character 1,"),
        ({"a": ["\ud800"]}, "$.a[0]: a lone surrogate"),
        ({"\ud800": 1}, "$: a key cannot be written: a lone surrogate"),
        ({(1, 2): 1}, "$: a key of type tuple cannot"),
        ({b"a": 1}, "$: a key cannot be written: bytes"),
        ({1: "a", "1": "b"}, "$: two keys become the same text"),
        ({"a": 10**309}, "$.a: an integer of more than 308 digits"),
        ({"a": object()}, "$.a: a value of type object cannot"),
        ({"a": Item}, "$.a: the class Item cannot"),
        ([dt.timedelta(1)], "$[0]: a value of type timedelta cannot"),
        ([AWARE.timetz()], "$[0]: a time with a zone but no date cannot"),
        (nested(255), "nested more than 254 levels deep"),
        (nested(100_000), "nested more than 254 levels deep"),
    ],
    ids=lambda value: (
        str(type(value).__name__) if not isinstance(value, str) else value[:40].encode("utf-8", "replace")
    ),
)
def test_value_is_refused_by_its_path_when_json_cannot_say_it(value: object, text: str) -> None:
    """What JSON cannot say is refused, with its place and without the value."""
    with pytest.raises(EncodeError) as caught:
        encode(value)

    assert text in str(caught.value)


def test_circular_list_is_refused() -> None:
    """A list inside itself is an error, not an endless one."""
    circle: list[object] = []
    circle.append(circle)

    with pytest.raises(EncodeError, match="inside itself"):
        encode(circle)


def test_circular_object_is_refused() -> None:
    """An object inside itself is an error, not an endless one."""
    tree = Tree()
    tree.branches.append(tree)

    with pytest.raises(EncodeError, match="inside itself"):
        encode(tree)


def test_value_is_written_when_it_is_as_deep_as_is_allowed() -> None:
    """The limit of nesting is the same with null in the document, and without."""
    assert [json.loads(encode(nested(254, value))[0]) for value in (1, None)] == [nested(254, 1), nested(254)]


@pytest.mark.parametrize(
    "value",
    [Secret(HIDDEN), {"a": Secret(HIDDEN)}, {("hunter2",): 1}, {"hunter2 x": math.nan}],
    ids=["secret", "inside", "key", "path"],
)
def test_encode_error_never_shows_the_value(value: object) -> None:
    """An error about a result does not show the result, nor a secret in it."""
    with pytest.raises(EncodeError) as caught:
        encode(value)

    assert HIDDEN not in str(caught.value)


def test_property_that_raises_is_an_encode_error() -> None:
    """A field that was never set does not break out of the codec."""
    item = Item.__new__(Item)

    with pytest.raises(EncodeError, match="AttributeError"):
        encode(item)


def test_large_result_is_written() -> None:
    """Ten megabytes are one value like any other."""
    assert len(encode({"a": ["x" * 100] * 100_000})[0]) > 10_000_000


def test_cached_property_of_a_dataclass_is_no_field() -> None:
    """A dataclass is written by its fields, whatever else it has come to hold."""
    hoard = Hoard(1)
    assert hoard.computed == 4

    assert encode(hoard)[0] == b'{"_hidden":1}'


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import eventflows.codec", {"orjson", "cattrs", "numpy"}),
        ("import eventflows.codec as c; c.encode({'a': {1}}); c.decoder(int)", {"numpy"}),
    ],
    ids=["import", "use"],
)
def test_library_is_not_imported_before_it_is_needed(code: str, absent: set[str]) -> None:
    """Importing the codec is cheap, and it never imports numpy."""
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )

    assert absent.isdisjoint(shown.stdout.split())


# --- messages --------------------------------------------------------------------------------------------------------


def test_none_makes_no_message() -> None:
    """An apply that returns None publishes nothing."""
    assert to_messages(None) == []


def test_message_is_published_as_it_is() -> None:
    """A Message keeps its own key and headers."""
    message = Message(b"x", key="own")

    assert to_messages(message, key="other", headers={"h": "1"}) == [message]


def test_value_becomes_one_message_with_key_and_headers() -> None:
    """Any other result is one message."""
    made = to_messages({"a": 1}, key="k", headers={"h": "1"})

    assert made == [Message(b'{"a":1}', headers={"h": "1"}, key="k", content_type=JSON)]


def test_messages_are_flattened_in_order() -> None:
    """Several results are several messages; None among them is none."""
    made = to_messages(Messages([b"1", None, Message(b"2", key="own"), Messages(["3"])]), key="k")

    assert [(message.body, message.key) for message in made] == [(b"1", "k"), (b"2", "own"), (b"3", "k")]


# --- properties ------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"))
numbers = st.integers(-(10**300), 10**300) | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=20,
)
anything = st.recursive(
    documents
    | st.floats()
    | st.binary()
    | st.datetimes()
    | st.uuids()
    | st.decimals()
    | st.text()
    | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@settings(print_blob=True, deadline=None)
@given(documents.filter(lambda value: not isinstance(value, str)))
def test_document_comes_back_as_it_was(value: object) -> None:
    """Whatever JSON can say survives writing and reading, integers of any size included."""
    assert plain(NOTHING, encode(value)[0]) == value


@settings(print_blob=True, deadline=None)
@given(anything)
def test_value_is_written_or_refused(value: object) -> None:
    """Any value is written, or refused with an EncodeError; nothing else ever comes out."""
    with contextlib.suppress(EncodeError):
        body, content_type = encode(value)
        assert content_type != JSON or plain(NOTHING, body) is not NOTHING


@settings(print_blob=True, deadline=None)
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_body_is_read_or_refused(body: bytes) -> None:
    """Any body is read, or refused with a DecodeError; nothing else ever comes out."""
    for annotation in (NOTHING, str, Order, list[Any]):
        with contextlib.suppress(DecodeError):
            plain(annotation, body)


TYPED = [
    (Order, st.builds(Order, st.lists(st.builds(Item, texts, numbers.filter(lambda n: isinstance(n, int)))), texts)),
    (dict[int, decimal.Decimal], st.dictionaries(st.integers(), st.decimals(allow_nan=False))),
    (list[dt.datetime], st.lists(st.datetimes(timezones=st.none() | st.just(dt.UTC)))),
    (dict[uuid.UUID, dt.date], st.dictionaries(st.uuids(), st.dates())),
    (list[Colour | None], st.lists(st.sampled_from(Colour) | st.none())),
    (list[Level], st.lists(st.sampled_from(Level))),
    (set[int], st.sets(st.integers(-(10**30), 10**30))),
]


@pytest.mark.parametrize(("annotation", "values"), TYPED, ids=[str(annotation) for annotation, _ in TYPED])
def test_typed_value_comes_back_as_it_was(annotation: object, values: st.SearchStrategy[object]) -> None:
    """What one flow returns, the next one gets, of the same type."""
    decode = decoder(annotation).plain

    @settings(print_blob=True, deadline=None, max_examples=50)
    @given(values)
    def check(value: object) -> None:
        assert repr(decode(encode(value)[0])) == repr(value) or decode(encode(value)[0]) == value

    check()
