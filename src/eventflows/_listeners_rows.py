"""Users and listeners as values, and as the API writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from eventflows.errors import ConfigError, ListenersError
from eventflows.secret import Secret

LONGEST: Final = 255
"""Characters of a text, at most. Source: the platform's API description."""
LISTENER_COLUMNS: Final = ("id", "source_type", "source_uri", "algorithm", "algo_timeout_seconds", "credentials")
USER_COLUMNS: Final = ("username", "id", "email")

_WIRE: Final = {
    "id": "id",
    "source_type": "sourceType",
    "source_uri": "sourceURI",
    "algo_name": "algoName",
    "algo_owner": "algoOwner",
    "algo_version": "algoVersion",
    "algo_timeout_seconds": "algoTimeoutSeconds",
    "listener_owner": "listenerOwner",
    "credentials": "credentials",
}
_READ_ONLY: Final = ("id", "listener_owner")
_USER: Final = ("id", "username", "email", "fullname", "company_name", "company_role")


@attrs.frozen(kw_only=True)
class Listener:
    """An event flow that the platform itself runs."""

    id: str | int | None = None
    """Given by the platform: a UUID, or an integer on some versions; None before `create`."""
    source_type: str | None = None
    """`AmazonSQS` or `AzureSB`; others are kept as they come."""
    source_uri: str | None = None
    """The queue."""
    algo_name: str | None = None
    """Name of the algorithm."""
    algo_owner: str | None = None
    """Owner of the algorithm."""
    algo_version: str | None = None
    """Version of the algorithm."""
    algo_timeout_seconds: int | None = None
    """Seconds that one call may take; None leaves the platform's default."""
    listener_owner: str | None = None
    """Read only."""
    credentials: str | Secret | None = None
    """A role's ARN, shown; anything else is a connection string, and hidden."""
    account: str | None = None
    """Name of the account, where the listing knows it; not part of what the API has."""
    extra: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Fields that this version does not know; sent back on `update`."""

    @property
    def algorithm(self) -> str:
        """The algorithm as "owner/name/version", as far as it is known."""
        return "/".join(part for part in (self.algo_owner, self.algo_name, self.algo_version) if part)


@attrs.frozen(kw_only=True)
class User:
    """An account of the cluster."""

    id: str
    """The id that paths use."""
    username: str | None = None
    """The name."""
    email: str | None = None
    """The address."""
    fullname: str | None = None
    """The person's name."""
    company_name: str | None = None
    """The organisation."""
    company_role: str | None = None
    """The person's part in it."""
    extra: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Fields that this version does not know."""


def user_of(row: object, request: str) -> User:
    """Make a user of what the API answered.

    Raises:
        ListenersError: It is not one; the text names the request and the field.
    """
    row = _object(row, "user", request)
    identity = row.get("id")
    if isinstance(identity, bool) or not isinstance(identity, (str, int)) or identity == "":
        raise _wrong(request, "user", "id", "text or a number")
    texts = {name: _text(row, name, "user", request) for name in _USER[1:]}
    extra = {name: value for name, value in row.items() if name not in _USER}
    return User(id=str(identity), extra=extra, **texts)


def listener_of(row: object, request: str) -> Listener:
    """Make a listener of what the API answered.

    Raises:
        ListenersError: It is not one; the text names the request and the field.
    """
    row = _object(row, "listener", request)
    identity, seconds = row.get("id"), row.get("algoTimeoutSeconds")
    if isinstance(identity, bool) or not isinstance(identity, (str, int, type(None))):
        raise _wrong(request, "listener", "id", "text or a number")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, type(None))):
        raise _wrong(request, "listener", "algoTimeoutSeconds", "a whole number")
    texts = {
        ours: _text(row, theirs, "listener", request)
        for ours, theirs in _WIRE.items()
        if ours not in ("id", "algo_timeout_seconds", "credentials")
    }
    credentials = _text(row, "credentials", "listener", request)
    return Listener(
        id=identity,
        algo_timeout_seconds=seconds,
        credentials=Secret(credentials) if credentials and not credentials.startswith("arn:") else credentials,
        extra={name: value for name, value in row.items() if name not in _WIRE.values()},
        **texts,
    )


def wire_of(listener: Listener) -> dict[str, Any]:
    """Write a listener as the API takes it, unknown fields included.

    Raises:
        ConfigError: A text is too long; it would be refused.
    """
    out = dict(listener.extra)
    for ours, theirs in _WIRE.items():
        value = getattr(listener, ours)
        if value is None or ours in _READ_ONLY:
            continue
        out[theirs] = value.reveal() if isinstance(value, Secret) else value
        if isinstance(out[theirs], str) and len(out[theirs]) > LONGEST:
            raise ConfigError(f"{ours} has {len(out[theirs])} characters; the platform takes {LONGEST}.")
    return out


def _object(row: object, what: str, request: str) -> Mapping[str, Any]:
    if not isinstance(row, dict):
        raise ListenersError(f"{request}: a {what} of the answer is not an object.", request=request)
    return row


def _text(row: Mapping[str, Any], name: str, what: str, request: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong(request, what, name, "text")
    return value


def _wrong(request: str, what: str, field: str, expected: str) -> ListenersError:
    return ListenersError(f"{request}: {field} of a {what}: expected {expected}.", request=request)
