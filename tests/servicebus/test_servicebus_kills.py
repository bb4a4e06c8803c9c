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
import json, sys
from eventflows import RetryPolicy, subscriber

notes = open(sys.argv[2], "a", buffering=1)

@subscriber(sys.argv[1], workers=2, retry=RetryPolicy(attempts=1000), **json.loads(sys.argv[3]))
def apply(input: bytes):
    notes.write(input.decode() + "\\n")

apply.run(until_idle=float(sys.argv[4]))
"""
LOCK = 2.0
KEYS = 40
OF_SESSIONS = 2_000
NOTHING = dict.fromkeys(("active", "locked", "deferred", "scheduled", "dead"), 0)


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureServer]:
    """A stand-in."""
    with AzureServer() as server:
        monkeypatch.setenv("EVENTFLOWS_SERVICEBUS_CONNECTION_STRING", server.connection_string)
        yield server


def publish(azure: AzureServer, messages: list[Message]) -> str:
    """Publish all; gives the URL of the queue."""
    url = f"servicebus://{azure.host}/work"
    with open_publisher(url, connection_string=Secret(azure.connection_string)) as publisher:
        assert {one.error for one in publisher.publish(messages)} == {None}
    return url


def worked(luck: random.Random, notes: Path, arguments: list[str], *, kills: int, at: tuple[int, int]) -> list[str]:
    """Kill so many processes in the middle of their work, let one more come to its end; gives what was handled."""
    command = [sys.executable, "-c", WORKER, *arguments]
    notes.touch()
    for _ in range(kills):
        with subprocess.Popen(command) as process:
            wanted = _noted(notes) + luck.randrange(*at)
            wait_until(
                lambda: _noted(notes) >= wanted or process.poll() is not None,  # noqa: B023 - called in this turn only
                60,
                what=f"{wanted} messages handled",
            )
            process.kill()
    last = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert last.returncode == 0, last.stderr
    return notes.read_text().splitlines()


def test_killed_processes_lose_no_message(azure: AzureServer, tmp_path: Path) -> None:
    """Of 10,000 messages each is handled by somebody, though processes are killed at random; the last one ends idle."""
    seed = random.randrange(10**6)
    azure.queue("work", lock=LOCK, max_delivery=1000)
    url = publish(azure, [Message(b"%d" % number) for number in range(COUNT)])
    notes = tmp_path / "notes"
    seen = worked(random.Random(seed), notes, [url, str(notes), "{}", "1.0"], kills=6, at=(100, 900))
    everything = {str(number) for number in range(COUNT)}
    assert (set(seen), azure.counts("work")) == (everything, NOTHING), f"seed {seed}"


@pytest.mark.parametrize("frees_cut", [False, True])
def test_killed_owners_of_sessions_lose_no_message_and_no_order(
    azure: AzureServer, tmp_path: Path, frees_cut: bool
) -> None:
    """Whether the service keeps a dead owner's session locked, as its documents say, or frees it, as users report."""
    seed = random.randrange(10**6)
    azure.queue("work", lock=LOCK, max_delivery=1000, sessions=True, frees_cut=frees_cut)
    url = publish(azure, [Message(b"%d" % one, key=f"k{one % KEYS}") for one in range(OF_SESSIONS)])
    notes = tmp_path / "notes"
    arguments = [url, str(notes), '{"sessions": 8, "session_idle": 0.3}', str(LOCK + 2.0)]
    seen = worked(random.Random(seed), notes, arguments, kills=4, at=(50, 300))
    first = list(dict.fromkeys(map(int, seen)))
    for key in range(KEYS):
        of_key = list(range(key, OF_SESSIONS, KEYS))
        assert [one for one in first if one % KEYS == key] == of_key, f"k{key}, seed {seed}"
    assert azure.counts("work") == NOTHING, f"seed {seed}"


def _noted(notes: Path) -> int:
    """Count what was handled; each time a process is killed some of it comes again."""
    return notes.read_bytes().count(b"\n")
