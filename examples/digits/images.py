"""The messages of the demo: images held out from training, and among them what must be refused.

As a program it prints them, one on each line: `python images.py | eventflows send 'local://images?file=digits.db'`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import attrs
from flows import BLANK, SIZE, WRONG_SIZE, Image, split
from sklearn.datasets import load_digits

UNDECODABLE = "undecodable"
BROKEN = (b'{"number": 1, "pixels": [0.0, ', b"\xff\xfenot text", b'{"number": "one", "pixels": []}', b"null")


def messages() -> Iterator[tuple[Image | bytes, str | None]]:
    """Give each message with the reason for which it must become a dead letter; None: it is to be classified."""
    pixels = load_digits().data
    _, held_out = split()
    for place, number in enumerate(map(int, held_out)):
        if place % 200 == 100:
            yield BROKEN[place // 200 % len(BROKEN)], UNDECODABLE
        if place % 300 == 150:
            yield Image(number, [0.0] * SIZE), BLANK
        if place % 400 == 200:
            yield Image(number, pixels[number][:10].tolist()), WRONG_SIZE
        yield Image(number, pixels[number].tolist()), None


def main() -> None:
    """Print the messages."""
    for message, _ in messages():
        line = message if isinstance(message, bytes) else json.dumps(attrs.asdict(message)).encode()
        sys.stdout.buffer.write(line + b"\n")


if __name__ == "__main__":
    main()
