"""Hosted algorithms as an `apply`, against a real HTTP server."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

import eventflows
from eventflows import Delivery, Message, Retry, RetryPolicy, hosted_algorithm, publisher, subscriber
from eventflows.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    InvalidMessageError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
)
from eventflows.hosted import AlgorithmError, latest
from servers.platform import Api, platform

KEY = "own-key-do-not-show"


@pytest.fixture
def api() -> Iterator[Api]:
    """A server on a free port."""
    with platform() as server:
        yield server


def said(result: object, kind: str = "json") -> dict[str, object]:
    """What the platform answers."""
    return {"result": result, "metadata": {"content_type": kind, "duration": 0.01}}


def call(api: Api, value: object, delivery: Delivery | None = None, **options: Any) -> Any:
    """Call it once, without a runner."""
    apply = hosted_algorithm(api.url, "owner/name/1.2.0", api_key=KEY, **options)
    return asyncio.run(apply(value, delivery=delivery))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "kind", "body"),
    [
        ({"a": 1}, "application/json", b'{"a":1}'),
        ("text", "text/plain", b"text"),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        (None, "application/json", b"null"),
    ],
)
def test_input_is_sent_by_its_type(api: Api, value: object, kind: str, body: bytes) -> None:
    """To the path of the version, with the time and the key."""
    api.say(200, said(3))
    assert call(api, value, timeout=60) == 3
    method, path, key, sent = api.asked[0]
    assert (method, path, key, sent, api.types) == (
        "POST", "/v1/algo/owner/name/1.2.0?timeout=60", f"Simple {KEY}", body, [kind],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (said({"b": [1]}), {"b": [1]}),
        (said("text", "text"), "text"),
        (said(base64.b64encode(b"\x00\xff").decode(), "binary"), b"\x00\xff"),
        (said(None), None),
        ({"result": 1}, 1),
    ],
)
def test_result_has_the_type_that_it_was_given(api: Api, answer: object, result: object) -> None:
    """Binary travels as base64."""
    api.say(200, answer)
    assert call(api, 1) == result


def test_algorithm_error_keeps_its_type(api: Api) -> None:
    """And its words, shortened, without the stack trace."""
    api.say(200, {"error": {"message": f"bad {KEY}", "error_type": "InputError", "stacktrace": "TRACE"}})
    with pytest.raises(AlgorithmError, match=r"owner/name/1\.2\.0 raised: bad") as caught:
        call(api, 1)
    assert (caught.value.error_type, KEY in str(caught.value), "TRACE" in str(caught.value)) == (
        "InputError",
        False,
        False,
    )


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("headers", "delay"), [({"Retry_After": "7"}, 7.0), ({}, 300.0)])
def test_busy_platform_is_a_later_attempt(api: Api, status: int, headers: dict[str, str], delay: float) -> None:
    """After the time it asks for, else after 300 seconds."""
    api.say(status, b"<html>busy</html>", **headers)
    with pytest.raises(Retry) as caught:
        call(api, 1)
    assert caught.value.delay == delay


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, PermissionDeniedError), (404, NotFoundError), (500, OutcomeUnknownError),
     (400, InvalidMessageError), (302, InvalidMessageError)],
)  # fmt: skip
def test_refusal_is_told_apart(api: Api, status: int, kind: type[Exception]) -> None:
    """Each with the next step."""
    api.say(status, b"<html></html>", Location="http://127.0.0.1:1/")
    with pytest.raises(kind, match=r"owner/name/1\.2\.0"):
        call(api, 1)


@pytest.mark.parametrize("body", [b"<html></html>", b'{"resu', [], {"metadata": {}}])
def test_answer_without_a_result_is_an_error(api: Api, body: object) -> None:
    """It is tried again, not published as None."""
    api.say(200, body)
    with pytest.raises(OutcomeUnknownError, match="no result"):
        call(api, 1)


def test_platform_that_is_away_is_a_failed_connection() -> None:
    """Nobody listens there."""
    with platform() as server:
        gone = server
    with pytest.raises(ConnectionFailedError):
        call(gone, 1)


def test_answer_that_drips_ends_at_the_time_limit(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The algorithm's time and a grace."""
    monkeypatch.setattr("eventflows.hosted.GRACE", 0.1)
    api.drip = threading.Event()
    api.say(200, said("x" * 1000))
    with pytest.raises(OutcomeUnknownError, match="no answer within"):
        call(api, 1, timeout=0.1)


