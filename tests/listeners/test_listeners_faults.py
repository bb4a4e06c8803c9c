"""What the platform's API may do wrong, and what is said then."""

from __future__ import annotations

import datetime
import email.utils
import itertools
import logging
import threading
from collections.abc import Iterator

import attrs
import pytest

from eventflows import Secret, _http
from eventflows.errors import ConfigError, ListenersError
from eventflows.listeners import MOST_PAGES, EventListeners, Listener
from servers.platform import Api, platform

KEY = "own-key-do-not-show"
ROW = {"id": 7, "sourceType": "AmazonSQS"}


@pytest.fixture
def api() -> Iterator[Api]:
    """A server on a free port."""
    with platform() as server:
        yield server


@pytest.fixture
def client(api: Api) -> Iterator[EventListeners]:
    """A client with both keys."""
    made = EventListeners(api.url, api_key=KEY, admin_api_key=f"admin-{KEY}")
    yield made
    made.close()


def test_answer_that_drips_ends_at_the_time_limit(api: Api) -> None:
    """The limit is for the whole answer, not for each wait."""
    api.drip = threading.Event()
    api.rule = lambda _: ["x" * 10_000]
    client = EventListeners(api.url, api_key=KEY, timeout=0.2)
    with pytest.raises(ListenersError, match="no answer"):
        client.create("u", Listener())


def test_paging_ends_when_every_marker_is_new(api: Api, client: EventListeners) -> None:
    """A listing has an end, whatever the API says."""
    numbers = itertools.count(1)
    api.rule = lambda _: {"marker": str(next(numbers)), "results": []}
    with pytest.raises(ListenersError, match="do not end"):
        client.users()
    assert len(api.asked) == MOST_PAGES


def test_connection_that_is_refused_is_an_error_with_the_request() -> None:
    """Nobody listens there."""
    with platform() as server:
        url = server.url
    with pytest.raises(ListenersError, match="check the address") as caught:
        EventListeners(url, api_key=KEY).get("u", 7)
    assert (caught.value.status, caught.value.request) == (None, "GET /v1/users/u/event-listeners/7")


@pytest.mark.parametrize(
    "asked", ["0", "0.01", email.utils.format_datetime(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))]
)
def test_busy_server_is_asked_again_when_it_says_when(api: Api, client: EventListeners, asked: str) -> None:
    """As a number, or as a date."""
    api.say(503, {}, Retry_After=asked)
    api.say(200, ROW)
    assert client.get("u", 7).id == 7


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("", None), ("soon", None), ("nan", None), ("-3", 0.0), ("1.5", 1.5), ("Wed, 01 Jan 2020 00:00:00 GMT", 0.0)],
)
def test_retry_after_is_read_in_either_form(said: str, seconds: float | None) -> None:
    """Whatever else it says is as if it were not there."""
    assert _http.retry_after({"Retry-After": said}) == seconds


def test_key_and_credentials_are_taken_out_of_what_the_api_says(
    api: Api, client: EventListeners, caplog: pytest.LogCaptureFixture
) -> None:
    """An API that repeats them does not bring them into an error or a log."""
    caplog.set_level(logging.DEBUG)
    api.say(400, {"code": 1, "message": f"bad key {KEY} for Endpoint=hush"})
    with pytest.raises(ListenersError) as caught:
        client.create("u", Listener(credentials=Secret("Endpoint=hush")))
    seen = f"{caught.value!r} {caught.value} {caught.value.message} {caught.value.__dict__} {caplog.text} {client!r}"
    assert (KEY in seen, "hush" in seen) == (False, False)


def test_long_words_of_the_api_are_shortened(api: Api, client: EventListeners) -> None:
    """An error stays one readable line."""
    api.say(400, {"message": "no\n" * 5000})
    with pytest.raises(ListenersError) as caught:
        client.get("u", 7)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"id": [1]}, "id"),
        ({"id": True}, "id"),
        ({"id": 1, "sourceURI": 5}, "sourceURI"),
        ({"id": 1, "credentials": {}}, "credentials"),
        ({"id": 1, "algoTimeoutSeconds": "long"}, "algoTimeoutSeconds"),
    ],
)
def test_field_of_a_wrong_type_is_named(api: Api, client: EventListeners, row: object, field: str) -> None:
    """With the request that brought it."""
    api.say(200, [row])
    with pytest.raises(ListenersError, match=rf"GET /v1/users/u/event-listeners: {field} of a listener"):
        client.listeners(user_id="u")


