"""Toxiproxy: a TCP proxy that is slow, cuts, resets or goes away when it is told to; built with the user's own `go`."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from servers.maven import cache_folder, missing, only_one
from servers.process import Server, free_port

VERSION = "v2.5.0"
BUILD_SECONDS = 600.0


def fetch() -> Path:
    """Give the program, built once."""
    if shutil.which("go") is None:
        missing("go", "for a proxy that breaks networks")
    folder = cache_folder(f"toxiproxy-{VERSION}")
    with only_one(folder / ".lock"):
        program = folder / "server"
        if not program.exists():
            done = subprocess.run(
                ["go", "install", f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"], cwd=folder,
                env={**os.environ, "GOBIN": str(folder)}, capture_output=True, text=True, timeout=BUILD_SECONDS,
                check=False,
            )  # fmt: skip
            if done.returncode != 0:
                pytest.fail(f"go could not build toxiproxy {VERSION}:\n{done.stderr[-3000:]}", pytrace=False)
    return program


class Link:
    """One way to a server, through the proxy.

    Args:
        proxy: The running one.
        port: Of the server; on loopback.
        at: Where it listens; None: wherever it likes.
    """

    def __init__(self, proxy: Toxiproxy, port: int, at: int | None = None) -> None:
        self._proxy = proxy
        self.port = free_port() if at is None else at
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._name = f"link-{self.port}"
        to = {"name": self._name, "listen": f"127.0.0.1:{self.port}", "upstream": f"127.0.0.1:{port}", "enabled": True}
        proxy.call("POST", "/proxies", to)

    def close(self) -> None:
        """Take it away, its connections with it."""
        self._proxy.call("DELETE", f"/proxies/{self._name}")

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Close the port and cut every connection, while the body of the `with` runs."""
        self._proxy.call("POST", f"/proxies/{self._name}", {"enabled": False})
        try:
            yield
        finally:
            self._proxy.call("POST", f"/proxies/{self._name}", {"enabled": True})

    @contextlib.contextmanager
    def toxic(
        self, kind: str, stream: Literal["upstream", "downstream"] = "downstream", share: float = 1.0, **attributes: int
    ) -> Iterator[None]:
        """Have a fault while the body of the `with` runs, on connections that are open already, too.

        Args:
            kind: `latency`, `bandwidth`, `limit_data`, `reset_peer`, `timeout`, `slicer`, `slow_close`.
            stream: Towards the server, or towards the client.
            share: Of the connections.
            attributes: Of the kind; milliseconds, bytes, kilobytes per second.
        """
        asked = {"type": kind, "stream": stream, "toxicity": share, "attributes": attributes}
        made = self._proxy.call("POST", f"/proxies/{self._name}/toxics", asked)
        try:
            yield
        finally:
            self._proxy.call("DELETE", f"/proxies/{self._name}/toxics/{made['name']}")


class Toxiproxy:
    """A running Toxiproxy."""

    def __init__(self) -> None:
        program = fetch()
        self.server = Server("toxiproxy", free_port())
        self.server.start([str(program), "-host", "127.0.0.1", "-port", str(self.server.port)])

    def link(self, port: int, *, at: int | None = None) -> Link:
        """Make a way to a server, that begins at a port of its own or at one given."""
        return Link(self, port, at)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Tell the proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {"User-Agent": "eventflows", "Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, f"toxiproxy: {method} {path}: {answer.status} {content!r}"
        return json.loads(content) if content else None


@functools.cache
def toxiproxy() -> Toxiproxy:
    """Give the one of this process; it is stopped when the process ends."""
    return Toxiproxy()
