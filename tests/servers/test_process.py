"""Servers that tests start."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from eventflows.testing import wait_until
from servers.process import Server, free_port

PROGRAM = """
import sys, threading
from servers.process import Server, free_port
server = Server("silent", free_port())
server.start([sys.executable, "-m", "http.server", str(server.port), "--bind", "127.0.0.1"])
print(server._process.pid, flush=True)
threading.Event().wait()
"""


def runs(pid: int) -> bool:
    """Whether a process is there; one that has ended and that nobody asks about is not."""
    state = pathlib.Path(f"/proc/{pid}/stat")
    if not pathlib.Path("/proc/self").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("signal", [9, 15])
def test_server_does_not_outlive_a_process_that_is_killed(signal: int) -> None:
    """A test run that is ended by a signal leaves no server behind."""
    folder = pathlib.Path(__file__).parent.parent
    owner = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=folder, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))},
    )  # fmt: skip
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    assert runs(server)
    owner.send_signal(signal)
    owner.communicate()
    wait_until(lambda: not runs(server), 20, what=f"the end of process {server}")


def test_server_that_is_stopped_is_gone() -> None:
    """Stopping one ends what watches it, too."""
    server = Server("silent", free_port())
    server.start([sys.executable, "-m", "http.server", str(server.port), "--bind", "127.0.0.1"])
    process, leash = server._process, server._leash
    assert process is not None
    assert leash is not None
    server.stop()
    assert (process.poll() is None, leash._watcher.poll() is None, server.folder.exists()) == (False, False, False)
