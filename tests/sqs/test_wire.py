"""Messages to entries of SendMessageBatch and back."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflows.adapters._sqs_wire import MAX_BYTES, Written, read, read_body, write
from eventflows.errors import InvalidMessageError, TooLargeError
from eventflows.message import Message

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.sampled_from(["a", "B.c", "ef-key", "ef-packed", "AWS.x", "a..b", ".a", "", "ü", "x" * 257]) | TEXT
MESSAGES = st.builds(
    Message,
    st.binary(max_size=60) | TEXT.map(str.encode),
    headers=st.dictionaries(NAMES, TEXT, max_size=14),
    key=st.none() | TEXT,
    id=st.none() | TEXT,
    content_type=st.none() | TEXT,
)


def written(message: Message, *, fifo: bool = False) -> Written:
    """Write a message that can be."""
    result = write(message, fifo=fifo)
    assert isinstance(result, Written), result
    return result


def received(entry: dict[str, Any]) -> dict[str, Any]:
    """What a receive gives of an entry."""
    attributes = {name: {k: v for k, v in one.items()} for name, one in entry.get("MessageAttributes", {}).items()}
    return {
        "Body": entry["MessageBody"], "MessageId": "from-the-service", "MessageAttributes": attributes,
        "Attributes": {"MessageGroupId": entry.get("MessageGroupId")},
    }  # fmt: skip


@given(MESSAGES, st.booleans())
def test_message_survives_whatever_is_in_it(message: Message, fifo: bool) -> None:
    """Body, headers, key, id and content type are read as they were written."""
    if fifo and not message.key:
        return
    native = received(written(message, fifo=fifo).entry)
    got = read(native, read_body(native), fifo=fifo)
    assert (got.body, dict(got.headers), got.key, got.content_type) == (
        message.body, dict(message.headers), message.key, message.content_type,
    )  # fmt: skip
    assert got.id == ("from-the-service" if message.id is None else message.id)


@given(MESSAGES)
def test_entry_keeps_the_rules_of_the_service(message: Message) -> None:
    """At most ten attributes, none empty, nothing that XML 1.0 does not allow, the body not empty."""
    one = written(message)
    attributes = one.entry.get("MessageAttributes", {})
    texts = [one.entry["MessageBody"], *(value["StringValue"] for value in attributes.values())]
    assert len(attributes) <= 10
    assert all(texts)
    assert not [
        c
        for text in texts
        for c in text
        if not (c in "\t\n\r" or " " <= c <= "\ud7ff" or c >= "\ue000") or c in "\ufffe\uffff"
    ]
    assert one.size == sum(len(text.encode()) for text in texts) + sum(len(name) + 6 for name in attributes)


@pytest.mark.parametrize("body", [b"plain", "naïve 😀\r\n\t".encode(), b'{"a": 1}'])
def test_text_goes_as_text(body: bytes) -> None:
    """What the service allows as text is readable in its console, and costs nothing more."""
    assert written(Message(body)).entry == {"MessageBody": body.decode()}


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff", b"\xed\xa0\x80", "\ufffe".encode(), b"\x1b[0m"])
def test_anything_else_goes_as_base64_and_says_so(body: bytes) -> None:
    """Control characters, lone surrogates, bytes and nothing at all are encoded, with a marker."""
    native = received(written(Message(body)).entry)
    assert ("ef-encoding" in native["MessageAttributes"], read_body(native)) == (True, body)


def test_one_mebibyte_of_text_is_accepted_and_one_byte_more_is_not() -> None:
    """The limit counts every byte."""
    assert written(Message(b"x" * MAX_BYTES)).size == MAX_BYTES
    assert isinstance(write(Message(b"x" * (MAX_BYTES + 1)), fifo=False), TooLargeError)
    assert isinstance(write(Message(b"x" * MAX_BYTES, headers={"a": "b"}), fifo=False), TooLargeError)
    assert isinstance(write(Message(os.urandom(MAX_BYTES)), fifo=False), TooLargeError)


def test_the_queue_s_own_limit_counts() -> None:
    """A queue may take less than a mebibyte."""
    assert isinstance(write(Message(b"x" * 1025), fifo=False, limit=1024), TooLargeError)


@pytest.mark.parametrize("count", [9, 10, 11, 40])
def test_headers_beyond_ten_attributes_are_packed(count: int) -> None:
    """Nine or ten stay attributes that others can read; of more, the rest goes into one."""
    headers = {f"h{number}": f"v{number}" for number in range(count)}
    native = received(written(Message(b"x", headers=headers)).entry)
    assert len(native["MessageAttributes"]) == min(count, 10)
    assert dict(read(native, b"x", fifo=False).headers) == headers


def test_foreign_messages_are_read_byte_for_byte() -> None:
    """What others sent has its attributes as headers, binary ones in base64, and no key on a standard queue."""
    native = {
        "Body": "test", "MessageId": "m", "Attributes": {"MessageGroupId": "tenant"},
        "MessageAttributes": {
            "n": {"DataType": "Number", "StringValue": "3"}, "b": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
            "ef-packed": {"DataType": "String", "StringValue": "not ours"},
        },
    }  # fmt: skip
    got = read(native, read_body(native), fifo=False)
    assert (got.body, dict(got.headers), got.key, got.id) == (
        b"test", {"n": "3", "b": "AP8=", "ef-packed": "not ours"}, None, "m",
    )  # fmt: skip


@pytest.mark.parametrize("packed", ["[]", "3", '{"headers": 3}', '{"headers": {"a": 1}}', '{"ef-key": 1}', "{", ""])
def test_a_stranger_s_attribute_of_our_name_is_no_trap(packed: str) -> None:
    """Whatever stands in an attribute that looks like ours, the message can be read."""
    native = {"Body": "x", "MessageId": "m", "MessageAttributes": {"ef-packed": {"StringValue": packed}}}
    assert read(native, read_body(native), fifo=False).headers.get("ef-packed") == packed


def test_a_stranger_s_encoding_is_no_trap() -> None:
    """A body that claims base64 and is none stays as it is."""
    native = {"Body": "not base64!", "MessageId": "m", "MessageAttributes": {"ef-encoding": {"StringValue": "base64"}}}
    assert read_body(native) == b"not base64!"


def test_group_and_deduplication_come_from_key_and_id() -> None:
    """On a FIFO queue a key that may be a group is one, and so is an id; others by their digest."""
    plain = written(Message(b"x", key="k-1", id="i-1"), fifo=True).entry
    odd = written(Message(b"x", key="ключ", id="i" * 200), fifo=True).entry
    assert (plain["MessageGroupId"], plain["MessageDeduplicationId"]) == ("k-1", "i-1")
    assert all(
        odd[name].startswith("ef-") and len(odd[name]) < 128 for name in ("MessageGroupId", "MessageDeduplicationId")
    )


def test_messages_without_an_id_are_never_taken_for_one_another() -> None:
    """Two equal messages without an id have two deduplication ids."""
    ids = {written(Message(b"x", key="k"), fifo=True).entry["MessageDeduplicationId"] for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("message", "fifo"),
    [
        (Message(None), False), (Message(b"x"), True), (Message(b"x", options={"delay": 901}), False),
        (Message(b"x", options={"delay": 1}, key="k"), True), (Message(b"x", options={"delay": 1.5}), False),
        (Message(b"x", options={"partition": 1}), False), (Message(b"x", headers={"a": "\ud800"}), False),
        (Message(b"x", headers={"\ud800": "a"}), False), (Message(b"x", key="\ud800"), False),
    ],
)  # fmt: skip
def test_message_that_cannot_be_sent_is_its_own_fault(message: Message, fifo: bool) -> None:
    """It is refused before any call."""
    assert isinstance(write(message, fifo=fifo), InvalidMessageError)


def test_delay_is_the_service_s_own() -> None:
    """`options={"delay": 60}` sets DelaySeconds."""
    assert written(Message(b"x", options={"delay": 60})).entry["DelaySeconds"] == 60


def test_packed_headers_are_json_that_others_can_read() -> None:
    """The one attribute that holds the rest is plain JSON."""
    entry = written(Message(b"x", headers={"empty": ""})).entry
    assert json.loads(entry["MessageAttributes"]["ef-packed"]["StringValue"]) == {"headers": {"empty": ""}}
