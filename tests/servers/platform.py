"""The platform's API on loopback: gives the answers it was told to, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Asked = tuple[str, str, str | None, bytes]
"""Method, path with its query, authorization, body."""


class Api(ThreadingHTTPServer):
    """Answers in turn, or by a rule where there is none left."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, object, dict[str, str]]] = []
        self.rule: Callable[[Asked], object] | None = None
        """Gives the body of an answer with status 200 when nothing was said before."""
        self.drip: threading.Event | None = None
        """Where set, the body comes byte by byte until it is set; then whole."""
        self.asked: list[Asked] = []
        self.types: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def say(self, status: int, body: object, **headers: str) -> None:
        """Answer so, once."""
        self.answers.append((status, body, {name.replace("_", "-"): value for name, value in headers.items()}))


class Handler(BaseHTTPRequestHandler):
    """One request: noted, then answered."""

    server: Api

    def answer(self) -> None:
        """Note and answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = (self.command, self.path, self.headers.get("Authorization"), body)
        self.server.asked.append(asked)
        self.server.types.append(self.headers.get("Content-Type"))
        if self.server.answers:
            status, said, headers = self.server.answers.pop(0)
        else:
            assert self.server.rule is not None, f"no answer for {asked[:2]}"
            status, said, headers = 200, self.server.rule(asked), {}
        raw = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever waited has left
            for at in range(len(raw)):
                if self.server.drip is None or self.server.drip.wait(0.05):
                    self.wfile.write(raw[at:])
                    return
                self.wfile.write(raw[at : at + 1])
                self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def platform() -> Iterator[Api]:
    """Serve on a free port until the end of the block."""
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            if server.drip is not None:
                server.drip.set()
            server.shutdown()
            thread.join()
