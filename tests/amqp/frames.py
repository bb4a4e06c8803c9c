"""AMQP 1.0 frames and performatives.

Every field is written, nulls included: one of the vendor's clients fails where trailing ones are left out.

Source: OASIS AMQP 1.0, parts 2 (transport), 3.4 (delivery states), 5.3 (SASL).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any, Final

from amqp.codec import CodecError, Described, Symbol, UByte, UInt, ULong, UShort, compound, decode, encode

AMQP: Final = b"AMQP\x00\x01\x00\x00"
SASL: Final = b"AMQP\x03\x01\x00\x00"
MAX_FRAME: Final = 1 << 20

Field = tuple[str, Callable[[Any], Any] | None]


def _fields(text: str) -> tuple[Field, ...]:
    kinds = {"I": UInt, "H": UShort, "B": UByte, "Q": ULong, "s": Symbol}
    named = (part.partition(":") for part in text.split())
    return tuple((name, kinds.get(kind)) for name, _, kind in named)


_TABLE: Final[dict[str, tuple[int, tuple[Field, ...]]]] = {
    "open": (
        0x10,
        _fields(
            "container_id hostname max_frame_size:I channel_max:H idle_time_out:I outgoing_locales incoming_locales "
            "offered_capabilities desired_capabilities properties"
        ),
    ),
    "begin": (
        0x11,
        _fields(
            "remote_channel:H next_outgoing_id:I incoming_window:I outgoing_window:I handle_max:I "
            "offered_capabilities desired_capabilities properties"
        ),
    ),
    "attach": (
        0x12,
        _fields(
            "name handle:I role snd_settle_mode:B rcv_settle_mode:B source target unsettled incomplete_unsettled "
            "initial_delivery_count:I max_message_size:Q offered_capabilities desired_capabilities properties"
        ),
    ),
    "flow": (
        0x13,
        _fields(
            "next_incoming_id:I incoming_window:I next_outgoing_id:I outgoing_window:I handle:I delivery_count:I "
            "link_credit:I available:I drain echo properties"
        ),
    ),
    "transfer": (
        0x14,
        _fields(
            "handle:I delivery_id:I delivery_tag message_format:I settled more rcv_settle_mode:B state resume aborted "
            "batchable"
        ),
    ),
    "disposition": (0x15, _fields("role first:I last:I settled state batchable")),
    "detach": (0x16, _fields("handle:I closed error")),
    "end": (0x17, _fields("error")),
    "close": (0x18, _fields("error")),
    "sasl_mechanisms": (0x40, _fields("mechanisms")),
    "sasl_init": (0x41, _fields("mechanism:s initial_response hostname")),
    "sasl_outcome": (0x44, _fields("code:B additional_data")),
}
_BY_CODE: Final = {code: (name, [field for field, _ in fields]) for name, (code, fields) in _TABLE.items()}

ACCEPTED: Final = Described(ULong(0x24), [])
RELEASED: Final = Described(ULong(0x26), [])


def error(condition: str, description: str = "") -> Described:
    """Make an error with all three of its fields: both vendor's clients hang for ever without the third."""
    return Described(ULong(0x1D), [Symbol(condition), description, {}])


def rejected(why: Described | None = None) -> Described:
    """Make the outcome `rejected`."""
    return Described(ULong(0x25), [why])


def modified(*, failed: bool, elsewhere: bool = False) -> Described:
    """Make the outcome `modified`."""
    return Described(ULong(0x27), [failed, elsewhere, None])


class Performative:
    """What a frame says: its kind, and its fields as attributes; one that is not given is None."""

    def __init__(self, kind: str, /, **fields: Any) -> None:
        self.kind = kind
        self.__dict__.update(dict.fromkeys(field for field, _ in _TABLE[kind][1]), **fields)

    def __getattr__(self, field: str) -> Any:
        """Refuse a field that this performative does not have."""
        raise AttributeError(f"{self.kind} has no field {field}")

    def __repr__(self) -> str:
        """Show what is not None."""
        given = ", ".join(f"{k}={v!r}" for k, v in self.__dict__.items() if k != "kind" and v is not None)
        return f"{self.kind}({given})"

    def encode(self) -> bytes:
        """Write it with all its fields."""
        code, fields = _TABLE[self.kind]
        values = []
        for field, kind in fields:
            value = getattr(self, field)
            values.append(encode(value if kind is None or value is None else kind(value)))
        return b"\x00\x53" + bytes((code,)) + compound(0xC0, 0xD0, len(values), b"".join(values))


def performative(data: bytes) -> tuple[Performative, bytes]:
    """Read a frame's body: what it says, and the payload behind.

    Raises:
        CodecError: It is not a performative.
    """
    value, end = decode(data)
    if not isinstance(value, Described) or value.descriptor not in _BY_CODE or not isinstance(value.value, list):
        raise CodecError("a frame without a performative")
    name, fields = _BY_CODE[value.descriptor]  # type: ignore[index]
    return Performative(name, **dict(zip(fields, value.value, strict=False))), data[end:]


def frame(channel: int, body: bytes, kind: int = 0) -> bytes:
    """Write one frame; an empty body is a heartbeat."""
    return struct.pack(">IBBH", 8 + len(body), 2, kind, channel) + body


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Read one frame: its kind, its channel and its body.

    Raises:
        CodecError: The head is no frame's.
        asyncio.IncompleteReadError: The connection ended.
    """
    size, offset, kind, channel = struct.unpack(">IBBH", await reader.readexactly(8))
    if not 8 <= 4 * offset <= size or size > 2 * MAX_FRAME:
        raise CodecError(f"a frame of {size} bytes whose body begins at {4 * offset}")
    rest = await reader.readexactly(size - 8)
    return kind, channel, rest[4 * offset - 8 :]
