"""Lines of a file as bodies, and messages as lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import attrs

from eventflows.message import Delivery

BLOCK: Final = 256 * 1024
"""Bytes read at once; fewer when a pipe has fewer, so that nothing waits for a full block."""


@attrs.frozen
class Line:
    """One line of a file."""

    number: int
    """From 1, empty ones counted."""
    body: bytes
    """Without its line end; never empty."""


def batches(file: BinaryIO) -> Iterator[list[Line]]:
    """Give the lines that are not empty, as many at once as can be read without waiting."""
    read = getattr(file, "read1", file.read)
    parts: list[bytes] = []
    number = 0
    while block := read(BLOCK):
        first, *others = block.split(b"\n")
        parts.append(first)
        if not others:
            continue
        ended = [b"".join(parts), *others[:-1]]
        parts = [others[-1]]
        yield from _filled(ended, number)
        number += len(ended)
    yield from _filled([b"".join(parts)], number)


def _filled(lines: Sequence[bytes], before: int) -> Iterator[list[Line]]:
    bodies = [Line(number, line.removesuffix(b"\r")) for number, line in enumerate(lines, before + 1)]
    bodies = [line for line in bodies if line.body]
    if bodies:
        yield bodies


def columns(delivery: Delivery) -> tuple[str, ...]:
    """Give position, key, bytes and body; for a dead letter its reason, too. Each fits on a line."""
    message = delivery.message
    shown = (delivery.position, _text((message.key or "").encode()), str(delivery.size), _text(message.body or b""))
    reason = message.headers.get("ef-reason")
    if reason is None:
        return shown
    error = message.headers.get("ef-error")
    return (*shown, _text((f"{reason}: {error}" if error and error != reason else reason).encode()))


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return repr(body)[2:-1]
    # What is not printable could steer the terminal, or look like another line.
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
