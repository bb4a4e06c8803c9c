"""What is written comes back, for values that nobody thought of."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec_values import NOTHING, Colour, Item, Level, Order, plain
from eventflows.codec import JSON, decoder, encode
from eventflows.errors import DecodeError, EncodeError

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
