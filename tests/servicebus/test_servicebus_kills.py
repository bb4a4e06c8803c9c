"""Processes killed in the middle of their work: nothing is lost."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp import AzureServer
from eventflows import Message, Secret
from eventflows.locate import open_publisher
from eventflows.testing.conditions import wait_until

pytestmark = [
    pytest.mark.broker,
    pytest.mark.trial,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
COUNT = 10_000
# A killed process costs everything that it held an attempt; a few in a row must not make dead letters of it.
WORKER = """
import sys
from eventflows import RetryPolicy, subscriber

notes = open(sys.argv[2], "a", buffering=1)

@subscriber(sys.argv[1], workers=2, retry=RetryPolicy(attempts=1000))
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
        with subprocess.Popen([sys.executable, "-c", WORKER, url, str(notes)], stderr=subprocess.DEVNULL) as process:
            wanted = _noted(notes) + luck.randrange(100, 900)
            wait_until(
                lambda: _noted(notes) >= wanted or process.poll() is not None,  # noqa: B023 - called in this turn only
                60,
                what=f"{wanted} messages handled with seed {seed}",
            )
            process.kill()
    last = subprocess.run([sys.executable, "-c", WORKER, url, str(notes)], capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    seen = set(notes.read_text().splitlines())
    nothing = dict.fromkeys(("active", "locked", "deferred", "scheduled", "dead"), 0)
    assert (seen, azure.counts("work")) == ({str(number) for number in range(COUNT)}, nothing), f"seed {seed}"


def _noted(notes: Path) -> int:
    """Count what was handled; each time a process is killed some of it comes again."""
    return notes.read_bytes().count(b"\n")
