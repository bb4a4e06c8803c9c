"""Where an `eventhubs://` URL points, and its options."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from eventflows.adapters._azure import COMMON, connection_string, default_credential, host_of, some_text
from eventflows.errors import ConfigError
from eventflows.protocols import Location, Option
from eventflows.secret import Secret

FORM: Final = "eventhubs://namespace/hub?group=$Default"
_NAME: Final = re.compile(r"[A-Za-z0-9]([\w.-]{0,254}[A-Za-z0-9])?")  # at most 256 characters ("Event Hubs quotas")
BALANCE: Final = 10.0
MEMORY: Final = "memory"


@attrs.frozen(kw_only=True)
class Place:
    """A hub of a namespace."""

    host: str
    """Fully qualified, perhaps with a port; empty: the connection string's."""
    hub: str
    text: str
    """As it is shown."""


def place_of(location: Location) -> Place:
    """Read a URL.

    Raises:
        ConfigError: It has no hub, or a name that Event Hubs does not allow.
    """
    hub = location.path.strip("/")
    if not _NAME.fullmatch(hub):
        raise ConfigError(f"{location.text}: the name of the hub is missing, or is none; write {FORM}.")
    return Place(host=host_of(location.authority), hub=hub, text=location.text)


def validate(location: Location, options: Mapping[str, object], side: Literal["source", "destination"]) -> None:
    """Check what can be checked without asking anybody."""
    place = place_of(location)
    given = options.get("connection-string")
    if given is None and not place.host:
        raise ConfigError(f"{location.text}: the namespace is missing; write {FORM}, or give connection_string=.")
    if given is not None and options.get("credential") is not None:
        raise ConfigError(f"{location.text}: give connection_string= or credential=, not both.")
    if side == "source" and "group" not in options:
        raise ConfigError(f"{location.text}: the consumer group is missing; write {FORM}.")
    if side == "source" and "checkpoints" not in options:
        raise ConfigError(
            f"{location.text}: say where positions are kept: checkpoints=flows.db, a file of this machine, or "
            "checkpoints=memory, which forgets them when the process ends."
        )


def _place_to_start(value: object) -> object:
    if isinstance(value, datetime.datetime):
        moment = value
    elif value in ("oldest", "newest"):
        return "-1" if value == "oldest" else "@latest"
    elif isinstance(value, str):
        moment = datetime.datetime.fromisoformat(value)
    else:
        raise ValueError("expected oldest, newest or a time")
    if moment.tzinfo is None:
        raise ValueError("expected a time with its zone, such as 2026-01-01T00:00:00+00:00")
    return moment.astimezone(datetime.UTC)


def _positive(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if not 0 < number < 3600:
        raise ValueError("expected seconds, more than 0 and less than 3600")
    return number


def _path(value: object) -> str:
    return some_text(os.fspath(value) if isinstance(value, os.PathLike) else value)


SOURCE: Final = (
    *COMMON,
    Option(name="group", parse=some_text, about="the consumer group, such as $Default"),
    Option(name="checkpoints", parse=_path, about='the SQLite file that keeps positions, or "memory"'),
    Option(name="from", parse=_place_to_start, about="oldest (default), newest or a time: where a new group begins"),
    Option(name="balance", parse=_positive, about="seconds between two balancings of the partitions (default 10)"),
)
DESTINATION: Final = COMMON


def connect(
    kind: Any,  # noqa: ANN401 - a client's class
    place: Place,
    options: Mapping[str, object],
    **settings: Any,  # noqa: ANN401 - the client's own
) -> Any:  # noqa: ANN401 - the client
    """Make a client; it connects later.

    Raises:
        ConfigError: The connection string is not one, or is another namespace's.
        MissingExtraError: azure-identity is not installed, and no other credentials are given.
    """
    given = options.get("connection-string")
    if isinstance(given, Secret):
        text = connection_string(given.reveal(), host=place.host, entity=place.hub, shown=place.text)
        try:
            return kind.from_connection_string(text, eventhub_name=place.hub, **settings)
        except ValueError as error:
            raise ConfigError(f"{place.text}: connection_string=: {error}") from None
    credential = options.get("credential") or default_credential()
    return kind(fully_qualified_namespace=place.host, eventhub_name=place.hub, credential=credential, **settings)
