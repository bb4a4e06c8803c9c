"""AMQP 1.0 types: bytes to values and back.

Integers are decoded to subclasses that keep their width, so that what is read is written again with the same type.
A bare `int` has no AMQP type and is refused.

Source: OASIS AMQP 1.0, part 1, types.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from typing import Any, Final


class UByte(int):
    """8 bits, unsigned."""


class UShort(int):
    """16 bits, unsigned."""


class UInt(int):
    """32 bits, unsigned."""


class ULong(int):
    """64 bits, unsigned."""


class Byte(int):
    """8 bits."""


class Short(int):
    """16 bits."""


class Int(int):
    """32 bits."""


class Long(int):
    """64 bits."""


class Timestamp(int):
    """Milliseconds since 1970."""


class Single(float):
    """32 bits; a plain float has 64."""


class Char(str):
    """One character."""


class Symbol(str):
    """A name, in ASCII."""


class Raw(bytes):
    """A value that is encoded already, code and all; decimals are kept so."""


class Array(list[Any]):
    """Values of one type."""


class Described:
    """A value with a descriptor, which says what it is."""

    __slots__ = ("descriptor", "value")

    def __init__(self, descriptor: object, value: Any) -> None:
        self.descriptor = descriptor
        self.value = value

    def __eq__(self, other: object) -> bool:
        """Compare both."""
        return isinstance(other, Described) and (self.descriptor, self.value) == (other.descriptor, other.value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show both."""
        return f"Described({self.descriptor!r}, {self.value!r})"


class CodecError(ValueError):
    """The bytes are not AMQP, or the value has no AMQP type."""


_FIXED: Final[dict[int, tuple[Callable[[Any], Any], struct.Struct]]] = {
    0x50: (UByte, struct.Struct(">B")),
    0x51: (Byte, struct.Struct(">b")),
    0x52: (UInt, struct.Struct(">B")),
    0x53: (ULong, struct.Struct(">B")),
    0x54: (Int, struct.Struct(">b")),
    0x55: (Long, struct.Struct(">b")),
    0x56: (bool, struct.Struct(">B")),
    0x60: (UShort, struct.Struct(">H")),
    0x61: (Short, struct.Struct(">h")),
    0x70: (UInt, struct.Struct(">I")),
    0x71: (Int, struct.Struct(">i")),
    0x72: (Single, struct.Struct(">f")),
    0x73: (lambda point: Char(chr(point)), struct.Struct(">I")),
    0x80: (ULong, struct.Struct(">Q")),
    0x81: (Long, struct.Struct(">q")),
    0x82: (float, struct.Struct(">d")),
    0x83: (Timestamp, struct.Struct(">q")),
    0x98: (lambda value: uuid.UUID(bytes=value), struct.Struct(">16s")),
}
_EMPTY: Final[dict[int, Callable[[], Any]]] = {
    0x40: lambda: None,
    0x41: lambda: True,
    0x42: lambda: False,
    0x43: lambda: UInt(0),
    0x44: lambda: ULong(0),
    0x45: list,
}
_DECIMALS: Final = {0x74: 4, 0x84: 8, 0x94: 16}
_VARIABLE: Final[dict[int, Callable[[bytes], Any]]] = {
    0xA0: bytes,
    0xB0: bytes,
    0xA1: lambda raw: raw.decode("utf-8"),
    0xB1: lambda raw: raw.decode("utf-8"),
    0xA3: lambda raw: Symbol(raw.decode("ascii")),
    0xB3: lambda raw: Symbol(raw.decode("ascii")),
}
_SIZE4: Final = struct.Struct(">I")
_PAIR4: Final = struct.Struct(">II")


def decode(data: bytes, at: int = 0) -> tuple[Any, int]:
    """Read one value; gives it and where the next one begins.

    Raises:
        CodecError: The bytes are cut, or no AMQP.
    """
    try:
        if data[at] == 0:
            descriptor, at = decode(data, at + 1)
            value, at = decode(data, at)
            return Described(descriptor, value), at
        return _bare(data[at], data, at + 1)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise CodecError(f"cut or broken at byte {at}: {type(error).__name__}") from error


def _bare(code: int, data: bytes, at: int) -> tuple[Any, int]:
    if code in _VARIABLE:
        size, at = (data[at], at + 1) if code < 0xB0 else (_SIZE4.unpack_from(data, at)[0], at + 4)
        if at + size > len(data):
            raise CodecError(f"{size} bytes promised at {at}, {len(data) - at} there")
        return _VARIABLE[code](bytes(data[at : at + size])), at + size
    if code in _FIXED:
        kind, form = _FIXED[code]
        return kind(form.unpack_from(data, at)[0]), at + form.size
    if code in _EMPTY:
        return _EMPTY[code](), at
    if code in _DECIMALS:
        end = at + _DECIMALS[code]
        if end > len(data):
            raise CodecError(f"{_DECIMALS[code]} bytes promised at {at}, {len(data) - at} there")
        return Raw(bytes((code,)) + data[at:end]), end
    return _compound(code, data, at)


