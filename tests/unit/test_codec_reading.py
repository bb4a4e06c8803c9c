"""Bytes to values: content types, JSON and what is refused of it."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Callable
from typing import Any

import pytest

from codec_values import HIDDEN, NOTHING, Box, Checked, Colour, Item, Tree, plain
from eventflows.codec import decoder
from eventflows.errors import DecodeError


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


def outcome(read: Callable[[bytes | None], object], body: bytes | None) -> str:
    """Say what reading gives, or what it says is wrong."""
    try:
        return repr(read(body))
    except DecodeError as error:
        return f"refused: {error}"


SHORT = (b'{"a": 1.5}', b"[1, 2]", b'{"a": ', b"", b"  ", b'{"a": NaN}', b"1234567890123456789.5"[3:])
LONG = (b'{"a": 123456789012345678901}', b"-9223372036854775809", b'{"a": 0.12345678901234567890123}')


@pytest.mark.parametrize("annotation", [NOTHING, dict[str, Any], dict | None, list[int], str, bytes])
@pytest.mark.parametrize(
    "bodies",
    [SHORT, SHORT + LONG, (*SHORT, None), (None,), (b"1" * 10, b"2" * 10), (b'"' + b"x" * 2**20 + b'"', *LONG), ()],
    ids=["short", "with long integers", "with a tombstone", "a tombstone", "digits on end", "large", "none"],
)
def test_body_is_read_the_same_when_it_came_with_others(annotation: object, bodies: tuple[bytes | None, ...]) -> None:
    """What is read of a body, or said to be wrong with it, does not depend on what it came with."""
    made = decoder(annotation)
    read = made.reader(bodies)

    assert [outcome(read, body) for body in bodies] == [outcome(made.plain, body) for body in bodies]


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