@pytest.mark.parametrize("body", [3, "text", {"results": 5}, ["row"], {"results": [None]}])
def test_answer_of_a_wrong_shape_is_an_error(api: Api, client: EventListeners, body: object) -> None:
    """Never an AttributeError."""
    api.say(200, body)
    with pytest.raises(ListenersError):
        client.listeners(user_id="u")


def test_user_without_an_id_is_an_error(api: Api, client: EventListeners) -> None:
    """There is no path to it."""
    api.say(200, {"username": "ann"})
    with pytest.raises(ListenersError, match="id of a user"):
        client.user("ann")


def test_empty_user_fields_are_none_or_empty(api: Api, client: EventListeners) -> None:
    """Any of them may be missing."""
    api.say(200, {"id": "u", "email": "", "self_link": "/x"})
    user = client.user("ann")
    assert (user.username, user.email, dict(user.extra)) == (None, "", {"self_link": "/x"})


def test_too_long_text_is_refused_before_any_call(api: Api, client: EventListeners) -> None:
    """The platform takes 255 characters."""
    with pytest.raises(ConfigError, match="source_uri has 256"):
        client.create("u", Listener(source_uri="x" * 256))
    assert api.asked == []


@pytest.mark.parametrize("identity", [7, "0b0e6f4e-6f8c-4c4e-a2f4-3f1a4f6f2a11"])
def test_ids_may_be_numbers_or_texts(api: Api, client: EventListeners, identity: str | int) -> None:
    """They are kept as they came."""
    api.say(200, {"id": identity})
    assert client.get("u", identity).id == identity


def test_unknown_source_type_is_kept(api: Api, client: EventListeners) -> None:
    """The platform may learn another."""
    api.say(200, {"id": 1, "sourceType": "GooglePubSub"})
    assert client.get("u", 1).source_type == "GooglePubSub"


def test_dots_in_a_name_do_not_lead_elsewhere(api: Api, client: EventListeners) -> None:
    """`..` is a name like any other."""
    api.say(200, {"id": "u"})
    client.user("..")
    assert api.asked[0][1] == "/v1/users/%2E%2E"


def test_own_key_is_used_when_the_account_has_none_of_its_own(api: Api) -> None:
    """Each account's own key, else the administrator's."""
    api.rule = lambda asked: (
        {"results": [{"id": "1", "username": "ann"}, {"id": "2", "username": "bob"}]} if asked[1] == "/v1/users" else []
    )
    with_admin = EventListeners(api.url, api_key="own", admin_api_key="admin")
    with_admin.all_listeners({"ann": Secret("ann")})
    used = {asked[1].split("/")[3]: asked[2] for asked in api.asked[1:]}
    assert used == {"1": "Simple ann", "2": "Simple admin"}


def test_two_accounts_of_one_name_are_both_listed(api: Api, client: EventListeners) -> None:
    """Their ids keep them apart."""
    api.rule = lambda asked: (
        {"results": [{"id": "1", "username": "a"}, {"id": "2", "username": "a"}]} if asked[1] == "/v1/users" else ROW
    )
    assert sorted(client.all_listeners().accounts) == ["a (1)", "a (2)"]


@pytest.mark.parametrize("api_url", ["cluster", "ftp://x", "https://user:pw@cluster", "https://cluster?key=1", ""])
def test_address_that_is_none_is_refused(api_url: str) -> None:
    """Without showing what may be a password."""
    with pytest.raises(ConfigError) as caught:
        EventListeners(api_url, api_key=KEY)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, "30", True, float("nan"), float("inf")])
def test_time_that_is_none_is_refused(timeout: object) -> None:
    """It is seconds."""
    with pytest.raises(ConfigError, match="timeout"):
        EventListeners("https://cluster", timeout=timeout)  # type: ignore[arg-type]


def test_environment_gives_address_and_keys(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the names that the platform's old client reads."""
    monkeypatch.setenv("ALGORITHMIA_API", api.url)
    monkeypatch.setenv("ALGORITHMIA_API_KEY", "own")
    monkeypatch.setenv("ALGORITHMIA_ADMIN_API_KEY", "admin")
    api.say(200, ROW)
    api.say(200, {"id": "u"})
    client = EventListeners.from_env()
    client.get("u", 7)
    client.user("u")
    assert [asked[2] for asked in api.asked] == ["Simple own", "Simple admin"]


def test_listeners_wants_one_of_name_and_id(client: EventListeners) -> None:
    """Neither, or both, is a mistake."""
    with pytest.raises(ConfigError, match="either"):
        client.listeners()


def test_update_wants_an_id(client: EventListeners) -> None:
    """Without one it would be a new one."""
    with pytest.raises(ConfigError, match=r"create\(\)"):
        client.update("u", attrs.evolve(Listener(), algo_name="n"))
