"""Processes that run a flow from topic to topic, to be killed, stopped and replaced."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from eventflows.message import Message
from eventflows.protocols import Subscriber
from eventflows.testing.cases import PLENTY, spread
from kafka_harness import KafkaHarness

KEYS = 16
SESSION = 6
PROGRAM = """
import sys
from eventflows import RetryPolicy, publisher, subscriber
source, destination, guarantee, delay = sys.argv[1:]

@subscriber(source, name="members", guarantee=guarantee, retry=RetryPolicy(attempts=1000))
@publisher(destination)
def apply(input: bytes) -> bytes:
    if float(delay):
        import time
        time.sleep(float(delay))
    return input

apply.run()
"""


class Members:
    """Some processes of one flow, in one group.

    Args:
        source: The URL, with the group.
        destination: The URL.
        guarantee: Of the flow.
        count: Processes.
        delay: Seconds that `apply` takes.
    """

    def __init__(self, source: str, destination: str, guarantee: str, *, count: int = 3, delay: float = 0.0) -> None:
        self._command = [sys.executable, "-c", PROGRAM, source, destination, guarantee, str(delay)]
        self.processes = [self._start() for _ in range(count)]

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command)

    def join(self) -> None:
        """Let one more join."""
        self.processes.append(self._start())

    def kill(self, place: int = 0) -> None:
        """Kill one with -9."""
        process = self.processes.pop(place)
        process.kill()
        process.wait(10)

    def leave(self, place: int = 0) -> int:
        """Let one drain and leave; gives its exit status."""
        process = self.processes.pop(place)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def trouble(self, luck: random.Random) -> str:
        """Kill one, let one leave, or let one join; there are never fewer than two."""
        place = luck.randrange(len(self.processes))
        match luck.choice(("kill", "kill", "leave", "join")):
            case "kill":
                self.kill(place)
                self.join()
                return "kill"
            case "leave" if len(self.processes) > 2:
                self.leave(place)
                return "leave"
            case _ if len(self.processes) < 5:
                self.join()
                return "join"
        return "nothing"

    def __enter__(self) -> Self:
        """Give it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill what is left."""
        while self.processes:
            self.kill()


class Reader:
    """Reads a destination as it grows: how often each number came, and what of a key came before an earlier one.

    Args:
        subscriber: Of the destination, open.
    """

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self.seen: Counter[int] = Counter()
        self.early: list[int] = []
        """Numbers that came before one below them of their key."""

    def read(self, timeout: float) -> int:
        """Read what is there; gives how many."""
        count = 0
        for one in spread(self._subscriber.receive(10_000, max_bytes=PLENTY, timeout=timeout)):
            count += 1
            number = int(one.body or b"0")
            self.seen[number] += 1
            before = number - KEYS
            if before >= 0 and not self.seen[before]:
                self.early.append(number)
        return count

    def until(self, count: int, *, within: float = 60.0) -> None:
        """Read until so many different numbers have come.

        Raises:
            AssertionError: They did not come in time.
        """
        end = time.monotonic() + within
        while len(self.seen) < count:
            assert time.monotonic() < end, f"{len(self.seen)} of {count} numbers within {within:g} s"
            self.read(0.2)

    def rest(self, quiet: float = 1.0) -> int:
        """Read until nothing comes for some seconds; gives how many came."""
        count = 0
        while some := self.read(quiet):
            count += some
        return count


class Place:
    """A source and a destination, for members of a group of their own.

    Args:
        broker: Has them.
    """

    def __init__(self, broker: KafkaHarness) -> None:
        self._broker = broker
        self._source, self._destination = broker.fresh(), broker.fresh()
        for name in (self._source, self._destination):
            broker.create(name)
        self.group = broker.group_of(self._source)
        client = f"client={broker.source_options.get('client', 'kafka-python')}"
        self.url = f"{broker.source_url(self._source)}?group={self.group}&session_timeout={SESSION}&{client}"
        """Of the source, with the group."""
        self.destination_url = f"{broker.destination_url(self._destination)}?{client}"

    def fill(self, count: int, *, start: int = 0) -> None:
        """Publish numbers, in order; number modulo `KEYS` is the key."""
        with self._broker.publisher(self._source) as publisher:
            for first in range(start, start + count, 2000):
                batch = [Message(b"%d" % n, key=f"k{n % KEYS}") for n in range(first, min(first + 2000, start + count))]
                assert not any(one.error for one in publisher.publish(batch))

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """Read the destination."""
        with self._broker.subscriber(self._destination, "reader") as subscriber:
            yield Reader(subscriber)


def storm(
    broker: KafkaHarness,
    count: int,
    guarantee: str,
    *,
    troubles: int,
    pause: float = 2.0,
    delay: float = 0.0,
    within: float = 400.0,
) -> tuple[Reader, str]:
    """Let numbers pass from topic to topic while members come, go and are killed; gives what arrived, and a seed."""
    seed = random.randrange(10**6)
    luck = random.Random(seed)
    place = Place(broker)
    place.fill(count)
    done = []
    with place.reader() as reader, Members(place.url, place.destination_url, guarantee, delay=delay) as members:
        end = time.monotonic() + within
        next_trouble = time.monotonic() + pause
        while len(reader.seen) < count and time.monotonic() < end:
            reader.read(0.2)
            if time.monotonic() >= next_trouble and len(done) < troubles:
                done.append(members.trouble(luck))
                next_trouble = time.monotonic() + luck.uniform(0.3, 2 * pause)
        quiet = time.monotonic() + 2 * SESSION + 2
        while time.monotonic() < quiet:  # a repeat would come late
            reader.read(0.5)
    return reader, f"seed {seed}: {', '.join(done)}"
