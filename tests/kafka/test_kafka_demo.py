"""`make demo-kafka`."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from servers.kafka import fetch

pytestmark = [pytest.mark.trial, pytest.mark.timeout(180)]
DIGITS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "digits"


def test_demo_on_kafka_accounts_for_every_message(tmp_path: pathlib.Path) -> None:
    """It starts a broker of its own, and ends with status 0, which it does when every message is accounted for."""
    fetch()  # skips, with the reason, where a tool is missing
    command = [sys.executable, str(DIGITS / "demo_kafka.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dead letters" in done.stdout


def test_demo_on_kafka_says_what_is_missing_when_there_is_no_java(tmp_path: pathlib.Path) -> None:
    """One line, with the tool's name; no traceback."""
    command = [sys.executable, str(DIGITS / "demo_kafka.py")]
    without = {**os.environ, "PATH": str(tmp_path), "CI": ""}
    done = subprocess.run(command, cwd=tmp_path, env=without, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.splitlines()) == (
        1, ["make demo-kafka needs 'java' for a real broker, and it is not on the path"],
    )  # fmt: skip
