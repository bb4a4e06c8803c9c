"""Where an `eventhubs://` URL points, and its options."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import os
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
    host_of,
    secret_text,
    some_text,
)
from eventflows.errors import ConfigError
from eventflows.protocols import Location, Option
from eventflows.secret import Secret

FORM: Final = "eventhubs://namespace/hub?group=$Default"
_NAME: Final = re.compile(r"[A-Za-z0-9]([\w.-]{0,254}[A-Za-z0-9])?")  # at most 256 characters ("Event Hubs quotas")
BALANCE: Final = 10.0
WATCH: Final = 60.0
MEMORY: Final = "memory"
Start = str | int | datetime.datetime
"""What the client takes: an offset, a sequence number or a time, each of the event before the first."""
_STARTS: Final = (
    "expected oldest, newest, a time, sequence:NUMBER or offset:OFFSET, or a mapping of partitions to these"
)


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
            f"{location.text}: say where positions are kept: "
            "checkpoints=https://ACCOUNT.blob.core.windows.net/CONTAINER, "
            "checkpoints=flows.db, a file of this machine, or checkpoints=memory, which forgets them when the process "
            "ends."
        )
    kept = str(options.get("checkpoints", ""))
    if side == "source" and is_blob(kept):
        container_of(kept)
    elif options.get("checkpoints-connection-string") is not None:
        raise ConfigError(
            f"{location.text}: checkpoints_connection_string= needs checkpoints=https://..., a container."
        )
    if inspect.iscoroutinefunction(getattr(options.get("credential"), "get_token", None)):
        raise ConfigError(f"{location.text}: credential= is one of azure.identity.aio; give that of azure.identity.")


def is_blob(kept: str) -> bool:
    """Whether positions are kept in a container of Azure Blob Storage."""
    return kept.startswith(("https://", "http://"))


def container_of(url: str) -> tuple[str, str]:
    """Give the account's URL and the name of the container.

    Raises:
        ConfigError: It has no container, or something behind it.
    """
    found = re.fullmatch(r"(https?://[^?#]+)/([a-z0-9$][a-z0-9-]{2,62})/?", url)
    if found is None or found[1].count("/") < 2:
        raise ConfigError(
            f"checkpoints={url.partition('?')[0]}: expected https://ACCOUNT.blob.core.windows.net/CONTAINER, and no "
            "more; a signature belongs into checkpoints_connection_string=."
        )
    return found[1], found[2]


def _place_to_start(value: object) -> Start | Mapping[str, Start]:
    if isinstance(value, Mapping):
        return {str(partition): _one_start(one) for partition, one in value.items()}
    return _one_start(value)


def _one_start(value: object) -> Start:
    """Give what the client is told to begin behind; never inclusive, since it would apply that to checkpoints, too."""
    if isinstance(value, datetime.datetime):
        return _moment(value)
    if not isinstance(value, str):
        raise ValueError(_STARTS)
    word, _, number = value.partition(":")
    if value in ("oldest", "newest"):
        return "-1" if value == "oldest" else "@latest"
    if word == "sequence" and number.isdecimal():
        return int(number) - 1
    if word == "offset" and number:
        return number
    try:
        return _moment(datetime.datetime.fromisoformat(value))
    except ValueError as error:
        raise ValueError(f"{_STARTS}; {error}") from None


def _moment(moment: datetime.datetime) -> datetime.datetime:
    if moment.tzinfo is None:
        raise ValueError("expected a time with its zone, such as 2026-01-01T00:00:00+00:00")
    return moment.astimezone(datetime.UTC) - datetime.timedelta(milliseconds=1)


def _positive(value: object) -> float:
    number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else -1.0
    if not 0 < number < 3600:
        raise ValueError("expected seconds, more than 0 and less than 3600")
    return number


def _path(value: object) -> str:
    return some_text(os.fspath(value) if isinstance(value, os.PathLike) else value)


SOURCE: Final = (
    *COMMON,
    EMULATOR,
    Option(name="group", parse=some_text, about="the consumer group, such as $Default"),
    Option(
        name="checkpoints",
        parse=_path,
        about='what keeps positions: a blob container\'s URL, a SQLite file or "memory"',
    ),
    Option(
        name="checkpoints-connection-string",
        parse=secret_text,
        about="a Secret: the storage account's connection string (default: credential, else what azure-identity finds)",
    ),
    Option(
        name="from",
        parse=_place_to_start,
        about="where a group without positions begins: oldest (default), newest, a time, sequence:N, offset:N",
    ),
    Option(name="watch", parse=_positive, about="seconds of silence until a partition is asked for more (default 60)"),
    Option(name="balance", parse=_positive, about="seconds between two balancings of the partitions (default 10)"),
)
DESTINATION: Final = (*COMMON, EMULATOR)


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
            return kind.from_connection_string(emulated(text, options), eventhub_name=place.hub, **settings)
        except ValueError as error:
            raise ConfigError(f"{place.text}: connection_string=: {error}") from None
    if not place.host:
        raise ConfigError(f"{place.text}: the namespace is missing; write {FORM}, or give connection_string=.")
    credential: Any = options.get("credential") or default_credential()
    if kind.__module__.startswith("azure.eventhub.aio"):
        credential = _InThread(credential)
    if "emulator" in options:
        settings["use_tls"] = False
    return kind(fully_qualified_namespace=place.host, eventhub_name=place.hub, credential=credential, **settings)


class _InThread:
    """A credential for the asyncio client: one that asks on a thread, so that nothing else of the loop waits."""

    def __init__(self, credential: Any) -> None:  # noqa: ANN401 - of azure-identity
        self._credential = credential

    async def get_token(self, *scopes: str, **how: Any) -> Any:  # noqa: ANN401 - an access token
        return await asyncio.to_thread(self._credential.get_token, *scopes, **how)

    async def close(self) -> None:
        """Leave it open: it is the user's."""
