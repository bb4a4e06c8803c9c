"""Processes killed in the middle of their work: nothing is lost."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp import AzureServer
from eventflows import Message, Secret
from eventflows.locate import open_publisher

pytestmark = [
    pytest.mark.broker,
    pytest.mark.trial,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
COUNT = 10_000
WORKER = """
import sys
from eventflows import subscriber

notes = open(sys.argv[2], "a", buffering=1)

@subscriber(sys.argv[1], workers=2)
def apply(input: bytes):
    notes.write(input.decode() + "\\n")

apply.run(until_idle=1.0)
"""


@pytest.fixture
def azure() -> Iterator[AzureServer]:
    """A stand-in with a queue of short locks."""
    with AzureServer() as server:
        server.queue("work", lock=2.0, max_delivery=1000)
        yield server


def test_killed_processes_lose_no_message(azure: AzureServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10,000 messages each is handled by somebody, though processes are killed at random; the last one ends idle."""
    seed = random.randrange(10**6)
    luck = random.Random(seed)
    url = f"servicebus://{azure.host}/work"
    with open_publisher(url, connection_string=Secret(azure.connection_string)) as publisher:
        results = publisher.publish([Message(b"%d" % number) for number in range(COUNT)])
    assert {one.error for one in results} == {None}
    monkeypatch.setenv("EVENTFLOWS_SERVICEBUS_CONNECTION_STRING", azure.connection_string)
    notes = tmp_path / "notes"
    notes.touch()
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WORKER, url, str(notes)], stderr=subprocess.DEVNULL)
        before = len(notes.read_text().splitlines())
        wanted = before + luck.randrange(100, 900)
        deadline = time.monotonic() + 30
        while len(notes.read_text().splitlines()) < wanted and process.poll() is None:
            assert time.monotonic() < deadline, f"seed {seed}"
            time.sleep(0.005)
        process.kill()
        process.wait()
    last = subprocess.run([sys.executable, "-c", WORKER, url, str(notes)], capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    seen = {line for line in notes.read_text().splitlines()}
    assert seen == {str(number) for number in range(COUNT)}, f"seed {seed}"
    assert azure.counts("work")["active"] == 0
