"""A thin client for the platform's users and event listeners."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Final

import attrs

from eventflows import _http
from eventflows._listeners_rows import LISTENER_COLUMNS, USER_COLUMNS, Listener, User, listener_of, user_of, wire_of
from eventflows._listeners_wire import Wire
from eventflows.errors import ConfigError, ListenersError
from eventflows.listing import Listing
from eventflows.secret import Secret

READERS: Final = 16
"""Accounts read at once."""
MOST_PAGES: Final = 2000
"""Pages of one listing, at most; an API that pages on and on is not followed for ever."""
QUIET: Final = 1.0
"""Seconds before a long listing says how far it is."""

__all__ = ["ClusterListing", "EventListeners", "Listener", "User"]


class ClusterListing(Listing[Listener]):
    """The listeners of every account that could be read, each with its `account`.

    Args:
        accounts: The listeners by user name, or by id where there is no name.
        refused: Accounts that could not be read, each with the reason.
    """

    __slots__ = ("accounts", "refused")

    def __init__(self, accounts: Mapping[str, Listing[Listener]], refused: Mapping[str, str]) -> None:
        super().__init__(
            [attrs.evolve(row, account=name) for name, rows in accounts.items() for row in rows],
            ("account", *LISTENER_COLUMNS),
        )
        self.accounts = dict(accounts)
        """By user name, or by id where there is no name; empty ones included."""
        self.refused = dict(refused)
        """Accounts that could not be read, each with the reason."""

    def _ipython_key_completions_(self) -> list[str]:
        return list(self.accounts)

    def __repr__(self) -> str:
        """Show a text table, and what was refused."""
        more = [f"refused: {name}: {why}" for name, why in self.refused.items()]
        return "\n".join([super().__repr__(), *more])


class EventListeners:
    """List, create, change and delete the event flows that the platform runs.

    Making one connects to nothing; connections are reused until `close`. Safe to share between threads.

    Args:
        api: Base address, such as `https://api.CLUSTER_DOMAIN`.
        api_key: The account's own key.
        admin_api_key: The administrator's key, which user look-ups need.
        timeout: Seconds that one request may take, its answer read to the end; a request that is tried again, because
            the API was busy or the connection broke, has as many each time.

    Raises:
        ConfigError: The address or the time is wrong.
    """

    def __init__(
        self,
        api: str,
        *,
        api_key: str | Secret | None = None,
        admin_api_key: str | Secret | None = None,
        timeout: float = 30.0,
    ) -> None:
        self._api = _http.checked(api, "EventListeners")
        self._key = _http.secret(api_key)
        self._admin = _http.secret(admin_api_key)
        self._wire = Wire(self._api, timeout)
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
        self._wire.close()

    def user(self, name: str) -> User:
        """Look an account up by name, with the administrator's key.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer; the text and `status` say why.
        """
        path = f"/v1/users/{_http.part(name)}"
        found = user_of(self._call("GET", path, admin=True), f"GET {path}")
        self._ids[name] = found.id
        return found

    def users(self) -> Listing[User]:
        """List every account, over all pages, with the administrator's key.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer; the text and `status` say why.
        """
        return Listing([user_of(row, "GET /v1/users") for row in self._pages("/v1/users", admin=True)], USER_COLUMNS)

    def listeners(self, account: str | None = None, *, user_id: str | int | None = None) -> Listing[Listener]:
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
        rows = self._rows(str(user_id))
        return (
            rows if account is None else Listing([attrs.evolve(row, account=account) for row in rows], LISTENER_COLUMNS)
        )

    def all_listeners(self, api_keys: Mapping[str, str | Secret] | None = None) -> ClusterListing:
        """List the listeners of every account of the cluster, several accounts at a time.

        An account that cannot be read does not stop the others: it is in `refused`.

        Args:
            api_keys: Keys by user name; an account without one is read with the administrator's key.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The accounts themselves cannot be listed; the text and `status` say why.
        """
        keys = {name: _http.secret(key) for name, key in (api_keys or {}).items()}
        users = self.users()

        def read(user: User) -> Listing[Listener] | str:
            key = keys.get(user.username or user.id) or self._admin or self._key
            try:
                return self._rows(user.id, key)
            except ListenersError as error:
                return str(error)

        found: dict[int, Listing[Listener] | str] = {}
        with ThreadPoolExecutor(READERS) as pool, _Progress(len(users)) as progress:
            pending = {pool.submit(read, user): at for at, user in enumerate(users)}
            for one in as_completed(pending):
                found[pending[one]] = one.result()
                progress.step()
        names = _distinct(users)
        return ClusterListing(
            {names[at]: rows for at, rows in sorted(found.items()) if not isinstance(rows, str)},
            {names[at]: why for at, why in sorted(found.items()) if isinstance(why, str)},
        )

    def get(self, user_id: str | int, listener_id: str | int) -> Listener:
        """Read one listener.

        Args:
            user_id: The account's id.
            listener_id: The listener's.

        Raises:
            ConfigError: The key that it needs was not given; give it to `EventListeners`.
            ListenersError: The API refused or did not answer; the text and `status` say why.
        """
        path = _path(user_id, listener_id)
        return listener_of(self._call("GET", path), f"GET {path}")

    def create(self, user_id: str | int, listener: Listener) -> Listener:
        """Create a listener. It is not tried again by itself.

        Args:
            user_id: The account's id.
            listener: What to create; its id is the API's to give.

        Returns:
            The listener, with its id.

        Raises:
            ConfigError: The key that it needs was not given, or a text is longer than 255 characters.
            ListenersError: The API refused or did not answer. With a `status` of 4xx nothing was changed; else the
                listener may have been created: look before trying anew.
        """
        path = _path(user_id)
        return listener_of(self._call("POST", path, listener=listener), f"POST {path}")

    def update(self, user_id: str | int, listener: Listener) -> Listener:
        """Replace the listener that has this id, unknown fields included.

        Args:
            user_id: The account's id.
            listener: What it is to be; it has an id.

        Returns:
            The listener as the API has it now.

        Raises:
            ConfigError: It has no id: use `create`. Or the key was not given, or a text is longer than 255 characters.
            ListenersError: The API refused or did not answer. With a `status` of 4xx nothing was changed; else the
                listener may have been changed: look before trying anew.
        """
        if listener.id is None:
            raise ConfigError("update(): the listener has no id. Use create() for a new one.")
        path = _path(user_id, listener.id)
        return listener_of(self._call("PUT", path, listener=listener), f"PUT {path}")

    def delete(self, user_id: str | int, listener_id: str | int) -> None:
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

    def _rows(self, user_id: str, key: Secret | None = None) -> Listing[Listener]:
        path = _path(user_id)
        return Listing([listener_of(row, f"GET {path}") for row in self._pages(path, key=key)], LISTENER_COLUMNS)

    def _pages(self, path: str, *, admin: bool = False, key: Secret | None = None) -> Iterator[Any]:
        seen: set[str] = set()
        params: dict[str, str] = {}
        for _ in range(MOST_PAGES):
            answer = self._call("GET", path, admin=admin, key=key, params=params)
            page = isinstance(answer, dict) and "results" in answer
            rows = answer["results"] if page else answer if isinstance(answer, list) else [answer]
            if rows is not None and not isinstance(rows, list):
                raise ListenersError(f"GET {path}: results: expected a list.", request=f"GET {path}")
            yield from rows or ()
            marker = answer.get("marker") if page else None
            if not marker:
                return
            if not isinstance(marker, str) or marker in seen:
                raise ListenersError(f"GET {path}: the pages never end: a marker came twice.", request=f"GET {path}")
            seen.add(marker)
            params = {"marker": marker}
        raise ListenersError(f"GET {path}: the pages do not end after {MOST_PAGES:,}.", request=f"GET {path}")

    def _call(
        self,
        method: str,
        path: str,
        *,
        admin: bool = False,
        key: Secret | None = None,
        params: Mapping[str, str] | None = None,
        listener: Listener | None = None,
        empty: bool = False,
    ) -> Any:  # noqa: ANN401 - JSON
        key = key or (self._admin if admin else self._key)
        if key is None:
            name = "admin_api_key= (ALGORITHMIA_ADMIN_API_KEY)" if admin else "api_key= (ALGORITHMIA_API_KEY)"
            raise ConfigError(f"{method} {path} needs {name}, which is not given.")
        body = None if listener is None else wire_of(listener)
        hidden = [key, None if body is None else body.get("credentials")]
        return self._wire.call(method, path, key, params=params, body=body, empty=empty, hidden=hidden)


class _Progress:
    """Says how far a long listing is, where somebody may be watching: a terminal, or a notebook."""

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._done = 0
        self._began = self._said = time.monotonic()
        self._shown = False

    def __enter__(self) -> _Progress:
        return self

    def step(self) -> None:
        """Count one more."""
        self._done += 1
        now = time.monotonic()
        if now - self._began < QUIET or now - self._said < QUIET / 4 or not _watched():
            return
        self._said, self._shown = now, True
        print(f"\rread {self._done:,} of {self._whole:,} accounts", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)


def _watched() -> bool:
    if threading.current_thread() is not threading.main_thread() or sys.stderr is None:
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _distinct(users: Listing[User]) -> list[str]:
    """Name accounts; two of one name keep their ids apart."""
    names = [user.username or user.id for user in users]
    return [name if names.count(name) == 1 else f"{name} ({user.id})" for name, user in zip(names, users, strict=True)]


def _path(user_id: str | int, listener_id: str | int | None = None) -> str:
    path = f"/v1/users/{_http.part(user_id)}/event-listeners"
    return path if listener_id is None else f"{path}/{_http.part(listener_id)}"
