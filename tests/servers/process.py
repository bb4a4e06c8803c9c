"""A server that a test starts: on loopback, on a free port, stopped by its process id."""

from __future__ import annotations

import atexit
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from eventflows.testing import wait_until


def free_port() -> int:
    """Give a port of loopback on which nobody listens, and that nobody else is given while this process lives.

    A socket stays bound to it, which keeps a server from nothing: servers reuse addresses. Without it the port may be
    that of some connection when the server begins, or begins again, to listen.
    """
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", 0))
    port = int(one.getsockname()[1])
    one.detach()
    return port


_WATCH = """import os, shutil, signal, sys
sys.stdin.read()
try:
    os.kill(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


class Leash:
    """Ends a server when this process is gone, however it went, and removes its folder.

    A small process of its own reads from a pipe that nobody writes to; the pipe ends with this process, even after a
    kill -9, which runs no exit handler.

    Args:
        pid: Of the server.
        folder: What it wrote to.
    """

    def __init__(self, pid: int, folder: pathlib.Path) -> None:
        self._watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WATCH, str(pid), str(folder)],
            stdin=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def untie(self) -> None:
        """Leave the server alone; before it is reaped, so that its number cannot be somebody else's yet."""
        self._watcher.kill()
        self._watcher.communicate()


class Server:
    """One process that listens, with a folder of its own.

    Args:
        name: In failures.
        port: Where it will listen.
    """

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"eventflows-{name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None
        atexit.register(self.stop)

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, within: float = 60
    ) -> None:
        """Start it, and wait until it listens."""
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder,
                env={**os.environ, **(environment or {})}, start_new_session=True,
            )  # fmt: skip
            self._leash = Leash(self._process.pid, self.folder)
        wait_until(self._listens_or_died, within, what=f"{self.name} listening on {self.port}", every=0.05)
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self._process.returncode}:\n{log.read_text()[-2000:]}")

    def _listens_or_died(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            return True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        """Stop it, by its process id, and remove its folder."""
        process, self._process = self._process, None
        leash, self._leash = self._leash, None
        if leash is not None:
            leash.untie()
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
