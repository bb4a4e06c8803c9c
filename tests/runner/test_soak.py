"""Many messages, everything going wrong now and then, and the results proven complete."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

import eventflows
from eventflows import Message, Observer, RetryPolicy, publisher, subscriber
from eventflows.adapters.local import local_broker
from eventflows.errors import ConnectionFailedError, ThrottledError
from eventflows.policy import Settlement, Verdict

MEGABYTE = 1 << 20
MOST_MEMORY = 256 * MEGABYTE
"""An interpreter with the library takes 60 MB; what is held is capped at 2,000 messages. The rest is room."""
EVERY = 1009
"""One in so many messages is refused by `apply`, so that the set of dead letters is known."""

WORKER = """
import os, random, time
from eventflows import Reject, Retry, RetryPolicy, publisher, subscriber

luck = random.Random({seed} + os.getpid())
settings = dict(name="soak", retry=RetryPolicy(attempts=1000, delay=0.01, max_delay=0.1))

def work(input):
    chance = luck.random()
    if input % {every} == 7:
        raise Reject("of those that are refused")
    if chance < 0.0004:
        raise ValueError("now and then")
    if chance < 0.0006:
        raise Retry(delay=0.05)
    if chance < 0.0008:
        time.sleep(0.02)
    return input

@subscriber("local://in?file=flows.db", workers=2, **settings)
@publisher("local://out?file=flows.db")
def threads(input: int) -> int:
    return work(input)

@subscriber("local://in?file=flows.db", executor="process", **settings)
@publisher("local://out?file=flows.db")
def processes(input: int) -> int:
    if luck.random() < 0.00002:
        os._exit(1)
    return work(input)
