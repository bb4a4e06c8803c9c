"""What `check` says of locks and deliveries, by the vendor's own administration client, over HTTP to the stand-in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.pipeline.transport import RequestsTransport
from azure.servicebus.management import ServiceBusAdministrationClient

from amqp import AzureServer
from amqp.server import KEY, KEY_NAME
from eventflows import Secret
from eventflows.adapters._servicebus_check import check_source
from eventflows.adapters._servicebus_limits import administration_of, limits
from eventflows.adapters._servicebus_place import Place
from eventflows.errors import ConfigError
from eventflows.protocols import Finding

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
READER = "a-key-that-only-listens"


class PlainHttp(RequestsTransport):
    """The client insists on https; loopback has none."""

    def send(self, request: Any, **how: Any) -> Any:
        """Send it without TLS."""
        request.url = urlsplit(request.url)._replace(scheme="http").geturl()
        return super().send(request, **how)


class Asked:
    """A stand-in, and the administration client for it."""

    def __init__(self, server: AzureServer) -> None:
        self.server = server
        self.where = server.administration()

    def client(self, place: Place, options: Mapping[str, object]) -> ServiceBusAdministrationClient:
        """Make the vendor's client, with the key whose name is in the options."""
        name = str(options.get("key", KEY_NAME))
        text = f"Endpoint=sb://{self.where};SharedAccessKeyName={name};SharedAccessKey={KEY}"
        return ServiceBusAdministrationClient.from_connection_string(text, transport=PlainHttp(), retry_total=0)

    def found(self, entity: str, subscription: str | None = None, *, dead: bool = False, **options: object) -> Any:
        """Ask for the limits of an entity."""
        place = Place(host=self.server.host, entity=entity, subscription=subscription, dead=dead, text="servicebus://x")
        return limits(place, options, self.client)


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    """A stand-in with entities of several limits."""
    with AzureServer() as server:
        server.queue("roomy", lock=60.0, max_delivery=10)
        server.queue("tight", lock=5.0, max_delivery=2)
        server.topic("news", "all", lock=300.0, max_delivery=20)
        server.call(lambda: server.broker.keys.update({READER: KEY}))
        yield Asked(server)


@pytest.mark.parametrize(
    ("entity", "subscription", "lock", "level", "deliveries"),
    [("roomy", None, "60 s", "ok", 10), ("tight", None, "5 s", "warning", 2), ("news", "all", "300 s", "ok", 20)],
)
def test_lock_is_compared_with_the_longest_turn(
    asked: Asked, entity: str, subscription: str | None, lock: str, level: str, deliveries: int
) -> None:
    """A lock that a slow settlement may outlast is a warning; how often the service delivers is handed on."""
    first, second = asked.found(entity, subscription)
    assert (first.level, lock in first.text, "Set the lock duration" in first.fix) == (level, True, level == "warning")
    assert (second.level, second.deliveries) == ("ok", deliveries)


def test_dead_letters_have_a_lock_and_no_end(asked: Asked) -> None:
    """Nothing moves a message out of them, however often it is delivered."""
    [only] = asked.found("tight", dead=True)
    assert (only.level, only.deliveries) == ("warning", None)


def test_a_key_that_may_not_manage_is_said_in_one_line(asked: Asked) -> None:
    """It is nothing wrong: reading works without; the line names the right that is missing."""
    [only] = asked.found("roomy", key=READER)
    assert (only.level, "is not known" in only.text, "Manage" in only.text, KEY in only.text) == (
        "ok",
        True,
        True,
        False,
    )


@pytest.mark.parametrize("entity", ["nobody-made-this", "news"])
def test_an_entity_without_limits_is_said_in_one_line(asked: Asked, entity: str) -> None:
    """One that is not there, or is a topic where a queue is meant, ends no check."""
    [only] = asked.found(entity)
    assert (only.level, "is not known" in only.text) == ("ok", True)


def test_an_administration_that_cannot_be_reached_is_said_in_one_line() -> None:
    """A wall that lets AMQP through and no HTTPS ends no check."""
    place = Place(host="127.0.0.1", entity="orders", subscription=None, dead=False, text="servicebus://x")
    secret = Secret(f"Endpoint=sb://127.0.0.1;SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY}")
    [only] = limits(place, {"connection-string": secret}, administration_of)
    assert (only.level, "HTTPS, port 443" in only.text, KEY in only.text) == ("ok", True, False)


def test_check_asks_for_the_limits_between_reach_and_dead_letters(asked: Asked) -> None:
    """The whole check of a source, its limits included."""
    place = Place(host=asked.server.host, entity="tight", subscription=None, dead=False, text="servicebus://x")
    options = {"connection-string": Secret(asked.server.connection_string)}
    findings = check_source(place, options, asked.client)
    assert [one.level for one in findings] == ["ok", "warning", "ok", "ok"]


def test_the_administration_has_the_credentials_of_the_source() -> None:
    """A connection string's namespace, without the port of AMQP; or the namespace of the URL with a credential."""
    place = Place(host="ns.servicebus.windows.net:5671", entity="q", subscription=None, dead=False, text="x")
    secret = Secret("Endpoint=sb://ns.servicebus.windows.net;SharedAccessKeyName=n;SharedAccessKey=a2V5")

    class Credential:
        def get_token(self, *scopes: str, **how: object) -> object:
            raise AssertionError("nothing is asked before it is used")

    for options in ({"connection-string": secret}, {"credential": Credential()}):
        assert administration_of(place, options).fully_qualified_namespace == "ns.servicebus.windows.net"


def test_the_emulator_is_not_asked() -> None:
    """The vendor's client speaks HTTPS only, and the emulator has none."""
    place = Place(host="127.0.0.1:5672", entity="q", subscription=None, dead=False, text="x")
    with pytest.raises(ConfigError, match="emulator"):
        administration_of(place, {"emulator": True})


@pytest.mark.parametrize(("attempts", "level"), [(10, "ok"), (11, "warning")])
def test_deliveries_are_compared_with_attempts(attempts: int, level: str) -> None:
    """Where the service gives a message up before the flow does, the flow's last attempts never happen."""
    from eventflows import RetryPolicy, subscriber
    from eventflows.cli.check import attempts_of

    flow = subscriber("local://orders", name="orders", retry=RetryPolicy(attempts=attempts))(lambda body: None)
    findings: list[Finding] = list(attempts_of(flow.plan(), [10]))
    assert [(one.level, f"{attempts} attempts" in one.text) for one in findings] == [(level, True)]
