"""moto's server: SQS and STS with accounts, one for each test process."""

from __future__ import annotations

import functools
import sys

from servers.process import Server, free_port


class Moto:
    """A running moto server."""

    def __init__(self) -> None:
        server = Server("moto", free_port())
        server.start([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)])
        self.server = server
        self.endpoint = f"http://127.0.0.1:{server.port}"


@functools.cache
def moto() -> Moto:
    """Give the one of this process; it is stopped when the process ends."""
    return Moto()
