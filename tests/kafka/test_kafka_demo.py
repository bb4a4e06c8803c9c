"""`make demo-kafka`."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.trial, pytest.mark.timeout(180)]
DIGITS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "digits"


def test_demo_on_kafka_accounts_for_every_message(tmp_path: pathlib.Path) -> None:
    """It starts a broker of its own, and ends with status 0, which it does when every message is accounted for."""
    command = [sys.executable, str(DIGITS / "demo_kafka.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dead letters" in done.stdout
