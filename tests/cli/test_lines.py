"""Lines as bodies, messages as lines, and how fast a count grows."""

from __future__ import annotations

import io

import pytest

from eventflows.cli.lines import batches, columns
from eventflows.cli.progress import IDLE_EVERY, News, Rate
from eventflows.message import Delivery, Message


class Pipe(io.BytesIO):
    """Gives few bytes at a time."""

    def read1(self, size: int | None = -1, /) -> bytes:
        """Give three bytes at most."""
        return super().read(3)


def read(text: bytes) -> list[tuple[int, bytes]]:
    """Give all lines, however they are batched."""
    return [(line.number, line.body) for batch in batches(Pipe(text)) for line in batch]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", []),
        (b"\n\r\n\n", []),
        (b"a", [(1, b"a")]),
        (b"a\n", [(1, b"a")]),
        (b"a\n\nlonger than a block\nb", [(1, b"a"), (3, b"longer than a block"), (4, b"b")]),
        (b"a\r\nb\r\r\n", [(1, b"a"), (2, b"b\r")]),
        (b" \n\xff\x00\n", [(1, b" "), (2, b"\xff\x00")]),
        (b"\na\xc2\x85b\n", [(2, b"a\xc2\x85b")]),
    ],
)
def test_line_is_a_body_when_it_is_not_empty(text: bytes, expected: list[tuple[int, bytes]]) -> None:
    """Each line is a body, its bytes as they are, wherever the blocks of a pipe end."""
    assert read(text) == expected


def test_batch_ends_where_a_pipe_has_no_more() -> None:
    """What has come is given before more is read."""
    pipe = Pipe(b"a\n\nb\n")
    next(batches(pipe))
    assert pipe.tell() == 3


def shown(body: bytes, **more: object) -> tuple[str, ...]:
    """Give the columns of a message."""
    message = Message(body, **more)  # type: ignore[arg-type]
    return columns(Delivery(message=message, source="local://a", position="7", identity="7"))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"a\tb\nc\\", "a\\tb\\nc\\"),
        (b"\x1b[2Jgone", "\\x1b[2Jgone"),
        (b"\xff\x00", "\\xff\\x00"),
        ("\u202eturned".encode(), "\\u202eturned"),
    ],
)
def test_body_is_one_printable_line(body: bytes, text: str) -> None:
    """Nothing in a body steers the terminal, or looks like a column or a line of its own."""
    assert shown(body) == ("7", "", str(len(body)), text)


def test_key_is_one_printable_column() -> None:
    """A key with a tab is still one column."""
    assert shown(b"x", key="a\tb")[1] == "a\\tb"


def test_dead_letter_has_its_reason_and_error() -> None:
    """The reason is the last column."""
    assert shown(b"x", headers={"ef-reason": "rejected", "ef-error": "too small"})[4] == "rejected: too small"


def test_rate_forgets_what_was_long_ago() -> None:
    """A pause makes the rate fall, however much there was before it."""
    now = 0.0
    rate = Rate(lambda: now)
    for now, count in ((1.0, 1000), (100.0, 1000), (104.0, 1004), (107.0, 1004)):  # noqa: B007 - the clock reads it
        found = rate.of(count)
    assert found == pytest.approx(4 / 7)


class Meter:
    """A count and a clock that are moved by hand."""

    def __init__(self) -> None:
        self.count = 0
        self.now = 0.0
        self.news = News(lambda: self.count, lambda: self.now)

    def due(self, *, count: int, now: float) -> bool:
        """Ask at a time, with a count."""
        self.count, self.now = count, now
        return self.news.due()


def test_plain_line_is_due_when_the_counts_moved() -> None:
    """Something happened."""
    assert Meter().due(count=1, now=10)


def test_plain_line_is_not_due_when_nothing_moved_since_the_last_one() -> None:
    """An idle run is silent in a log."""
    meter = Meter()
    meter.due(count=1, now=10)
    assert [meter.due(count=1, now=now) for now in (20, 30, 40)] == [False, False, False]


def test_plain_line_is_due_when_there_was_none_for_some_minutes() -> None:
    """An idle run is alive all the same."""
    meter = Meter()
    assert [meter.due(count=0, now=now) for now in (IDLE_EVERY, IDLE_EVERY + 10)] == [True, False]
