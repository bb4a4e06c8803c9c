"""What tests start ends with them, however they end."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from eventflows.testing import wait_until

TESTS = pathlib.Path(__file__).parent.parent
PROGRAM = """
import os, pathlib, signal, subprocess, sys
from servers.process import Leash
folder = pathlib.Path(sys.argv[1])
server = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
                          stdout=subprocess.PIPE)
server.stdout.readline()
Leash(server.pid, folder)
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_server_ends_when_the_process_that_started_it_is_killed(tmp_path: pathlib.Path) -> None:
    """A kill -9 of the tests runs no exit handler; what they started goes with them all the same."""
    folder = tmp_path / "server"
    folder.mkdir()
    paths = os.pathsep.join([str(TESTS), *sys.path])
    killed = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)], env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    pid = int(killed.stdout)
    wait_until(lambda: not _runs(pid) and not folder.exists(), 20, what="the server and its folder are gone")
