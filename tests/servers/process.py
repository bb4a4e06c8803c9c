"""A server that a test starts: on loopback, on a free port, stopped by its process id."""

from __future__ import annotations

import atexit
import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from eventflows.testing import wait_until


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watch:
    """Ends a process when this one ends, even by a signal that leaves no time: nothing that a test started stays.

    A shell beside it holds the other end of a pipe: the system closes the pipe with this process, and the shell kills.

    Args:
        process: Started by this process, and not waited for yet.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._shell = subprocess.Popen(
            ["sh", "-c", 'read _; kill -9 "$1"', "sh", str(process.pid)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def end(self) -> None:
        """Watch no longer; before the process is waited for, since its id may then be another's."""
        self._shell.kill()
        self._shell.communicate()


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
        self._watch: Watch | None = None
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
        self._watch = Watch(self._process)
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
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)
