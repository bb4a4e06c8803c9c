"""Where a `servicebus://` URL points, its options, and the client for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from eventflows.adapters._servicebus_types import Client
from eventflows.errors import ConfigError, MissingExtraError
from eventflows.protocols import Location, Option
from eventflows.secret import Secret

FORM: Final = "servicebus://namespace/queue or servicebus://namespace/topic?subscription=name"
SUFFIX: Final = ".servicebus.windows.net"
_NAME: Final = re.compile(r"[A-Za-z0-9]([\w./-]*[A-Za-z0-9_])?")
_LONGEST: Final = 260  # characters of an entity's path (Service Bus quotas)
_PART: Final = re.compile(r"\s*([A-Za-z]+)\s*=(.*)", re.DOTALL)


@attrs.frozen(kw_only=True)
class Place:
    """An entity of a namespace."""

    host: str
    """Fully qualified, perhaps with a port; empty: the connection string's."""
    entity: str
    """Queue or topic."""
    subscription: str | None
    dead: bool
    """Whether its dead letters are meant."""
    text: str
    """As it is shown."""


def place_of(location: Location, options: Mapping[str, object]) -> Place:
    """Read a URL.

    Raises:
        ConfigError: It has no queue or topic, or a name that Service Bus does not allow.
    """
    entity = location.path.strip("/")
    if not entity:
        raise ConfigError(f"{location.text}: the queue or topic is missing; write {FORM}.")
    if len(entity) > _LONGEST or not _NAME.fullmatch(entity):
        raise ConfigError(
            f"{location.text}: {entity[:40]!r} is no name of a queue or topic: letters, digits, '.', '-', '_' "
            f"and '/', at most {_LONGEST} characters."
        )
    host = location.authority
    if host and "." not in host and ":" not in host:
        host += SUFFIX
    subscription = options.get("subscription")
    return Place(
        host=host,
        entity=entity,
        subscription=None if subscription is None else str(subscription),
        dead="dead-letter" in options,
        text=location.text,
    )


def validate(location: Location, options: Mapping[str, object], side: Literal["source", "destination"]) -> None:
    """Check what can be checked without asking anybody."""
    place = place_of(location, options)
    given = options.get("connection-string")
    if given is None and not place.host:
        raise ConfigError(f"{location.text}: the namespace is missing; write {FORM}, or give connection_string=.")
    if given is not None and options.get("credential") is not None:
        raise ConfigError(f"{location.text}: give connection_string= or credential=, not both.")


def secret_text(value: object) -> Secret:
    """Take a connection string, hidden.

    Raises:
        ValueError: It is neither a `Secret` nor text.
    """
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("expected Secret.env(...) or Secret.file(...)")
    return Secret(value)


def _credential(value: object) -> object:
    if not callable(getattr(value, "get_token", None)):
        raise ValueError("expected a credential of azure-identity, with get_token()")
    return value


def _some_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def _flag(value: object) -> bool:
    if value not in ("", True):
        raise ValueError("it takes no value")
    return True


COMMON: Final = (
    Option(
        name="connection-string",
        parse=secret_text,
        about="a Secret: the namespace's connection string (default: what azure-identity finds)",
    ),
    Option(name="credential", parse=_credential, about="a credential of azure-identity"),
)
SOURCE: Final = (
    *COMMON,
    Option(name="subscription", parse=_some_text, about="of the topic (default: the URL names a queue)"),
    Option(name="dead-letter", parse=_flag, about="reads the dead letters", url_only=True),
)
DESTINATION: Final = COMMON


def parts_of(text: str, place: Place) -> dict[str, str]:
    """Read a connection string: names in lower case to values. Nothing of it is in an error.

    Raises:
        ConfigError: It is not one, or it is another namespace's.
    """
    found = [_PART.fullmatch(part) for part in text.strip().rstrip(";").split(";")]
    parts = {match[1].lower(): match[2].strip() for match in found if match is not None}
    endpoint = re.fullmatch(r"(?:sb|amqps?|https)://([^/]+)/?", parts.get("endpoint", ""))
    if None in found or endpoint is None:
        raise ConfigError(f"{place.text}: connection_string= is not a connection string: Endpoint=sb://...;...")
    if place.host and place.host.partition(":")[0].lower() != endpoint[1].partition(":")[0].lower():
        raise ConfigError(
            f"{place.text}: the connection string is that of {endpoint[1]}, another namespace; correct one of them."
        )
    if "entitypath" in parts and parts["entitypath"].lower() != place.entity.lower():
        raise ConfigError(f"{place.text}: the connection string is only for {parts['entitypath']}; correct one.")
    return {**parts, "endpoint": f"sb://{place.host or endpoint[1]}"}


_WRITTEN: Final = {
    "endpoint": "Endpoint",
    "sharedaccesskeyname": "SharedAccessKeyName",
    "sharedaccesskey": "SharedAccessKey",
    "sharedaccesssignature": "SharedAccessSignature",
    "usedevelopmentemulator": "UseDevelopmentEmulator",
}


def client_of(place: Place, options: Mapping[str, object], **settings: Any) -> Client:  # noqa: ANN401 - the client's own
    """Make the client; it connects later.

    Raises:
        ConfigError: The connection string is not one, or is another namespace's.
        MissingExtraError: azure-identity is not installed, and no other credentials are given.
    """
    from azure.servicebus import ServiceBusClient

    given = options.get("connection-string")
    if isinstance(given, Secret):
        parts = parts_of(given.reveal(), place)
        if "usedevelopmentemulator" in parts:  # the client knows one spelling only
            parts["usedevelopmentemulator"] = parts["usedevelopmentemulator"].lower()
        text = ";".join(f"{_WRITTEN[name]}={value}" for name, value in parts.items() if name in _WRITTEN)
        try:
            return ServiceBusClient.from_connection_string(text, **settings)
        except ValueError as error:
            raise ConfigError(f"{place.text}: connection_string=: {error}") from None
    return ServiceBusClient(place.host, options.get("credential") or default_credential(), **settings)  # type: ignore[arg-type]


def default_credential() -> Any:  # noqa: ANN401 - a credential of azure-identity
    """Make the credential that finds its own way: environment, managed identity, command line.

    Raises:
        MissingExtraError: azure-identity is not installed.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise MissingExtraError(
            "Credentials of Azure AD need azure-identity. Install eventflows[identity], or give connection_string=."
        ) from None
    return DefaultAzureCredential()
