"""`eventflows check`: every line, right and wrong; and every kind of credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from azure.core.credentials import AccessToken

from amqp.server import KEY, KEY_NAME
from eventflows import Message, Secret, open_publisher, open_subscriber
from eventflows.errors import AuthenticationError, ConfigError
from eventflows.protocols import Finding
from eventhubs_harness import VARIABLE, EventHubsHarness
from eventhubs_use import hub, publish, reading, take, to

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def findings(broker: EventHubsHarness, url: str, **options: object) -> list[Finding]:
    """What a check of a source says."""
    return list(open_subscriber(url, **{**broker.source_options, **options}).check())  # type: ignore[attr-defined]


def levels(found: list[Finding]) -> list[str]:
    """Their levels."""
    return [one.level for one in found]


@pytest.mark.parametrize("events", [0, 2])
def test_check_is_content_with_a_hub_that_is_there(broker: EventHubsHarness, events: int) -> None:
    """Namespace, hub, group and store, a line for each; nothing is taken, nothing is written."""
    name = hub(broker)
    publish(broker, name, *to(0, *[b"x"] * events))
    found = findings(broker, broker.source_url(name))
    assert levels(found) == ["ok"] * 4, found
    assert "3 partitions" in found[1].text
    assert broker.committed(name) == {}


def test_check_is_content_while_a_member_reads(broker: EventHubsHarness) -> None:
    """It takes no partition away."""
    name = hub(broker)
    publish(broker, name, *to(0, b"x"))
    with reading(broker, name) as made:
        [taken] = take(made, 1)
        assert levels(findings(broker, broker.source_url(name))) == ["ok"] * 4
        assert taken.chunk.lane is not None
        assert not taken.chunk.lane.lost


def test_check_names_a_missing_hub(broker: EventHubsHarness) -> None:
    """The service answers, and has none."""
    [found] = findings(broker, broker.missing_url("source"))
    assert found.level == "error"
    assert "no-such-hub" in found.text


def test_check_names_a_missing_group(broker: EventHubsHarness) -> None:
    """The hub is there, the group is not; the store is looked at all the same."""
    broker._server.hub("closed", partitions=1, groups=())
    found = findings(broker, broker.source_url("closed"), group="nobody")
    assert levels(found) == ["ok", "ok", "error", "ok"]
    assert "nobody" in found[2].text


def test_check_names_wrong_credentials(broker: EventHubsHarness) -> None:
    """The key is in no line."""
    url, options, key = broker.bad_credentials()
    [found] = findings(broker, url, **options)
    assert found.level == "error"
    assert key not in found.text + found.fix


def test_check_names_a_store_that_cannot_be_written(broker: EventHubsHarness, tmp_path: Path) -> None:
    """Its folder is missing."""
    found = findings(broker, broker.source_url(hub(broker)), checkpoints=str(tmp_path / "missing" / "flows.db"))
    assert levels(found) == ["ok", "ok", "ok", "error"]
    assert "checkpoints=" in found[3].text


def test_check_of_a_destination_says_what_it_takes(broker: EventHubsHarness) -> None:
    """It can be reached, and lets us send."""
    [found] = open_publisher(broker.source_url(hub(broker))).check()  # type: ignore[attr-defined]
    assert (found.level, "1048576" in found.text) == ("ok", True)


def key_of(broker: EventHubsHarness, claim: str) -> Secret:
    """Make a key that may do one thing only; gives its connection string."""
    server = broker._server
    server.call(lambda: server.broker.keys.update({claim: KEY}))
    server.call(lambda: server.broker.claims.update({claim: claim}))
    return Secret(server.connection_string_of(claim, KEY))


def test_check_names_the_right_to_listen(broker: EventHubsHarness) -> None:
    """A key that may only send is let in, and reads no partition."""
    found = findings(broker, broker.source_url(hub(broker)), connection_string=key_of(broker, "Send"))
    assert levels(found) == ["ok", "ok", "error", "ok"], found
    assert ("Listen" in found[2].fix, "Data Receiver" in found[2].fix) == (True, True)


def test_check_names_the_right_to_send(broker: EventHubsHarness) -> None:
    """A key that may only listen writes nothing; the place is said once."""
    made = open_publisher(broker.source_url(hub(broker)), connection_string=key_of(broker, "Listen"))
    [found] = made.check()  # type: ignore[attr-defined]
    assert (found.level, "Send" in found.fix, "Data Sender" in found.fix) == ("error", True, True)
    assert found.text.count("eventhubs://") == 1


def test_check_of_a_destination_names_a_missing_hub(broker: EventHubsHarness) -> None:
    """With what to do about it."""
    [found] = open_publisher(broker.missing_url("destination")).check()  # type: ignore[attr-defined]
    assert (found.level, "Create" in found.fix) == ("error", True)


# Credentials.


class Bearer:
    """A credential, as azure-identity has them: it gives a token of Azure AD."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **how: Any) -> AccessToken:
        """Give it, for an hour."""
        return AccessToken(self.token, int(time.time()) + 3600)


class AsyncBearer:
    """A credential of azure.identity.aio."""

    async def get_token(self, *scopes: str, **how: Any) -> AccessToken:
        """Never asked."""
        raise AssertionError


def signature(broker: EventHubsHarness, name: str) -> str:
    """Sign a right for an hour, as an owner of the key does for others."""
    place, until = quote_plus(f"sb://{broker._server.host}/{name}"), str(int(time.time()) + 3600)
    signed = base64.b64encode(hmac.new(KEY.encode(), f"{place}\n{until}".encode(), hashlib.sha256).digest())
    return f"SharedAccessSignature sr={place}&sig={quote_plus(signed)}&se={until}&skn={KEY_NAME}"


@pytest.mark.parametrize("kind", ["connection string", "emulator without its flag", "signature", "azure-identity"])
def test_every_kind_of_credentials_lets_us_in(
    broker: EventHubsHarness, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Both halves: what is published is read."""
    monkeypatch.delenv(VARIABLE)
    name, server = hub(broker), broker._server
    whole = server.connection_string
    signed = f"Endpoint=sb://{server.host};SharedAccessSignature={signature(broker, name)};UseDevelopmentEmulator=true"
    options: dict[str, object] = {
        "connection string": {"connection_string": Secret(whole)},
        "emulator without its flag": {
            "connection_string": Secret(whole.replace(";UseDevelopmentEmulator=true", "")), "emulator": True,
        },
        "signature": {"connection_string": Secret(signed)},
        "azure-identity": {"credential": Bearer(server.broker.bearer), "emulator": True},
    }[kind]  # type: ignore[assignment]  # fmt: skip
    with open_publisher(broker.source_url(name), **options) as made:
        assert made.publish([Message(b"in")])[0].error is None
    with reading(broker, name, **options) as reader:
        assert take(reader, 1)[0].body == b"in"


def test_wrong_token_is_an_authentication_error(broker: EventHubsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the token is not in it."""
    monkeypatch.delenv(VARIABLE)
    made = open_publisher(broker.source_url(hub(broker)), credential=Bearer("not-the-token"), emulator=True)
    with pytest.raises(AuthenticationError) as raised:
        made.open()
    assert "not-the-token" not in str(raised.value)


def test_credential_of_the_asyncio_half_is_refused(broker: EventHubsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at once which one to give."""
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=r"azure\.identity\.aio"):
        open_publisher(broker.source_url("orders"), credential=AsyncBearer())