def _compound(code: int, data: bytes, at: int) -> tuple[Any, int]:
    if code in (0xC0, 0xC1, 0xE0):
        size, count, start, end = data[at], data[at + 1], at + 2, at + 1 + data[at]
    elif code in (0xD0, 0xD1, 0xF0):
        size, count = _PAIR4.unpack_from(data, at)
        start, end = at + 8, at + 4 + size
    else:
        raise CodecError(f"{code:#04x} is no AMQP type")
    if end > len(data):
        raise CodecError(f"{size} bytes promised at {at}, {len(data) - at} there")
    if code in (0xE0, 0xF0):
        return _array(count, data, start), end
    values = []
    for _ in range(count):
        value, start = decode(data, start)
        values.append(value)
    if start != end:
        raise CodecError(f"a list or map of {end - start} bytes more than its {count} values")
    if code in (0xC0, 0xD0):
        return values, end
    return dict(zip(values[::2], values[1::2], strict=True)), end


def _array(count: int, data: bytes, at: int) -> Array:
    descriptor: object = None
    described = data[at] == 0
    if described:
        descriptor, at = decode(data, at + 1)
    code, at = data[at], at + 1
    values = Array()
    for _ in range(count):
        value, at = _bare(code, data, at)
        values.append(Described(descriptor, value) if described else value)
    return values


def encode(value: Any) -> bytes:
    """Write one value.

    Raises:
        CodecError: It has no AMQP type.
    """
    writer = _WRITERS.get(type(value))
    if writer is None:
        raise CodecError(f"{type(value).__name__} has no AMQP type")
    return writer(value)


def _sized(short: int, raw: bytes) -> bytes:
    if len(raw) < 256:
        return bytes((short, len(raw))) + raw
    return bytes((short + 0x10,)) + _SIZE4.pack(len(raw)) + raw


def compound(short: int, long: int, count: int, body: bytes) -> bytes:
    """Write a list or map of values that are encoded already."""
    if len(body) < 255 and count < 256:
        return bytes((short, len(body) + 1, count)) + body
    return bytes((long,)) + _PAIR4.pack(len(body) + 4, count) + body


def _number(code: int) -> Callable[[Any], bytes]:
    form = _FIXED[code][1]
    return lambda value: bytes((code,)) + form.pack(value)


def _small(code: int, short: int, zero: int | None, *, signed: bool) -> Callable[[Any], bytes]:
    form = _FIXED[code][1]

    def write(value: int) -> bytes:
        if value == 0 and zero is not None:
            return bytes((zero,))
        if (-128 <= value < 128) if signed else (0 <= value < 256):
            return bytes((short, value & 0xFF))
        return bytes((code,)) + form.pack(value)

    return write


def _array_of(values: Array) -> bytes:
    kinds = {type(value) for value in values} or {bytes}
    if len(kinds) != 1:
        raise CodecError("an array has values of one type")
    code, write = _ELEMENTS[kinds.pop()]
    body = bytes((code,)) + b"".join(map(write, values))
    return b"\xf0" + _PAIR4.pack(len(body) + 4, len(values)) + body


def _element(code: int) -> tuple[int, Callable[[Any], bytes]]:
    return code, _FIXED[code][1].pack


def _long_element(code: int, turn: Callable[[Any], bytes]) -> tuple[int, Callable[[Any], bytes]]:
    def write(value: Any) -> bytes:
        raw = turn(value)
        return _SIZE4.pack(len(raw)) + raw

    return code, write


_ELEMENTS: Final[dict[type, tuple[int, Callable[[Any], bytes]]]] = {
    UInt: _element(0x70),
    Int: _element(0x71),
    ULong: _element(0x80),
    Long: _element(0x81),
    Timestamp: _element(0x83),
    uuid.UUID: (0x98, lambda value: value.bytes),
    bytes: _long_element(0xB0, bytes),
    str: _long_element(0xB1, lambda text: text.encode("utf-8")),
    Symbol: _long_element(0xB3, lambda text: text.encode("ascii")),
}
_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    type(None): lambda _: b"\x40",
    bool: lambda value: b"\x41" if value else b"\x42",
    UByte: _number(0x50),
    Byte: _number(0x51),
    UShort: _number(0x60),
    Short: _number(0x61),
    UInt: _small(0x70, 0x52, 0x43, signed=False),
    ULong: _small(0x80, 0x53, 0x44, signed=False),
    Int: _small(0x71, 0x54, None, signed=True),
    Long: _small(0x81, 0x55, None, signed=True),
    Timestamp: _number(0x83),
    Single: _number(0x72),
    float: _number(0x82),
    Char: lambda text: b"\x73" + _SIZE4.pack(ord(text)),
    uuid.UUID: lambda value: b"\x98" + value.bytes,
    bytes: lambda raw: _sized(0xA0, raw),
    bytearray: lambda raw: _sized(0xA0, bytes(raw)),
    str: lambda text: _sized(0xA1, text.encode("utf-8")),
    Symbol: lambda text: _sized(0xA3, text.encode("ascii")),
    Raw: bytes,
    list: lambda values: compound(0xC0, 0xD0, len(values), b"".join(map(encode, values))),
    dict: lambda pairs: compound(
        0xC1, 0xD1, 2 * len(pairs), b"".join(encode(key) + encode(value) for key, value in pairs.items())
    ),
    Array: _array_of,
    Described: lambda value: b"\x00" + encode(value.descriptor) + encode(value.value),
}
