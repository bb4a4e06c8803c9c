"""AMQP's types and frames, against bytes written by hand from the specification."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from amqp.codec import (
    Array,
    Byte,
    Char,
    CodecError,
    Described,
    Int,
    Long,
    Raw,
    Short,
    Single,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
)
from amqp.frames import Performative, frame, performative, read_frame
from amqp.stored import BATCH, Stored, section, unpack

VECTORS: list[tuple[str, Any]] = [
    ("40", None),
    ("41", True),
    ("42", False),
    ("5601", True),
    ("50ff", UByte(255)),
    ("51ff", Byte(-1)),
    ("60ffff", UShort(65535)),
    ("618000", Short(-32768)),
    ("43", UInt(0)),
    ("5207", UInt(7)),
    ("7000000100", UInt(256)),
    ("44", ULong(0)),
    ("5307", ULong(7)),
    ("800000000000000100", ULong(256)),
    ("54ff", Int(-1)),
    ("717fffffff", Int(2**31 - 1)),
    ("5580", Long(-128)),
    ("81ffffffffffffff7f", Long(-129)),
    ("72" + "3f800000", Single(1.0)),
    ("82" + "3ff0000000000000", 1.0),
    ("7300000041", Char("A")),
    ("83000000000000002a", Timestamp(42)),
    ("98" + "00" * 15 + "01", uuid.UUID(int=1)),
    ("7401020304", Raw(b"\x74\x01\x02\x03\x04")),
    ("a003010203", b"\x01\x02\x03"),
    ("b000000002" + "0102", b"\x01\x02"),
    ("a103" + b"abc".hex(), "abc"),
    ("b100000002" + "c3a9", "é"),
    ("a303" + b"abc".hex(), Symbol("abc")),
    ("45", []),
    ("c00402" + "5207" + "41", [UInt(7), True]),
    ("c10602" + "a1016b" + "5201", {"k": UInt(1)}),
    ("e00602a3" + "0161" + "0162", Array([Symbol("a"), Symbol("b")])),
    ("f00000000d00000002" + "71" + "00000001" + "00000002", Array([Int(1), Int(2)])),
    ("005324" + "45", Described(ULong(0x24), [])),
]


@pytest.mark.parametrize(("text", "value"), VECTORS, ids=[text for text, _ in VECTORS])
def test_decode_reads_the_bytes_of_the_specification(text: str, value: Any) -> None:
    """Each encoding gives its value, of its type, and ends where the bytes end."""
    data = bytes.fromhex(text)
    got, end = decode(data)
    assert (got, type(got), end) == (value, type(value), len(data))


@pytest.mark.parametrize("value", [value for _, value in VECTORS], ids=repr)
def test_encode_is_undone_by_decode(value: Any) -> None:
    """What is written is read as the same value of the same type."""
    got, _ = decode(encode(value))
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize("size", [0, 1, 254, 255, 256, 70_000])
def test_encode_keeps_bytes_text_and_lists_of_any_size(size: int) -> None:
    """The short and the long form of each type meet without a gap."""
    for value in (b"x" * size, "x" * size, [None] * size, dict.fromkeys(map(Long, range(size)), True)):
        assert decode(encode(value))[0] == value


@pytest.mark.parametrize("text", [text for text, _ in VECTORS if len(text) > 2])
def test_decode_refuses_bytes_that_are_cut(text: str) -> None:
    """A value without its last byte is an error, never another value."""
    with pytest.raises(CodecError):
        decode(bytes.fromhex(text)[:-1])


def test_encode_refuses_a_bare_int() -> None:
    """A number has a width, or it is not written."""
    with pytest.raises(CodecError, match="int"):
        encode(5)


def test_a_performative_is_written_with_all_its_fields() -> None:
    """Trailing nulls are kept: a vendor's client counts fields."""
    raw = Performative("begin", next_outgoing_id=0, incoming_window=1, outgoing_window=1).encode()
    said, payload = performative(raw)
    assert (len(decode(raw)[0].value), said.remote_channel, said.incoming_window, payload) == (8, None, 1, b"")


def test_a_performative_of_fewer_fields_is_read() -> None:
    """A peer may leave trailing nulls out."""
    said, payload = performative(bytes.fromhex("005316" + "c00402" + "5205" + "41") + b"rest")
    assert (said.kind, said.handle, said.closed, said.error, payload) == ("detach", 5, True, None, b"rest")


def test_a_frame_is_read_from_pieces() -> None:
    """Frames arrive as the network cuts them, down to single bytes."""

    async def read() -> list[tuple[int, int, bytes]]:
        reader = asyncio.StreamReader()
        waiting = asyncio.ensure_future(read_frame(reader))
        for byte in frame(7, b"body") + frame(0, b""):
            reader.feed_data(bytes((byte,)))
            await asyncio.sleep(0)
        return [await waiting, await read_frame(reader)]

    assert asyncio.run(read()) == [(0, 7, b"body"), (0, 0, b"")]


def test_a_frame_with_a_broken_head_is_refused() -> None:
    """A length below that of the head would never end."""

    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(bytes.fromhex("0000000702000000"))
        await read_frame(reader)

    with pytest.raises(CodecError):
        asyncio.run(read())


def test_a_stored_message_keeps_its_body_and_properties_byte_for_byte() -> None:
    """Only header and annotations are rewritten."""
    tail = section(0x73, ["id", None, "to"]) + section(0x75, b"\x00body") + section(0x75, b"more")
    kept = Stored(section(0x70, [True, None, UInt(5000)]) + tail)
    kept.count = 2
    assert kept.payload().endswith(tail)
    assert (kept.message_id, kept.lives, Stored(kept.payload()).header[4]) == ("id", 5.0, 2)


def test_a_batch_is_taken_apart() -> None:
    """An envelope's data sections are whole messages."""
    inner = [section(0x73, [name]) + section(0x75, b"x") for name in ("a", "b")]
    assert [one.message_id for one in unpack(b"".join(section(0x75, one) for one in inner), BATCH)] == ["a", "b"]
