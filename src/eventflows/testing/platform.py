"""A small platform on loopback, for tests and tries of what talks to the real one."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

ADMIN_KEY: Final = "admin-key"
"""The administrator's key of every such platform; `key_of` gives the accounts' own."""
PAGE: Final = 2
"""Users of a page."""

_LISTENERS: Final = re.compile(r"/v1/users/([^/?]+)/event-listeners(?:/([^/?]+))?$")
_ALGORITHM: Final = re.compile(r"/v1/algo(rithms)?/([^/?]+/[^/?]+)(?:/([^/?]+))?$")


class Platform:
    """Users, their event listeners and hosted algorithms, in memory; made by `playing_platform`.

    Args:
        users: Names of accounts.
        algorithms: Functions by "owner/name", called with the JSON that is sent.
    """

    def __init__(self, users: tuple[str, ...], algorithms: Mapping[str, Callable[[Any], Any]]) -> None:
        self.users = {str(uuid.uuid5(uuid.NAMESPACE_DNS, name)): name for name in users}
        """Names by id."""
        self.listeners: dict[str, dict[str, dict[str, Any]]] = {identity: {} for identity in self.users}
        """As the API writes them, by account and listener."""
        self.algorithms = dict(algorithms)
        self.url = ""

    def key_of(self, name: str) -> str:
        """Give an account's own key."""
        return f"key-of-{name}"

    def answer(self, method: str, path: str, key: str, body: bytes) -> tuple[int, object]:
        """Answer one request."""
        path, _, query = path.partition("?")
        if (found := _ALGORITHM.fullmatch(path)) is not None:
            return self._algorithm(bool(found[1]), found[2], body)
        if (found := _LISTENERS.fullmatch(path)) is not None:
            return self._listener(method, found[1], found[2], key, body)
        if key != ADMIN_KEY:
            return 401, {"code": 2001, "message": "not authorised"}
        if path == "/v1/users":
            return 200, self._page(int(query.partition("marker=")[2] or 0))
        name = path.rpartition("/")[2]
        for identity, other in self.users.items():
            if other == name:
                return 200, _user(identity, name)
        return 404, {"code": 3000, "message": "no such user"}

    def _page(self, start: int) -> dict[str, object]:
        rows = [_user(*one) for one in list(self.users.items())[start : start + PAGE]]
        more = start + PAGE < len(self.users)
        return {"marker": str(start + PAGE) if more else "", "results": rows}

    def _listener(self, method: str, user: str, listener: str | None, key: str, body: bytes) -> tuple[int, object]:
        if user not in self.users:
            return 404, {"code": 3000, "message": "no such user"}
        if key not in (ADMIN_KEY, self.key_of(self.users[user])):
            return 403, {"code": 2001, "message": "not authorised"}
        own = self.listeners[user]
        if listener is None and method == "GET":
            return 200, list(own.values())
        if listener is not None and listener not in own:
            return 404, {"code": 4000, "message": "no such event listener"}
        if method == "DELETE" and listener is not None:
            del own[listener]
            return 204, b""
        if method in ("POST", "PUT"):
            listener = listener or str(uuid.uuid4())
            own[listener] = {**json.loads(body), "id": listener, "listenerOwner": self.users[user]}
        return 200, own[listener or ""]

    def _algorithm(self, about: bool, name: str, body: bytes) -> tuple[int, object]:
        apply = self.algorithms.get(name)
        if apply is None:
            return 404, {"code": 4040, "message": "no such algorithm"}
        if about:
            return 200, {"name": name, "version_info": {"semantic_version": "1.0.0"}}
        try:
            result = apply(json.loads(body))
        except Exception as error:  # noqa: BLE001 - whatever an algorithm raises is its answer
            said = {
                "message": str(error),
                "error_type": getattr(error, "error_type", "AlgorithmError"),
                "stacktrace": "",
            }
            return 200, {"error": said}
        return 200, {"result": result, "metadata": {"content_type": "json", "duration": 0.0}}


def _user(identity: str, name: str) -> dict[str, object]:
    return {"id": identity, "username": name, "email": f"{name}@example.org", "resource_type": "user"}


@contextlib.contextmanager
def playing_platform(*users: str, algorithms: Mapping[str, Callable[[Any], Any]] | None = None) -> Iterator[Platform]:
    """Serve a platform on a free port of loopback until the end of the block.

    Args:
        users: Names of accounts.
        algorithms: Functions by "owner/name"; each has the one version 1.0.0.

    Yields:
        The platform; `url` is its address.
    """
    made = Platform(users, algorithms or {})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = (self.headers.get("Authorization") or "").removeprefix("Simple ")
            status, said = made.answer(self.command, self.path, key, body)
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = handle_one

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
