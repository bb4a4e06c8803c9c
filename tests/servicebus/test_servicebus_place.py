"""`servicebus://` URLs, options and connection strings: what is refused before anything is opened."""

from __future__ import annotations

import pytest

from eventflows import Secret
from eventflows.adapters._azure import connection_string
from eventflows.adapters._servicebus_place import place_of
from eventflows.errors import ConfigError, MissingExtraError
from eventflows.locate import open_publisher, open_subscriber, parse, resolve

KEY = "bm90LWEtcmVhbC1rZXk="
STRING = f"Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey={KEY}"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("servicebus://shop/orders", "shop.servicebus.windows.net"),
        ("servicebus://shop.servicebus.windows.net/orders", "shop.servicebus.windows.net"),
        ("servicebus://localhost:5672/orders", "localhost:5672"),
        ("servicebus://shop.servicebus.chinacloudapi.cn/orders", "shop.servicebus.chinacloudapi.cn"),
    ],
)
def test_a_namespace_may_be_written_short(url: str, host: str) -> None:
    """A name without dots is one of the public cloud."""
    assert place_of(parse(url), {}).host == host


@pytest.mark.parametrize(
    "url",
    [
        "servicebus://shop",
        "servicebus://shop/",
        "servicebus:///orders",
        "servicebus://shop/no spaces",
        "servicebus://shop/$management",
        "servicebus://shop/" + "x" * 261,
        "servicebus://shop/orders?subscription=",
        "servicebus://shop/orders?dead-letter=yes",
    ],
)
def test_a_url_that_cannot_be_right_is_refused(url: str) -> None:
    """The mistake is told before anything is opened."""
    with pytest.raises(ConfigError):
        resolve(url, {}, "source")


def test_a_connection_string_gives_the_namespace() -> None:
    """With one, the URL may leave the namespace out."""
    text = connection_string(STRING, host="", entity="orders", shown="servicebus:///orders")
    assert text.startswith("Endpoint=sb://shop.servicebus.windows.net;")


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "Endpoint=nonsense;SharedAccessKey=" + KEY,
        STRING.replace("shop", "another"),
        STRING + ";EntityPath=invoices",
    ],
)
def test_a_connection_string_that_does_not_fit_is_refused_without_its_key(text: str) -> None:
    """Another namespace's, another queue's, or none at all; the key is in no error."""
    with pytest.raises(ConfigError) as caught:
        connection_string(text, host="shop.servicebus.windows.net", entity="orders", shown="servicebus://shop/orders")
    assert KEY not in str(caught.value)


def test_two_kinds_of_credentials_are_one_too_many() -> None:
    """A connection string and a credential contradict each other."""

    class Token:
        def get_token(self) -> None:
            """Never asked."""

    with pytest.raises(ConfigError, match="not both"):
        open_subscriber("servicebus://shop/orders", connection_string=Secret(STRING), credential=Token())


def test_no_repr_shows_the_key() -> None:
    """Subscriber and publisher show their URL only."""
    made = [
        open("servicebus://shop/orders", connection_string=Secret(STRING)) for open in (open_subscriber, open_publisher)
    ]
    assert [KEY in repr(one) for one in made] == [False, False]


def test_without_any_credentials_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where azure-identity is not installed, opening says which extra to install."""
    import sys

    monkeypatch.setitem(sys.modules, "azure.identity", None)
    monkeypatch.delenv("EVENTFLOWS_SERVICEBUS_CONNECTION_STRING", raising=False)
    with pytest.raises(MissingExtraError, match=r"eventflows\[identity\]"):
        open_subscriber("servicebus://shop/orders").open(timeout=5)
