"""Memory with much more waiting than may be held."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque

import pytest

from eventflows.locate import open_publisher
from eventflows.message import Message
from eventflows.protocols import Pending
from kafka_use import CLIENTS, fresh_topic
from servers.kafka import KafkaServer, shared

pytestmark = [
    pytest.mark.trial,
    pytest.mark.timeout(300),
]
WAITING = 1_000_000
MOST = 48
"""MiB that work may add: what is in flight, and what is fetched ahead (4 MiB, three times that once it is parsed)."""
PROGRAM = """
import json, sys, threading, time
from eventflows import subscriber

empty, full, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

def size():
    with open("/proc/self/statm") as pages:
        return int(pages.read().split()[1]) * 4096 / 2**20

def run(url, seconds):
    seen = []

    @subscriber(url, workers=2, **options)
    def apply(input: bytes) -> None:
        seen.append(None)
        time.sleep(0.001)

    most = 0.0
    with apply.running():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            most = max(most, size())
            time.sleep(0.05)
    return most, len(seen)

before, _ = run(empty, 4)
most, seen = run(full, 12)
print(json.dumps([before, most, seen]))
"""


@pytest.fixture(scope="module")
def full() -> str:
    """A topic with many messages of 200 bytes."""
    server = shared()
    topic = fresh_topic(server, partitions=4)
    body = bytes(200)
    with open_publisher(f"kafka://{server.address()}/{topic}?client=librdkafka") as out:
        sent: deque[Pending] = deque()
        for start in range(0, WAITING, 2000):
            sent.append(out.send([Message(body, key=f"k{number % 64}") for number in range(start, start + 2000)]))
            if len(sent) > 5:
                assert not any(one.error for one in sent.popleft().results(30.0))
        assert not any(one.error for pending in sent for one in pending.results(30.0))
    return topic


def test_memory_is_bounded_by_the_caps_whatever_waits(full: str, client: str) -> None:
    """A flow that is slower than its broker holds what it may hold, not what there is."""
    server: KafkaServer = shared()
    empty, many = (f"kafka://{server.address()}/{topic}?group=memory-{client}" for topic in (fresh_topic(server), full))
    command = [sys.executable, "-c", PROGRAM, empty, many, json.dumps(CLIENTS[client])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    before, most, seen = json.loads(done.stdout)
    assert seen > 1000, "it hardly worked"
    assert most - before < MOST, f"{before:.0f} MiB with nothing, {most:.0f} MiB with {WAITING:,} messages waiting"