"""
FLOWS = ("threads", "threads", "processes")


class Crowd:
    """Processes that work on one file, killed and stopped at random.

    Args:
        folder: Where the file and the program are.
        luck: Decides who, when and how.
    """

    def __init__(self, folder: pathlib.Path, luck: random.Random) -> None:
        self._folder = folder
        self._luck = luck
        self.running = {number: self._start(flow) for number, flow in enumerate(FLOWS)}
        self.kills = self.stops = 0
        self.memory = 0

    def _start(self, flow: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "eventflows", "run", f"worker.py:{flow}"],
                cwd=self._folder, stdout=log, stderr=log,
            )  # fmt: skip

    def watch(self) -> None:
        """Note how much memory the processes take, and that none ended by itself."""
        for process in self.running.values():
            assert process.poll() is None, (self._folder / "log.txt").read_text()[-2000:]
            pages = int(pathlib.Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            self.memory = max(self.memory, pages * os.sysconf("SC_PAGE_SIZE"))

    def disturb(self) -> None:
        """Kill one, or stop it, and start another in its place."""
        number = self._luck.randrange(len(FLOWS))
        process = self.running[number]
        if self._luck.random() < 0.7:
            process.kill()
            process.wait(60)
            self.kills += 1
        else:
            self._stop(process)
            self.stops += 1
        self.running[number] = self._start(FLOWS[number])

    def end(self) -> None:
        """Stop them all."""
        for process in self.running.values():
            self._stop(process)

    def finish(self) -> None:
        """Do what they handed back, or held when they were killed."""
        rest = subprocess.run(
            [sys.executable, "-m", "eventflows", "run", "worker.py:threads", "--until-idle", "0.5"],
            cwd=self._folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert rest.returncode == 0, rest.stderr[-2000:]

    def kill(self) -> None:
        """End them, whatever they are on."""
        for process in self.running.values():
            process.kill()
            process.wait(60)

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        # A process that has only begun to start has no handler yet: the signal ends it, and nothing was taken.
        assert process.wait(60) in (0, -signal.SIGTERM)


def read_all(url: str) -> list[Message]:
    """Read every message of a place, and leave none: what was only held would come again, lease after lease."""
    found: list[Message] = []
    with eventflows.open_subscriber(url) as reader:
        while chunks := reader.receive(1000, max_bytes=64 * MEGABYTE, timeout=1):
            found.extend(delivery.message for chunk in chunks for delivery in chunk)
            spans = [(chunk, slice(0, len(chunk))) for chunk in chunks]
            assert not reader.settle([Settlement(verdict=Verdict.ACK, spans=spans)])
    return found


def soak(folder: pathlib.Path, count: int, pause: tuple[float, float], seed: int) -> None:
    """Publish, let a crowd work, and prove the results complete."""
    luck = random.Random(seed)
    (folder / "worker.py").write_text(WORKER.format(seed=seed, every=EVERY))
    place = f"file={folder}/flows.db"
    with eventflows.open_publisher(f"local://in?{place}") as source:
        for start in range(0, count, 1000):
            batch = [Message(b"%d" % number) for number in range(start, min(start + 1000, count))]
            assert all(answer.error is None for answer in source.publish(batch))
    began = time.monotonic()
    looks = eventflows.open_subscriber(f"local://in?{place}")
    crowd = Crowd(folder, luck)
    try:
        due = time.monotonic() + luck.uniform(*pause)
        while (backlog := looks.backlog()) is None or backlog.waiting:
            crowd.watch()
            threading.Event().wait(0.05)
            if time.monotonic() >= due:
                crowd.disturb()
                due = time.monotonic() + luck.uniform(*pause)
        crowd.end()
        crowd.finish()  # what is held does not wait, so no backlog is not the end
    finally:
        crowd.kill()
    seconds = time.monotonic() - began
    left = looks.backlog()
    looks.close()
    refused = {number for number in range(count) if number % EVERY == 7}
    outputs = read_all(f"local://out?{place}")
    results = {int(message.body or b"") for message in outputs}
    dead = sorted(int(message.body or b"") for message in read_all(f"local://in?{place}&dead-letter"))
    print(
        f"seed {seed}: {count:,} messages in {seconds:.0f} s with {crowd.kills} kills and {crowd.stops} stops; "
        f"{len(outputs) - len(results):,} outputs repeated, {len(dead):,} dead letters, "
        f"at most {crowd.memory / MEGABYTE:.0f} MiB"
    )
    assert left is not None
    assert left.waiting == 0
    assert results == set(range(count)) - refused
    assert dead == sorted(refused)
    assert len({message.id for message in outputs}) == len(results), "an id is that of its input"
    assert 0 < crowd.memory < MOST_MEMORY


def test_soak_is_complete_when_processes_are_killed(tmp_path: pathlib.Path) -> None:
    """The short one: some kills, every result there, every refusal a dead letter."""
    soak(tmp_path, 40_000, (0.3, 1.0), seed=random.randrange(1 << 30))


@pytest.mark.trial
@pytest.mark.timeout(1200)
def test_soak_of_a_million_is_complete(tmp_path: pathlib.Path) -> None:
    """1,000,000 messages, three processes, a kill or a stop about every second: nothing is missing."""
    soak(tmp_path, 1_000_000, (0.5, 2.0), seed=random.randrange(1 << 30))


class Spoiler(Observer):
    """Makes the destination fail after it went well, now and then: faults never pile up.

    Args:
        url: The destination.
        luck: Decides when and how.
    """

    def __init__(self, url: str, luck: random.Random) -> None:
        self._faults = local_broker(url).faults
        self._luck = luck
        self.count = 0

    def published(self, *, flow: str, destination: str, count: int) -> None:
        """Spoil the next attempt, or one message of it."""
        chance = self._luck.random()
        if chance < 0.2:
            kind = self._luck.choice([ThrottledError, ConnectionFailedError])
            self._faults.fail("publish", kind("an injected failure"))
            self.count += 1
        elif chance < 0.5:
            self._faults.fail_message(lambda _: True, ThrottledError("an injected failure"))
            self.count += 1


def test_soak_is_complete_when_publishing_fails_and_runs_restart() -> None:
    """In memory: apply raises, the destination throttles and breaks, the flow stops and starts again."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    luck, count = random.Random(seed), 20_000
    url, out = f"local://{uuid.uuid4().hex}", f"local://{uuid.uuid4().hex}"
    spoiler = Spoiler(out, luck)
    retry = RetryPolicy(attempts=1000, delay=0.001, max_delay=0.01)

    @subscriber(url, workers=2, retry=retry, observers=[spoiler], max_in_flight=200)
    @publisher(out)
    def apply(input: int) -> int:
        if luck.random() < 0.002:
            raise ValueError("now and then")
        return input

    for start in range(0, count, 1000):
        eventflows.send(url, *range(start, start + 1000))
    acked = 0
    while acked < count:
        acked += apply.run(limit=min(luck.randrange(1000, 4000), count - acked), signals=False).acked
    messages = read_all(out)
    assert {int(message.body or b"") for message in messages} == set(range(count))
    assert len({message.id for message in messages}) == count
    assert spoiler.count > 10
