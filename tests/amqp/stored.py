"""Messages as the broker keeps them: header and annotations are rewritten, the rest stays byte for byte.

Source: OASIS AMQP 1.0, part 3.2 (message format); the names of the annotations are Service Bus's.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

from amqp.codec import Described, Int, Long, Symbol, Timestamp, UInt, ULong, decode, encode

BATCH: Final = 0x80013700
SEQUENCE: Final = Symbol("x-opt-sequence-number")
ENQUEUED: Final = Symbol("x-opt-enqueued-time")
SCHEDULED: Final = Symbol("x-opt-scheduled-enqueue-time")
LOCKED_UNTIL: Final = Symbol("x-opt-locked-until")
STATE: Final = Symbol("x-opt-message-state")
OFFSET: Final = Symbol("x-opt-offset")
PARTITION_KEY: Final = Symbol("x-opt-partition-key")
LOCK_TOKEN: Final = Symbol("x-opt-lock-token")
ACTIVE, DEFERRED, WAITING = 0, 1, 2


def section(code: int, value: object) -> bytes:
    """Write one section."""
    return encode(Described(ULong(code), value))


class Lock:
    """The right of one receiver to settle one delivery.

    Args:
        until: Its end, in seconds since 1970.
        holder: Who has it.
    """

    __slots__ = ("holder", "token", "until")

    def __init__(self, until: float, holder: object) -> None:
        self.token = uuid.uuid4()
        self.until = until
        self.holder = holder

    @property
    def tag(self) -> bytes:
        """The token as the delivery's tag: a GUID of little-endian parts."""
        return self.token.bytes_le


class Stored:
    """One message.

    Args:
        payload: As it was sent.
    """

    def __init__(self, payload: bytes) -> None:
        self.header: list[Any] = []
        self.annotations: dict[Any, Any] = {}
        self.properties: list[Any] = []
        self.values: dict[Any, Any] | None = None
        """The application properties."""
        self.size = len(payload)
        self._properties = b""
        self._rest = b""
        self._split(payload)
        self.sequence = 0
        self.enqueued = 0.0
        self.count = 0
        """Deliveries that failed."""
        self.state = ACTIVE
        self.lock: Lock | None = None
        self.expires: float | None = None

    def _split(self, payload: bytes) -> None:
        at = 0
        while at < len(payload):
            found, end = decode(payload, at)
            code = found.descriptor if isinstance(found, Described) else None
            if code == 0x70:
                self.header = found.value
            elif code == 0x72:
                self.annotations = {Symbol(key): value for key, value in found.value.items()}
            elif code == 0x73:
                self.properties, self._properties = found.value, payload[at:end]
            elif code == 0x74:
                self.values = found.value
            elif code != 0x71:
                self._rest = payload[at:]
                return
            at = end

    def copy(self) -> Stored:
        """Copy it, for another queue."""
        return Stored(self.payload())

    def _field(self, place: int) -> Any:
        return self.properties[place] if len(self.properties) > place else None

    @property
    def message_id(self) -> str | None:
        """The message id."""
        found = self._field(0)
        return None if found is None else str(found)

    @property
    def body(self) -> bytes:
        """The first data section."""
        found, _ = decode(self._rest)
        return bytes(found.value)

    @property
    def session_id(self) -> str | None:
        """The session id."""
        found = self._field(10)
        return None if found is None else str(found)

    @property
    def lives(self) -> float | None:
        """Seconds for which it may wait; None: for ever."""
        found = self.header[2] if len(self.header) > 2 else None
        return None if found is None else int(found) / 1000

    @property
    def due(self) -> float:
        """When it may be delivered first, in seconds since 1970; 0: at once."""
        found = self.annotations.get(SCHEDULED)
        return 0.0 if found is None else int(found) / 1000

    def payload(self, locked: Lock | None = None, extra: dict[Any, Any] | None = None) -> bytes:
        """Write it as it is delivered.

        Args:
            locked: Under which lock.
            extra: Delivery annotations.
        """
        header = [*self.header, None, None, None, None, None][:5]
        header[4] = UInt(self.count)
        notes = dict(extra or {})
        annotations = dict(self.annotations)
        if locked is not None:
            notes[LOCK_TOKEN] = locked.token
            annotations[LOCKED_UNTIL] = Timestamp(int(locked.until * 1000))
        if self.sequence and SEQUENCE in annotations and OFFSET not in annotations:
            annotations[STATE] = Int(self.state)
        return b"".join(
            (
                section(0x70, header),
                section(0x71, notes) if notes else b"",
                section(0x72, annotations) if annotations else b"",
                self._properties,
                section(0x74, self.values) if self.values is not None else b"",
                self._rest,
            )
        )

    def number(self, sequence: int, now: float) -> None:
        """Give it its place in a queue or partition."""
        self.sequence, self.enqueued = sequence, now
        self.annotations[SEQUENCE] = Long(sequence)
        self.annotations[ENQUEUED] = Timestamp(int(now * 1000))


def unpack(payload: bytes, form: int) -> list[Stored]:
    """Take a transfer apart: one message, or the messages of a batch."""
    if form != BATCH:
        return [Stored(payload)]
    messages, at, common = [], 0, {}
    while at < len(payload):
        found, at = decode(payload, at)
        if found.descriptor == 0x75:
            messages.append(Stored(found.value))
        elif found.descriptor == 0x72:
            common = found.value
    key = common.get(PARTITION_KEY)
    if key is not None:
        for message in messages:
            message.annotations.setdefault(PARTITION_KEY, key)
    return messages
