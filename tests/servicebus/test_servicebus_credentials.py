"""Every kind of credentials lets us in, on the stand-in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest
from azure.core.credentials import AccessToken

from amqp import AzureServer
from amqp.server import KEY, KEY_NAME
from eventflows import Message, Secret
from eventflows.errors import AuthenticationError
from eventflows.locate import open_publisher, open_subscriber

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    """A stand-in with one queue."""
    with AzureServer() as server:
        server.queue("orders")
        yield server


class Bearer:
    """A credential, as azure-identity has them: it gives a token of Azure AD."""

    def __init__(self, token: str) -> None:
        self.token = token

    def get_token(self, *scopes: str, **how: Any) -> AccessToken:
        """Give it, for an hour."""
        return AccessToken(self.token, int(time.time()) + 3600)


def signature(azure: AzureServer) -> str:
    """Sign a right for an hour, as an owner of the key does for others."""
    place, until = quote_plus(f"sb://{azure.host}/orders"), str(int(time.time()) + 3600)
    signed = base64.b64encode(hmac.new(KEY.encode(), f"{place}\n{until}".encode(), hashlib.sha256).digest())
    return f"SharedAccessSignature sr={place}&sig={quote_plus(signed)}&se={until}&skn={KEY_NAME}"


@pytest.mark.parametrize("kind", ["connection string", "emulator without its flag", "signature", "azure-identity"])
def test_every_kind_of_credentials_lets_us_in(azure: AzureServer, kind: str) -> None:
    """Both halves: what is published is read."""
    whole = azure.connection_string
    signed = f"Endpoint=sb://{azure.host};SharedAccessSignature={signature(azure)};UseDevelopmentEmulator=true"
    options: dict[str, Any] = {
        "connection string": {"connection_string": Secret(whole)},
        "emulator without its flag": {
            "connection_string": Secret(whole.replace(";UseDevelopmentEmulator=true", "")), "emulator": True,
        },
        "signature": {"connection_string": Secret(signed)},
        "azure-identity": {"credential": Bearer(azure.broker.bearer), "emulator": True},
    }[kind]  # fmt: skip
    url = f"servicebus://{azure.host}/orders"
    with open_publisher(url, **options) as made:
        assert made.publish([Message(b"in")])[0].error is None
    with open_subscriber(url, **options) as reader:
        [chunk] = reader.receive(1, max_bytes=1000, timeout=10)
        assert chunk.bodies == [b"in"]
    azure.call(azure.broker.find("orders").messages.clear)  # type: ignore[union-attr]


def test_wrong_token_is_an_authentication_error_without_the_token(azure: AzureServer) -> None:
    """The service refuses it, and the error says what to correct."""
    made = open_publisher(f"servicebus://{azure.host}/orders?emulator", credential=Bearer("not-the-token"))
    with pytest.raises(AuthenticationError) as raised:
        made.open()
    assert "not-the-token" not in str(raised.value)
