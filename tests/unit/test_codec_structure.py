"""JSON into the annotated types, and the annotations that are refused."""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import types
import typing
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import pytest

from codec_values import (
    AWARE,
    ID,
    NOTHING,
    NOW,
    Astray,
    Box,
    Checked,
    Colour,
    Item,
    Level,
    Order,
    Point,
    Raw,
    Reading,
    Size,
    Tree,
    UserId,
    plain,
)
from eventflows.codec import decoder
from eventflows.errors import ConfigError, DecodeError


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
