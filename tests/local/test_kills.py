"""Processes that are killed: nothing confirmed is lost, and what they held comes back at once."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

import eventflows
from eventflows.protocols import Browsable

MESSAGES = 3_000
POISON = 7
"""Every message whose number this divides is refused by `apply`."""

WORKER = """
import sys
import eventflows
from eventflows import Reject, RetryPolicy

@eventflows.subscriber("local://in?file=kills.db", name="killed", retry=RetryPolicy(attempts=1000), workers=2)
@eventflows.publisher("local://out?file=kills.db")
def apply(input):
    if input["n"] % {poison} == 0:
        raise Reject("poison")
    sum(range(2000))
    return {{"n": input["n"]}}

print("ready", flush=True)
apply.run({bounds})
"""

PUBLISHER = """
import eventflows
from eventflows import Message

with eventflows.open_publisher("local://in?file=kills.db") as publisher:
    for start in range(0, 1_000_000, 50):
        publisher.publish([Message(b"%d" % n) for n in range(start, start + 50)])
        print(start + 50, flush=True)
"""

HOLDER = """
import eventflows, time
subscriber = eventflows.open_subscriber("local://in?file=kills.db")
subscriber.open()
chunks = subscriber.receive(10, max_bytes=10**6, timeout=10)
print(sum(map(len, chunks)), flush=True)
time.sleep(100)
"""


def start(code: str, folder: pathlib.Path) -> subprocess.Popen[str]:
    """Start a process that runs some code in a folder."""
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    """Wait for a line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: subprocess.Popen[str]) -> str:
    """Kill a process without a warning; give what it had printed."""
    process.send_signal(signal.SIGKILL)
    return process.communicate(timeout=30)[0]


def bodies(url: str) -> list[bytes]:
    """Look at everything that waits."""
    source = eventflows.open_subscriber(url)
    assert isinstance(source, Browsable)
    found = [delivery.message.body or b"" for delivery in source.peek(1_000_000, timeout=30)]
    source.close()
    return found


def numbers(url: str) -> set[int]:
    """Give the numbers of the messages that wait."""
    return {json.loads(body)["n"] for body in bodies(url)}


def pass_time(seconds: float, give_up: Callable[[], bool]) -> None:
    """Let a random moment come, unless the work is over before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not give_up():
        os.sched_yield()


def kill_again_and_again(folder: pathlib.Path, kills: int) -> None:
    """Publish, then kill a worker process at random moments; a last one finishes."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    luck = random.Random(seed)
    eventflows.send(f"local://in?file={folder}/kills.db", *({"n": n} for n in range(MESSAGES)))
    for _ in range(kills):
        worker = start(WORKER.format(poison=POISON, bounds=""), folder)
        assert line(worker) == "ready"
        pass_time(luck.uniform(0, 0.15), lambda: False)
        kill(worker)
    last = start(WORKER.format(poison=POISON, bounds="until_idle=1"), folder)
    last.communicate(timeout=100)
    assert last.returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A broker's folder after four kills."""
    place = tmp_path_factory.mktemp("few-kills")
    kill_again_and_again(place, 4)
    return place


def test_messages_are_all_processed_when_workers_are_killed(folder: pathlib.Path) -> None:
    """Every message that `apply` takes has its output, though four workers were killed."""
    expected = {n for n in range(MESSAGES) if n % POISON}
    assert numbers(f"local://out?file={folder}/kills.db") == expected


def test_dead_letters_are_exact_when_workers_are_killed(folder: pathlib.Path) -> None:
    """What `apply` refuses, and nothing else, is a dead letter, once each."""
    letters = sorted(json.loads(body)["n"] for body in bodies(f"local://in?file={folder}/kills.db&dead-letter"))
    assert letters == [n for n in range(MESSAGES) if n % POISON == 0]


def test_source_is_empty_when_all_is_done(folder: pathlib.Path) -> None:
    """Nothing is left waiting or held."""
    assert bodies(f"local://in?file={folder}/kills.db") == []


@pytest.mark.trial
@pytest.mark.timeout(300)
def test_nothing_is_lost_when_workers_are_killed_25_times(tmp_path: pathlib.Path) -> None:
    """25 kills at random moments: every message is processed, and the dead letters are exact."""
    kill_again_and_again(tmp_path, 25)
    letters = sorted(json.loads(body)["n"] for body in bodies(f"local://in?file={tmp_path}/kills.db&dead-letter"))
    processed = numbers(f"local://out?file={tmp_path}/kills.db")
    assert (len(processed), letters) == (
        sum(n % POISON != 0 for n in range(MESSAGES)),
        [n for n in range(MESSAGES) if n % POISON == 0],
    )


def test_published_messages_are_kept_when_their_publisher_is_killed(tmp_path: pathlib.Path) -> None:
    """What `publish` returned for is there, each once, after a kill in the middle of publishing."""
    publisher = start(PUBLISHER, tmp_path)
    while int(line(publisher)) < 2_000:
        pass
    confirmed = int((kill(publisher).split() or ["2000"])[-1])
    found = sorted(int(body) for body in bodies(f"local://in?file={tmp_path}/kills.db"))
    assert found[:confirmed] == list(range(confirmed))


def test_held_messages_come_back_at_once_when_their_process_is_killed(tmp_path: pathlib.Path) -> None:
    """What a dead process held is handed out again long before its lease of 30 seconds is over."""
    url = f"local://in?file={tmp_path}/kills.db"
    eventflows.send(url, *range(10))
    holder = start(HOLDER, tmp_path)
    assert line(holder) == "10"
    kill(holder)
    with eventflows.open_subscriber(url) as subscriber:
        chunks = subscriber.receive(10, max_bytes=10**6, timeout=5)
        assert sorted(int(body or b"") for chunk in chunks for body in chunk.bodies) == list(range(10))


def test_held_messages_cost_an_attempt_when_their_process_is_killed(tmp_path: pathlib.Path) -> None:
    """A kill counts as an attempt of what the process held."""
    url = f"local://in?file={tmp_path}/kills.db"
    eventflows.send(url, 1)
    holder = start(HOLDER, tmp_path)
    assert line(holder) == "1"
    kill(holder)
    with eventflows.open_subscriber(url) as subscriber:
        [chunk] = subscriber.receive(10, max_bytes=10**6, timeout=5)
        assert chunk[0].attempt == 2


SHARER = """
import eventflows, sys
@eventflows.subscriber("local://in?file=kills.db", name="sharer")
@eventflows.publisher("local://out?file=kills.db")
def apply(input):
    sum(range(15000))
    return {"n": input["n"], "by": sys.argv[1]}
print("ready", flush=True)
sys.stdin.readline()
apply.run(until_idle=1)
"""


@pytest.mark.timeout(200)
def test_competing_processes_get_fair_shares(tmp_path: pathlib.Path) -> None:
    """Four processes on one file each get at least half of an even share."""
    count, processes = 20_000, 4
    eventflows.send(f"local://in?file={tmp_path}/kills.db", *({"n": n} for n in range(count)))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SHARER, str(number)],
            cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(processes)
    ]  # fmt: skip
    assert [line(process) for process in running] == ["ready"] * processes
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        process.communicate(timeout=100)
    shares: dict[str, int] = {}
    for body in bodies(f"local://out?file={tmp_path}/kills.db"):
        by = json.loads(body)["by"]
        shares[by] = shares.get(by, 0) + 1
    print(f"shares {shares}")
    assert len(shares) == processes
    assert min(shares.values()) >= count / processes / 2
