"""A thin client for the platform's users and event listeners."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import attrs
import httpx

from eventflows.errors import ConfigError, ListenersError
from eventflows.secret import Secret

ATTEMPTS = 4
BUSY = frozenset({429, 502, 503, 504})
IDEMPOTENT = frozenset({"GET", "PUT", "DELETE"})
READERS = 16  # accounts read at once
MAX_WAIT = 30.0  # seconds; a server may ask for more, a caller at a prompt will not wait for it

_WIRE = {
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
_READ_ONLY = ("id", "listener_owner")


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
    extra: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """Fields that this version does not know; sent back on `update`."""


@attrs.frozen(kw_only=True)
class User:
    """An account of the cluster."""

    id: str
    """The id that paths use."""
    username: str | None = None
    """The name."""
    email: str | None = None
    """The address."""


@attrs.frozen(kw_only=True)
class ClusterListing:
    """The listeners of every account that could be read."""

    accounts: Mapping[str, list[Listener]]
    """By user name, or by id where there is no name."""
    refused: Mapping[str, str]
    """Accounts that could not be read, each with the reason."""


class EventListeners:
    """List, create, change and delete the event flows that the platform runs.

    Making one connects to nothing; connections are reused until `close`. Safe to share between threads.

    Args:
        api: Base address, such as `https://api.CLUSTER_DOMAIN`.
        api_key: The account's own key.
        admin_api_key: The administrator's key, which user look-ups need.
        timeout: Seconds that connecting, or each wait for bytes, may take.
    """

    def __init__(
        self,
        api: str,
        *,
        api_key: str | Secret | None = None,
        admin_api_key: str | Secret | None = None,
        timeout: float = 30.0,
    ) -> None:
        if not api.startswith(("https://", "http://")):
            raise ConfigError(f"EventListeners({api!r}): the address begins with https:// (or http://).")
        self._api = api.rstrip("/")
        self._key = _secret(api_key)
        self._admin = _secret(admin_api_key)
        # A redirect is refused, not followed: the key must not travel to another host.
        self._http = httpx.Client(timeout=timeout, follow_redirects=False)
        self._ids: dict[str, str] = {}

    @classmethod
    def from_env(cls) -> EventListeners:
        """Read `ALGORITHMIA_API`, `ALGORITHMIA_API_KEY` and `ALGORITHMIA_ADMIN_API_KEY`.

        Raises:
            ConfigError: `ALGORITHMIA_API` is not set.
        """
        api = os.environ.get("ALGORITHMIA_API")
        if not api:
            raise ConfigError("ALGORITHMIA_API is not set. Set it to the address of the cluster's API.")
        return cls(
            api,
            api_key=os.environ.get("ALGORITHMIA_API_KEY") or None,
            admin_api_key=os.environ.get("ALGORITHMIA_ADMIN_API_KEY") or None,
        )

    def __repr__(self) -> str:
        """Show the address, never a key."""
        return f"EventListeners({self._api!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def user(self, name: str) -> User:
        """Look an account up by name, with the administrator's key.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer; the text and `status` say why.
        """
        return _user(self._call("GET", f"/v1/users/{_part(name)}", admin=True))

    def users(self) -> list[User]:
        """List every account, over all pages, with the administrator's key.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer; the text and `status` say why.
        """
        return [_user(row) for row in self._pages("/v1/users", admin=True)]

    def listeners(self, account: str | None = None, *, user_id: str | None = None) -> list[Listener]:
        """List an account's listeners, over all pages.

        Args:
            account: The account's name, which needs the administrator's key.
            user_id: The account's id, which does not. Give one of the two.

        Raises:
            ConfigError: Neither or both were given, or the key that it needs was not.
            ListenersError: The API refused or did not answer; the text and `status` say why.
        """
        if (account is None) == (user_id is None):
            raise ConfigError("listeners(): give either an account's name or user_id=.")
        if user_id is None and account is not None:
            user_id = self._ids.get(account) or self.user(account).id
            self._ids[account] = user_id
        return [_listener(row) for row in self._pages(_path(str(user_id)))]

    def all_listeners(self, api_keys: Mapping[str, str | Secret] | None = None) -> ClusterListing:
        """List the listeners of every account of the cluster, several accounts at a time.

        An account that cannot be read does not stop the others: it is in `refused`.

        Args:
            api_keys: Keys by user name; an account without one is read with the administrator's key.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The accounts themselves cannot be listed; the text and `status` say why.
        """
        keys = {name: Secret(key) if isinstance(key, str) else key for name, key in (api_keys or {}).items()}

        def read(user: User) -> list[Listener] | str:
            key = keys.get(user.username or user.id, self._admin)
            try:
                return [_listener(row) for row in self._pages(_path(user.id), key=key)]
            except ListenersError as error:
                return str(error)

        users = self.users()
        with ThreadPoolExecutor(READERS) as pool:
            found = {
                user.username or user.id: answer for user, answer in zip(users, pool.map(read, users), strict=True)
            }
        return ClusterListing(
            accounts={name: answer for name, answer in found.items() if not isinstance(answer, str)},
            refused={name: answer for name, answer in found.items() if isinstance(answer, str)},
        )

    def get(self, user_id: str, listener_id: str | int) -> Listener:
        """Read one listener.

        Args:
            user_id: The account's id.
            listener_id: The listener's.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer; the text and `status` say why.
        """
        return _listener(self._call("GET", _path(user_id, listener_id)))

    def create(self, user_id: str, listener: Listener) -> Listener:
        """Create a listener. It is not tried again by itself.

        Args:
            user_id: The account's id.
            listener: What to create; its id is the API's to give.

        Returns:
            The listener, with its id.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer. With a `status` of 4xx nothing was changed; else the
                listener may have been created: look before trying anew.
        """
        return _listener(self._call("POST", _path(user_id), body=_wire(listener)))

    def update(self, user_id: str, listener: Listener) -> Listener:
        """Replace the listener that has this id, unknown fields included.

        Args:
            user_id: The account's id.
            listener: What it is to be; it has an id.

        Returns:
            The listener as the API has it now.

        Raises:
            ConfigError: It has no id: use `create`. Or the key was not given.
            ListenersError: The API refused or did not answer. With a `status` of 4xx nothing was changed; else the
                listener may have been changed: look before trying anew.
        """
        if listener.id is None:
            raise ConfigError("update(): the listener has no id. Use create() for a new one.")
        return _listener(self._call("PUT", _path(user_id, listener.id), body=_wire(listener)))

    def delete(self, user_id: str, listener_id: str | int) -> None:
        """Delete a listener.

        Args:
            user_id: The account's id.
            listener_id: The listener's.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer. With a `status` of 4xx nothing was changed; else the
                listener may have been deleted: look before trying anew.
        """
        self._call("DELETE", _path(user_id, listener_id), empty=True)

    def _pages(self, path: str, *, admin: bool = False, key: Secret | None = None) -> Iterator[dict[str, Any]]:
        seen: set[str] = set()
        params: dict[str, str] = {}
        while True:
            answer = self._call("GET", path, admin=admin, key=key, params=params)
            page = isinstance(answer, dict) and "results" in answer
            rows = answer["results"] if page else answer if isinstance(answer, list) else [answer]
            for row in rows if isinstance(rows, list) else [rows]:
                if not isinstance(row, dict):
                    raise _error("GET", path, "a row of the answer is not an object")
                yield row
            marker = answer.get("marker") if page else None
            if not marker:
                return
            if marker in seen:
                raise _error("GET", path, "the pages never end: a marker came twice")
            seen.add(marker)
            params = {"marker": marker}

    def _call(
        self,
        method: str,
        path: str,
        *,
        admin: bool = False,
        key: Secret | None = None,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        empty: bool = False,
    ) -> Any:  # noqa: ANN401 - JSON
        key = key or (self._admin if admin else self._key)
        if key is None:
            name = "admin_api_key= (ALGORITHMIA_ADMIN_API_KEY)" if admin else "api_key= (ALGORITHMIA_API_KEY)"
            raise ConfigError(f"{method} {path} needs {name}, which is not given.")
        headers = {"Authorization": f"Simple {key.reveal()}"}
        for attempt in range(1, ATTEMPTS + 1):
            last = method not in IDEMPOTENT or attempt == ATTEMPTS
            try:
                answer = self._http.request(method, self._api + path, params=params, json=body, headers=headers)
            except httpx.TransportError as error:
                if last:
                    raise _error(method, path, f"no answer ({type(error).__name__}); check the address") from error
                time.sleep(0.1 * 2**attempt)
                continue
            if answer.status_code in BUSY and not last:
                asked = answer.headers.get("Retry-After", "")
                time.sleep(min(float(asked), MAX_WAIT) if asked.isdecimal() else 0.1 * 2**attempt)
                continue
            break
        return _read(method, path, answer, empty=empty)


def _read(method: str, path: str, answer: httpx.Response, *, empty: bool) -> Any:  # noqa: ANN401 - JSON
    status = answer.status_code
    if answer.is_success and empty:
        return None
    try:
        value = answer.json()
    except ValueError as error:
        kind = answer.headers.get("Content-Type", "no content type")
        raise _error(method, path, f"HTTP {status}, and the answer is not JSON ({kind})", status=status) from error
    if answer.is_success and isinstance(value, (dict, list)):
        return value
    said = value if isinstance(value, dict) else {}
    code, message = said.get("code"), said.get("message")
    raise _error(
        method, path, f"HTTP {status}: {message or 'no reason given'}", status=status, code=code, message=message
    )


def _error(method: str, path: str, text: str, **more: Any) -> ListenersError:  # noqa: ANN401 - passed through
    return ListenersError(f"{method} {path}: {text}.", request=f"{method} {path}", **more)


def _secret(key: str | Secret | None) -> Secret | None:
    return Secret(key) if isinstance(key, str) else key


def _part(value: str | int) -> str:
    return quote(str(value), safe="")


def _path(user_id: str, listener_id: str | int | None = None) -> str:
    path = f"/v1/users/{_part(user_id)}/event-listeners"
    return path if listener_id is None else f"{path}/{_part(listener_id)}"


def _user(row: Mapping[str, Any]) -> User:
    if not isinstance(row, dict) or not row.get("id"):
        raise ListenersError("The API answered a user without an id.")
    return User(id=str(row["id"]), username=row.get("username"), email=row.get("email"))


def _listener(row: Any) -> Listener:  # noqa: ANN401 - JSON
    if not isinstance(row, dict):
        raise ListenersError("The API answered something that is no listener.")
    known = {ours: row.get(theirs) for ours, theirs in _WIRE.items()}
    credentials = known["credentials"]
    if isinstance(credentials, str) and not credentials.startswith("arn:"):
        known["credentials"] = Secret(credentials)
    return Listener(**known, extra={name: row[name] for name in row if name not in _WIRE.values()})


def _wire(listener: Listener) -> dict[str, Any]:
    out = dict(listener.extra)
    for ours, theirs in _WIRE.items():
        value = getattr(listener, ours)
        if value is not None and ours not in _READ_ONLY:
            out[theirs] = value.reveal() if isinstance(value, Secret) else value
    return out
