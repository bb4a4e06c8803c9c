"""Ten thousand messages, four processes, kill -9 at random: every id is handled."""

from __future__ import annotations

import pathlib
import random
import subprocess
import sys
import time

import pytest

from eventflows import open_publisher
from eventflows.testing import wait_until
from eventflows.testing.cases import numbered
from sqs_harness import SqsHarness
from sqs_use import counts

pytestmark = pytest.mark.broker

COUNT = 10_000
UP_TO = 120.0
PROCESSES = 4
KILLS = 8
VISIBILITY = 5
SLACK = 6.0
"""Seconds for what came back to be received and deleted, on a machine that does other things, too."""

PROGRAM = f"""
import os, sys
from eventflows import RetryPolicy, subscriber
out = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@subscriber(sys.argv[1], visibility={VISIBILITY}, retry=RetryPolicy(attempts=1000))
def apply(input: bytes) -> None:
    os.write(out, input + b"\\n")

apply.run()
"""


@pytest.mark.trial
@pytest.mark.timeout(600)
def test_every_message_is_handled_when_processes_are_killed_at_random(
    broker: SqsHarness, tmp_path: pathlib.Path
) -> None:
    """After the last kill, nothing is missing, and nothing stays hidden for longer than one lease."""
    seed = random.randrange(10**6)
    luck = random.Random(seed)
    name = broker.fresh()
    broker.create(name)
    url = broker.direct_url(name)  # past the gate, which is slow
    with open_publisher(url) as publisher:
        assert not [one for one in publisher.publish(numbered(COUNT), timeout=UP_TO) if one.error]
    seen = tmp_path / "seen"
    command = [sys.executable, "-c", PROGRAM, url, str(seen)]
    began = time.monotonic()
    members = [subprocess.Popen(command) for _ in range(PROCESSES)]
    try:
        for done in sorted(luck.sample(range(200, COUNT - 200), KILLS)):
            wait_until(
                lambda done=done: working(members, seen) >= done, UP_TO, what=f"{done} handled, seed {seed}", every=0.1
            )
            place = luck.randrange(PROCESSES)
            print(f"{time.monotonic() - began:.1f} s: {done} handled, process {place} is killed")
            members[place].kill()
            members[place].wait(10)
            members[place] = subprocess.Popen(command)
        wait_until(
            lambda: working(members, seen) == COUNT, UP_TO, what=f"every message handled, seed {seed}", every=0.1
        )
        # What a dead process held is visible when its lease has ended, at most one lease after the kill.
        wait_until(
            lambda: counts(broker, name) == (0, 0), VISIBILITY + SLACK, every=0.2,
            what=f"an empty queue with nothing in flight, one lease after the last kill, seed {seed}",
        )  # fmt: skip
    finally:
        for member in members:
            member.kill()
            member.wait(10)


def working(members: list[subprocess.Popen[bytes]], seen: pathlib.Path) -> int:
    """How many ids were handled; fails at once when a process has ended by itself."""
    ended = [member.poll() for member in members]
    assert ended == [None] * PROCESSES, f"processes ended by themselves: {ended}"
    return len(set(seen.read_bytes().split())) if seen.exists() else 0
