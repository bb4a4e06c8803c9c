"""Members killed with kill -9 at random: every event is handled, whatever store keeps the positions."""

from __future__ import annotations

import json
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest

from eventflows.testing import wait_until
from eventflows.testing.cases import numbered
from eventflows.testing.conditions import pass_time
from eventhubs_harness import EventHubsHarness
from eventhubs_use import hub, publish
from servers.azurite import azurite

pytestmark = [
    pytest.mark.trial,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

VARIABLE = "EVENTFLOWS_EVENTHUBS_CHECKPOINTS_CONNECTION_STRING"
PROGRAM = """
import json, os, sys
from eventflows import RetryPolicy, subscriber
out = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@subscriber(sys.argv[1], **json.loads(sys.argv[3]), retry=RetryPolicy(attempts=1000))
def apply(input: bytes) -> None:
    os.write(out, input + b" " + sys.argv[4].encode() + b"\\n")

apply.run()
"""


class Members:
    """Processes of one group; each writes down what it has handled, and its name."""

    def __init__(self, broker: EventHubsHarness, name: str, seen: pathlib.Path, options: Mapping[str, Any]) -> None:
        self._url = broker.source_url(name)
        self._options = json.dumps({**broker.source_options, **options})
        self._seen = seen
        self.alive: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, member: str) -> None:
        """Start one."""
        command = [sys.executable, "-c", PROGRAM, self._url, str(self._seen), self._options, member]
        self.alive[member] = subprocess.Popen(command)

    def kill(self, member: str) -> None:
        """Kill one, with no chance to say goodbye."""
        process = self.alive.pop(member)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def handled(self) -> dict[bytes, set[bytes]]:
        """Who has handled what."""
        found: dict[bytes, set[bytes]] = {}
        for line in self._seen.read_bytes().splitlines() if self._seen.exists() else ():
            body, _, member = line.partition(b" ")
            found.setdefault(body, set()).add(member)
        return found

    def by(self, member: str) -> int:
        """How many events one has handled."""
        return sum(member.encode() in members for members in self.handled().values())


@pytest.fixture
def blob(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """Positions in a container, whose secret the processes have from the environment."""
    monkeypatch.setenv(VARIABLE, azurite().connection_string)
    return {"checkpoints": azurite().container()}


def test_every_event_is_handled_when_processes_are_killed_at_random(
    broker: EventHubsHarness, tmp_path: pathlib.Path
) -> None:
    """Ten thousand events, three processes on one SQLite file, a kill every few seconds."""
    count, seed = 10_000, random.randrange(10**6)
    luck = random.Random(seed)
    name = hub(broker)
    publish(broker, name, *numbered(count // 2))
    members = Members(broker, name, tmp_path / "seen", {})
    try:
        for number in range(3):
            members.start(f"m{number}")
        kills, deadline = 0, time.monotonic() + 240
        while len(members.handled()) < count and time.monotonic() < deadline:
            pass_time(luck.uniform(1.0, 4.0))
            if kills < 8:
                members.kill(victim := luck.choice(sorted(members.alive)))
                members.start(victim)
                kills += 1
            if kills == 4 and len(members.handled()) <= count // 2:
                publish(broker, name, *numbered(count // 2, start=count // 2))
                kills += 1
        missing = {b"%d" % number for number in range(count)} - members.handled().keys()
        assert (len(missing), kills > 3) == (0, True), f"seed {seed}, {kills} kills"
    finally:
        for member in list(members.alive):
            members.kill(member)


def test_two_members_on_one_container_share_and_take_over_without_loss(
    broker: EventHubsHarness, tmp_path: pathlib.Path, blob: Mapping[str, Any]
) -> None:
    """Both have partitions; one is killed, and the other handles all that comes, from the last position on."""
    name = hub(broker)
    members = Members(broker, name, tmp_path / "seen", blob)
    sent = 0

    def both() -> bool:
        nonlocal sent
        publish(broker, name, *numbered(30, start=sent))
        sent += 30
        return members.by("first") > 0 and members.by("second") > 0

    try:
        members.start("first")
        wait_until(lambda: both() or members.by("first") > 0, 60, every=0.5, what="the first member's share")
        members.start("second")
        wait_until(both, 90, every=0.5, what="a share of each member")
        members.kill("first")
        publish(broker, name, *numbered(300, start=sent))
        sent += 300
        wait_until(lambda: len(members.handled()) >= sent, 90, every=0.5, what="all events at the second member")
        assert members.handled().keys() == {b"%d" % number for number in range(sent)}
    finally:
        for member in list(members.alive):
            members.kill(member)


def test_event_that_kills_its_process_goes_to_the_dead_letters_after_its_attempts(
    broker: EventHubsHarness, tmp_path: pathlib.Path
) -> None:
    """Claims are counted in the store, so that a crash loop has an end and the event is not lost."""
    name, dead = hub(broker), hub(broker)
    publish(broker, name, *numbered(3, key="one"))
    program = PROGRAM.replace("attempts=1000)", f"attempts=2), dead_letter={broker.source_url(dead)!r}").replace(
        "    os.write", '    if input == b"0":\n        os.kill(os.getpid(), 9)\n    os.write'
    )
    seen = tmp_path / "seen"
    command = [sys.executable, "-c", program, broker.source_url(name), str(seen), json.dumps(broker.source_options)]
    running: list[subprocess.Popen[bytes]] = []

    def done() -> bool:
        if not running or running[-1].poll() is not None:
            running.append(subprocess.Popen([*command, "m"]))
        return seen.exists() and {line.split()[0] for line in seen.read_bytes().splitlines()} == {b"1", b"2"}

    try:
        wait_until(done, 90, every=0.2, what="the events behind it")
        assert broker._server.call(lambda: sum(len(one.events) for one in broker._server.broker.hubs[dead].partitions))
        assert len(running) == 3
    finally:
        running[-1].kill()
        running[-1].wait(10)