@pytest.mark.parametrize("algorithm", ["", "owner", "owner/", "a/b/c/d", "a b/c", None])
def test_algorithm_that_is_none_is_refused(algorithm: Any) -> None:
    """At once."""
    with pytest.raises(ConfigError, match="owner/name"):
        hosted_algorithm("https://api.cluster", algorithm)


@pytest.mark.parametrize("timeout", [0, 3001, "9", True])
def test_time_that_is_none_is_refused(timeout: Any) -> None:
    """The platform takes 3000 seconds at most."""
    with pytest.raises(ConfigError, match="timeout"):
        hosted_algorithm("https://api.cluster", "a/b", timeout=timeout)


def test_missing_key_is_said_before_any_call(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable's name."""
    monkeypatch.delenv("ALGORITHMIA_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="ALGORITHMIA_API_KEY"):
        asyncio.run(hosted_algorithm(api.url, "a/b")(1))  # type: ignore[arg-type]
    assert api.asked == []


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ({"version_info": {"semantic_version": "1.4.2"}}, "1.4.2"),
        ({"version_info": {"git_hash": "0fe1"}}, "0fe1"),
        ({}, None),
    ],
)
def test_latest_is_asked_for(api: Api, answer: object, version: str | None) -> None:
    """None where this platform does not say."""
    api.say(200, answer)
    assert latest(api.url, "owner/name", api_key=KEY) == version
    assert api.asked[0][1] == "/v1/algorithms/owner/name"


def forwarded(api: Api, messages: list[Message], place: str, **settings: Any) -> Any:
    """Run messages through a hosted algorithm."""
    apply = hosted_algorithm(api.url, "owner/name/1.2.0", api_key=KEY)
    flow = subscriber(f"local://{place}-in", retry=RetryPolicy(attempts=2, delay=0), **settings)(apply)
    flow = publisher(f"local://{place}-out")(flow)
    eventflows.open_publisher(f"local://{place}-in").publish(messages)
    return flow.run(limit=len(messages), signals=False)


def arrived(url: str) -> list[Message]:
    """Read what waits."""
    with eventflows.open_subscriber(url) as source:
        return [one.message for chunk in source.receive(100, max_bytes=1 << 20, timeout=1.0) for one in chunk]


def test_content_types_are_kept_through_a_flow(api: Api) -> None:
    """JSON as it came, digits included; text as text; bytes as bytes; and so the results."""
    kinds = {b"plain": said("plain", "text"), b"\x00\xff": said("AP8=", "binary")}
    api.rule = lambda asked: kinds.get(asked[3], said("json"))
    messages = [
        Message(b'{ "n": 1.10 }'),
        Message(b"plain", content_type="text/plain"),
        Message(b"\x00\xff", content_type="application/octet-stream"),
    ]
    forwarded(api, messages, "types")
    assert {asked[3] for asked in api.asked} == {message.body for message in messages}
    assert {(one.body, one.content_type) for one in arrived("local://types-out")} == {
        (b'"json"', "application/json"),
        (b"plain", "text/plain; charset=utf-8"),
        (b"\x00\xff", "application/octet-stream"),
    }


def test_calls_are_in_flight_together(api: Api) -> None:
    """As many as there are workers."""
    meet = threading.Barrier(4, timeout=20)
    api.rule = lambda _: said((meet.wait() and 0) or 0)
    assert forwarded(api, [Message(b"%d" % n) for n in range(4)], "together", workers=4).acked == 4


def test_dead_letter_has_the_error_type_of_the_algorithm(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """After as many attempts as the policy has; the key is nowhere."""
    caplog.set_level(logging.DEBUG)
    api.rule = lambda _: {"error": {"message": f"no {KEY}", "error_type": "InputError"}}
    result = forwarded(api, [Message(b"1")], "dead", dead_letter="local://dead-letters")
    letter = arrived("local://dead-letters")[0]
    assert (result.dead_lettered, len(api.asked), letter.headers["ef-error-type"]) == (1, 2, "InputError")
    assert KEY not in caplog.text + json.dumps(dict(letter.headers))


def test_body_that_is_not_json_is_never_sent(api: Api) -> None:
    """Undecodable input is dead-lettered without a call."""
    result = forwarded(api, [Message(b"{not json")], "broken", dead_letter="local://broken-letters")
    assert (result.dead_lettered, api.asked) == (1, [])


def test_flow_of_a_hosted_algorithm_has_its_name() -> None:
    """So the outputs of two algorithms have different ids."""
    flow = subscriber("local://x")(hosted_algorithm("https://api.cluster", "owner/name"))
    assert "owner/name" in flow.name
    assert orjson.loads(orjson.dumps(flow.name))
