"""The event-listeners client, against a real HTTP server on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator

import attrs
import pytest

from eventflows.errors import ConfigError, ListenersError
from eventflows.listeners import EventListeners, Listener
from servers.platform import Api, platform


@pytest.fixture
def api() -> Iterator[Api]:
    """A server on a free port, stopped after the test."""
    with platform() as server:
        yield server


@pytest.fixture
def client(api: Api) -> Iterator[EventListeners]:
    """A client with both keys."""
    made = EventListeners(api.url, api_key="own-key", admin_api_key="admin-key")
    yield made
    made.close()


ROW = {"id": 7, "sourceType": "AmazonSQS", "credentials": "arn:aws:iam::1:role/r", "colour": "red"}


@pytest.mark.parametrize("shape", [ROW, [ROW], {"marker": "", "results": [ROW]}])
def test_listeners_are_read_in_each_shape(api: Api, client: EventListeners, shape: object) -> None:
    """A bare object, a bare list and a page are the same listing."""
    api.say(200, shape)
    assert [one.id for one in client.listeners(user_id="u")] == [7]


def test_users_are_read_over_all_pages(api: Api, client: EventListeners) -> None:
    """The marker of a page asks for the next."""
    api.say(200, {"marker": "m 2", "results": [{"id": "a"}]})
    api.say(200, {"results": [{"id": "b"}]})
    assert [one.id for one in client.users()] == ["a", "b"]
    assert api.asked[1][1:3] in {
        ("/v1/users?marker=m+2", "Simple admin-key"),
        ("/v1/users?marker=m%202", "Simple admin-key"),
    }


def test_paging_that_never_ends_is_an_error(api: Api, client: EventListeners) -> None:
    """A marker that comes twice ends the listing with an error."""
    for _ in range(2):
        api.say(200, {"marker": "m", "results": []})
    with pytest.raises(ListenersError, match="never end"):
        client.users()


def test_name_is_looked_up_once_and_escaped(api: Api, client: EventListeners) -> None:
    """The id of a name is kept."""
    for body in ({"id": "u/1"}, [], []):
        api.say(200, body)
    client.listeners("a/b")
    client.listeners("a/b")
    paths = [asked[1] for asked in api.asked]
    assert paths == ["/v1/users/a%2Fb", *["/v1/users/u%2F1/event-listeners"] * 2]


def test_update_sends_unknown_fields_back(api: Api, client: EventListeners) -> None:
    """What this version does not know survives a change."""
    api.say(200, ROW)
    api.say(200, ROW)
    client.update("u", attrs.evolve(client.get("u", 7), algo_name="n"))
    assert api.asked[1][:2] == ("PUT", "/v1/users/u/event-listeners/7")
    assert json.loads(api.asked[1][3]) == {k: v for k, v in ROW.items() if k != "id"} | {"algoName": "n"}


def test_connection_string_is_hidden(api: Api, client: EventListeners) -> None:
    """A connection string is a secret."""
    api.say(200, ROW | {"credentials": "Endpoint=sb://x;SharedAccessKey=hush"})
    assert "hush" not in repr(client.get("u", 7))


def test_delete_accepts_an_empty_answer(api: Api, client: EventListeners) -> None:
    """Nothing is said after a delete."""
    api.say(200, b"")
    client.delete("u", 7)
    assert api.asked[0][0] == "DELETE"


def test_busy_get_is_tried_again(api: Api, client: EventListeners) -> None:
    """A busy server is asked again after the time it names."""
    api.say(429, {}, Retry_After="0")
    api.say(200, ROW)
    assert client.get("u", 7).id == 7


def test_create_is_not_tried_again_when_busy(api: Api, client: EventListeners) -> None:
    """A second POST might create a second listener."""
    api.say(503, {"message": "busy"})
    with pytest.raises(ListenersError, match="busy"):
        client.create("u", Listener(source_type="AmazonSQS"))
    assert len(api.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_refusal_carries_status_code_and_message(api: Api, client: EventListeners, status: int) -> None:
    """The API's own words are in the error."""
    api.say(status, {"code": 2001, "message": "no"})
    with pytest.raises(ListenersError) as caught:
        client.get("u", 7)
    error = caught.value
    assert (error.status, error.code, error.message) == (status, 2001, "no")


@pytest.mark.parametrize("body", [b"<html>sorry</html>", b'{"id": '])
def test_answer_that_is_not_json_is_an_error(api: Api, client: EventListeners, body: bytes) -> None:
    """An HTML page and cut JSON become a clear error."""
    api.say(200, body)
    with pytest.raises(ListenersError, match="not JSON"):
        client.get("u", 7)


def test_redirect_to_another_host_does_not_carry_the_key(api: Api, client: EventListeners) -> None:
    """A redirect is refused, and the other host is never asked."""
    with Api() as other:
        api.say(302, {}, Location=other.url)
        with pytest.raises(ListenersError, match="302"):
            client.get("u", 7)
        other.timeout = 0.0
        other.handle_request()
        assert other.asked == []


def test_missing_administrator_key_is_said_before_any_call(api: Api) -> None:
    """Nothing is sent without the key it needs."""
    with pytest.raises(ConfigError, match="ALGORITHMIA_ADMIN_API_KEY"):
        EventListeners(api.url, api_key="k").users()
    assert api.asked == []


def test_cluster_is_listed_with_each_key_and_names_what_was_refused(api: Api, client: EventListeners) -> None:
    """One account that may not be read does not hide the others."""
    api.say(200, {"results": [{"id": "1", "username": "ann"}]})
    api.say(403, {"message": "not yours"})
    first = client.all_listeners({"ann": "ann-key"})
    api.say(200, {"results": [{"id": "2"}]})
    api.say(200, [ROW])
    second = client.all_listeners()
    assert "not yours" in first.refused["ann"]
    assert [one.id for one in second.accounts["2"]] == [7]
    assert [asked[2] for asked in api.asked[1::2]] == ["Simple ann-key", "Simple admin-key"]


def test_get_is_tried_again_when_the_answer_is_cut(api: Api, client: EventListeners) -> None:
    """A body shorter than it was said to be is a lost connection."""
    api.say(200, b'{"id"', Content_Length="900")
    api.say(200, ROW)
    assert client.get("u", 7).id == 7


def test_create_is_not_tried_again_when_the_answer_is_cut(api: Api, client: EventListeners) -> None:
    """Whether the listener was made is not known, so nothing is sent twice."""
    api.say(200, b'{"id"', Content_Length="900")
    with pytest.raises(ListenersError, match="no answer"):
        client.create("u", Listener(source_type="AmazonSQS"))
    assert len(api.asked) == 1
