"""`make demo-sqs`."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from servers.elasticmq import fetch

pytestmark = [pytest.mark.trial, pytest.mark.timeout(180)]
DEMO = pathlib.Path(__file__).resolve().parents[2] / "examples" / "digits" / "demo_sqs.py"


def demo(folder: pathlib.Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in a folder of its own."""
    return subprocess.run(
        [sys.executable, str(DEMO)], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=150, check=False,
    )  # fmt: skip


def test_demo_on_sqs_accounts_for_every_message(tmp_path: pathlib.Path) -> None:
    """It starts a server of its own, and ends with status 0, which it does when every message is accounted for."""
    fetch()  # skips, with the reason, where a tool is missing
    done = demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dead letters" in done.stdout


def test_demo_says_what_it_needs(tmp_path: pathlib.Path) -> None:
    """Without Java it names the tool, in one line."""
    done = demo(tmp_path, PATH=str(tmp_path), CI="")
    assert (done.returncode, done.stderr) == (
        1, "make demo-sqs needs 'java' for a real broker, and it is not on the path\n",
    )  # fmt: skip
