"""W3C trace context travels from an input to its outputs."""

from __future__ import annotations

import pathlib
import uuid

import pytest

import eventflows
from eventflows import Message, Messages, publisher, subscriber

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> tuple[str, str]:
    """Give a source and a destination."""
    name = uuid.uuid4().hex
    tail = f"?file={tmp_path}/flows.db" if request.param == "file" else ""
    return f"local://{name}{tail}", f"local://{name}-out{tail}"


def published(place: tuple[str, str], result: object, **settings: object) -> list[dict[str, str]]:
    """Run a flow over a message with a trace and one without; give the headers of the outputs."""
    source, destination = place

    @subscriber(source)
    @publisher(destination, **settings)  # type: ignore[arg-type]
    def apply(input: bytes) -> object:
        return result

    with eventflows.open_publisher(source) as connection:
        connection.publish([Message(b"1", headers={**TRACE, "other": "stays"}, key="k"), Message(b"2", key="k")])
    apply.run(limit=2)
    return [dict(one.message.headers) for one in eventflows.open_subscriber(destination).peek(9, timeout=1)]


def test_trace_goes_with_a_value(place: tuple[str, str]) -> None:
    """The output of a traced input carries its context; that of another carries none; other headers stay behind."""
    assert published(place, {"a": 1}) == [TRACE, {}]


def test_trace_goes_beside_fixed_headers(place: tuple[str, str]) -> None:
    """The flow's own headers are there too."""
    assert published(place, 5, headers={"h": "v"}) == [{**TRACE, "h": "v"}, {"h": "v"}]


def test_trace_of_a_message_given_by_apply_is_its_own(place: tuple[str, str]) -> None:
    """A `Message` that says where it belongs keeps what it says; one that does not gets its input's."""
    own = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-00"}
    got = published(place, Messages([Message(b"a", headers=own, key="k"), Message(b"b", key="k")]))
    assert [one["traceparent"] for one in got[:2]] == [own["traceparent"], TRACE["traceparent"]]
