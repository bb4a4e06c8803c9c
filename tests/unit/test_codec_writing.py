"""Values to bytes and to messages, and what JSON cannot say."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import json
import math
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from codec_values import (
    AWARE,
    HIDDEN,
    ID,
    NOW,
    ODD_ZONE,
    Box,
    Colour,
    Hoard,
    Item,
    Level,
    Order,
    Point,
    Size,
    Tree,
    nested,
)
from eventflows.codec import BINARY, JSON, TEXT, encode, to_messages
from eventflows.errors import EncodeError
from eventflows.message import Message, Messages
from eventflows.secret import Secret


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
