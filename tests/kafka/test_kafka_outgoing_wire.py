"""Batches in columns: what a client is given is the same as message by message, and what needs a look gets one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflows import Message
from eventflows.adapters._kafka_records import MAX_BYTES, columns_of, records_of
from eventflows.message import Batch

TEXT = st.text(max_size=4)
MESSAGES = st.builds(
    Message,
    st.binary(max_size=5),
    key=st.none() | TEXT,
    id=st.none() | TEXT,
    content_type=st.none() | st.just("application/json"),
)


@given(st.lists(MESSAGES, max_size=5), st.booleans(), st.booleans())
def test_columns_are_what_the_records_are_one_by_one(messages: list[Message], ids: bool, kinds: bool) -> None:
    """Values, keys and headers, in order, byte for byte; a column that some lack is no column."""
    batch = Batch(
        [message.body for message in messages],
        keys=[message.key for message in messages],
        ids=[message.id or "" for message in messages] if ids else [message.id for message in messages],
        content_types=["text/plain"] * len(messages) if kinds else [one.content_type for one in messages],
    )
    columns = columns_of(batch)
    assert columns is None or columns.records() == list(records_of(batch))


def test_columns_are_given_when_nothing_needs_a_look() -> None:
    """An id and a content type each, and a key or none: what a flow publishes."""
    batch = Batch([b"1", b"2"], keys=["k", None], ids=["a", "b"], content_types=["text/plain", "application/json"])
    columns = columns_of(batch)
    assert columns is not None
    assert columns.records() == list(records_of(batch))


@pytest.mark.parametrize(
    "message",
    [
        Message(b"", headers={"a": "b"}),
        Message(b"", options={"partition": 1}),
        Message(None, key="k"),
        Message(b"", id="\udcff"),
        Message(b"", key="\ud800"),
        Message(b"x" * (MAX_BYTES + 1)),
        Message("text"),  # type: ignore[arg-type]
        Message(b"", key=b"bytes"),  # type: ignore[arg-type]
    ],
    ids=["headers", "options", "tombstone", "odd id", "odd key", "too large", "body of text", "key of bytes"],
)
def test_columns_are_refused_when_a_message_needs_a_look(message: Message) -> None:
    """The others of its batch are then looked at, too."""
    assert columns_of(Batch.of([message])) is None
    assert columns_of(Batch.of([Message(b""), message])) is None


def test_columns_are_refused_when_only_all_together_are_too_large() -> None:
    """Body, key and headers count as one; the exact look says whether it fits."""
    batch = Batch.of([Message(b"x" * (MAX_BYTES - 50), key="k" * 40)])
    assert columns_of(batch) is None
    assert isinstance(next(records_of(batch)), dict)
