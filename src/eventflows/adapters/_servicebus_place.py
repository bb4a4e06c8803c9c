"""Where a `servicebus://` URL points, its options, and the client for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from eventflows.adapters._azure import (
    COMMON,
    EMULATOR,
    connection_string,
    default_credential,
    emulated,
    flag,
    host_of,
    some_text,
)
from eventflows.adapters._servicebus_types import Client
from eventflows.errors import ConfigError
from eventflows.protocols import Location, Option
from eventflows.secret import Secret

FORM: Final = "servicebus://namespace/queue or servicebus://namespace/topic?subscription=name"
_NAME: Final = re.compile(r"[A-Za-z0-9]([\w./-]*[A-Za-z0-9_])?")
SESSIONS: Final = 8
MOST_SESSIONS: Final = 100  # each has a thread and a connection of its own
SESSION_IDLE: Final = 2.0
_LONGEST: Final = 260  # characters of an entity's path (Service Bus quotas)


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
    host = host_of(location.authority)
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
    if "dead-letter" in options and "sessions" in options:
        raise ConfigError(f"{location.text}: dead letters have no sessions; leave sessions= out.")
    if "session_idle" in options and "sessions" not in options:
        raise ConfigError(f"{location.text}: session_idle= needs sessions=.")
    given = options.get("connection-string")
    if given is None and not place.host:
        raise ConfigError(f"{location.text}: the namespace is missing; write {FORM}, or give connection_string=.")
    if given is not None and options.get("credential") is not None:
        raise ConfigError(f"{location.text}: give connection_string= or credential=, not both.")


def _how_many(value: object) -> int:
    if value == "":
        return SESSIONS
    if isinstance(value, bool) or not str(value).isdecimal() or not 1 <= int(str(value)) <= MOST_SESSIONS:
        raise ValueError(f"expected how many sessions at once, 1 to {MOST_SESSIONS}")
    return int(str(value))


def _seconds(value: object) -> float:
    try:
        seconds = float(str(value))
    except ValueError:
        seconds = -1.0
    if not 0.05 <= seconds <= 3600:
        raise ValueError("expected seconds, 0.05 to 3600")
    return seconds


SOURCE: Final = (
    *COMMON,
    EMULATOR,
    Option(name="subscription", parse=some_text, about="of the topic (default: the URL names a queue)"),
    Option(
        name="sessions",
        parse=_how_many,
        about=f"how many sessions are read at once, of an entity that has them ({SESSIONS}, if written alone)",
    ),
    Option(
        name="session_idle",
        parse=_seconds,
        about=f"seconds without a message after which a session is let go (default {SESSION_IDLE:g})",
    ),
    Option(name="dead-letter", parse=flag, about="reads the dead letters", url_only=True),
)
DESTINATION: Final = (*COMMON, EMULATOR)


def client_of(place: Place, options: Mapping[str, object], **settings: Any) -> Client:  # noqa: ANN401 - the client's own
    """Make the client; it connects later.

    Raises:
        ConfigError: The connection string is not one, or is another namespace's.
        MissingExtraError: azure-identity is not installed, and no other credentials are given.
    """
    from azure.servicebus import ServiceBusClient

    given = options.get("connection-string")
    if isinstance(given, Secret):
        text = connection_string(given.reveal(), host=place.host, entity=place.entity, shown=place.text)
        try:
            return ServiceBusClient.from_connection_string(emulated(text, options), **settings)
        except ValueError as error:
            raise ConfigError(f"{place.text}: connection_string=: {error}") from None
    if not place.host:
        raise ConfigError(f"{place.text}: the namespace is missing; write {FORM}, or give connection_string=.")
    if "emulator" in options:
        settings["use_tls"] = False
    return ServiceBusClient(place.host, options.get("credential") or default_credential(), **settings)  # type: ignore[arg-type]
