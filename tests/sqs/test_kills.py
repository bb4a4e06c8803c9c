"""Ten thousand messages, four processes, kill -9 at random: every id is handled."""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from eventflows.testing import wait_until
from eventflows.testing.cases import numbered
from eventflows.testing.conditions import pass_time
from sqs_harness import SqsHarness
from sqs_use import counts, publish

pytestmark = pytest.mark.broker

COUNT = 10_000
PROCESSES = 4
VISIBILITY = 6
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
@pytest.mark.timeout(900)
def test_every_message_is_handled_when_processes_are_killed_at_random(
    broker: SqsHarness, tmp_path: pathlib.Path
) -> None:
    """After the last kill, nothing is missing, and nothing stays hidden for longer than one lease."""
    seed = random.randrange(10**6)
    luck = random.Random(seed)
    name = broker.fresh()
    broker.create(name)
    for start in range(0, COUNT, 1000):
        publish(broker, name, *numbered(1000, start=start))
    seen = tmp_path / "seen"
    command = [sys.executable, "-c", PROGRAM, f"{broker.source_url(name)}", str(seen)]
    members = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(PROCESSES)]
    try:
        kills = 0
        deadline = time.monotonic() + 600
        while len(handled(seen)) < COUNT and time.monotonic() < deadline:
            pass_time(luck.uniform(0.5, 3.0))
            if kills < 25:
                place = luck.randrange(PROCESSES)
                members[place].send_signal(signal.SIGKILL)
                members[place].wait(10)
                members[place] = subprocess.Popen(command, stderr=subprocess.DEVNULL)
                kills += 1
        missing = {b"%d" % number for number in range(COUNT)} - handled(seen)
        assert (len(missing), kills > 3) == (0, True), f"seed {seed}, {kills} kills"
        # What a dead process held is visible when its lease has ended, at most one lease after the kill.
        wait_until(
            lambda: counts(broker, name) == (0, 0), VISIBILITY + SLACK, every=0.2,
            what=f"an empty queue with nothing in flight, one lease after the last kill, seed {seed}",
        )  # fmt: skip
    finally:
        for member in members:
            member.kill()
            member.wait(10)


def handled(seen: pathlib.Path) -> set[bytes]:
    """The ids that were handled."""
    return set(seen.read_bytes().split()) if seen.exists() else set()
