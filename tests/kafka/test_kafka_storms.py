"""Members that join, leave and are killed while messages flow."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator

import pytest

from eventflows import RetryPolicy, subscriber
from eventflows.flow import Flow
from eventflows.locate import open_publisher
from eventflows.message import Delivery, Message
from eventflows.testing import wait_until
from eventflows.testing.conditions import pass_time
from kafka_members import Members
from kafka_stream import KEYS, overtaken
from kafka_use import CLIENTS, committed, ends, everything, fresh_topic
from kafka_watch import Outputs, Watch
from servers.kafka import KafkaServer, gate, shared

pytestmark = [
    pytest.mark.trial,
    pytest.mark.timeout(240),
]


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    """The broker that all share, and its gate without rules afterwards."""
    yield shared()
    gate().rules.clear()
    gate().answer_rules.clear()


def fill(server: KafkaServer, topic: str, numbers: range) -> None:
    """Publish numbers, in order; number modulo `KEYS` is the key."""
    with open_publisher(f"kafka://{server.address()}/{topic}") as out:
        for start in range(numbers.start, numbers.stop, 2000):
            some = numbers[start - numbers.start : start - numbers.start + 2000]
            assert not any(one.error for one in out.publish([Message(b"%d" % n, key=f"k{n % KEYS}") for n in some]))


def url_of(address: str, topic: str, client: str, **options: object) -> str:
    """Write a URL, options included."""
    said = "&".join(f"{name}={value}" for name, value in {**options, **CLIENTS[client]}.items())
    return f"kafka://{address}/{topic}" + (f"?{said}" if said else "")


def test_no_commit_passes_an_unfinished_message_when_members_come_and_go(server: KafkaServer, client: str) -> None:
    """Eight workers finish out of order while members join and leave: every commit is looked at, as it passes."""
    topic, group, published = fresh_topic(server, partitions=6), f"busy-{uuid.uuid4().hex[:8]}", 0
    done: set[tuple[int, int]] = set()
    calls: Counter[str] = Counter()
    luck = random.Random(7)

    def flow(name: str) -> Flow[..., object]:
        def apply(input: int, *, delivery: Delivery | None = None) -> None:
            pass_time(luck.expovariate(1 / 0.02))
            assert delivery is not None
            partition, offset = delivery.position.split(":")
            done.add((int(partition), int(offset)))
            calls[name] += 1

        url = url_of(server.address("GATED"), topic, client, group=group, session_timeout=6)
        return subscriber(url, name=name, order="none", workers=8, retry=RetryPolicy(attempts=1000))(apply)

    def works(name: str) -> None:
        def at_work() -> bool:
            nonlocal published
            if published - len(done) < 1000:  # so that nobody who joins finds all of it done
                fill(server, topic, range(published, published + 1000))
                published += 1000
            return calls[name] > 100

        wait_until(at_work, 30, what=f"{name} member at work")

    watch = Watch(gate(), group, lambda *place: place in done)
    with flow("first").running():
        works("first")
        with flow("second").running():
            works("second")
            with flow("third").running():
                works("third")
        wait_until(lambda: len(done) == published, 60, what="all messages")
    assert watch.wrong == []
    assert watch.commits > 10
    assert committed(server, group) == ends(server, topic)


def test_nothing_is_missing_or_overtaken_when_members_come_go_and_are_killed(server: KafkaServer, client: str) -> None:
    """Every number arrives, none before one below it of its key, and no commit passes an input without its output."""
    seed = random.randrange(10**6)
    luck = random.Random(seed)
    source, destination = (fresh_topic(server, partitions=4) for _ in range(2))
    group, count, troubles = f"storm-{uuid.uuid4().hex[:8]}", 6000, []
    fill(server, source, range(count))
    inputs = {tuple(int(part) for part in place.split(":")): int(body) for place, body in everything(server, source)}
    watch = Watch(gate(), group, Outputs(gate(), inputs).done)  # type: ignore[arg-type]
    ways = (
        url_of(server.address("GATED"), source, client, group=group, session_timeout=3),
        url_of(server.address("GATED"), destination, client),
    )
    with Members(*ways, "at-least-once", delay=0.004) as members:
        wait_until(lambda: watch.commits > 8, 30, what="the first commits")
        while len(troubles) < 8 and sum(committed(server, group).values()) < count:
            troubles.append(members.trouble(luck))
            pass_time(luck.uniform(0.3, 2.0))
        what = f"seed {seed}: {', '.join(troubles)}"
        wanted = ends(server, source)
        wait_until(lambda: committed(server, group) == wanted, 90, what=f"{what}: everything done", every=0.5)
    numbers = [int(body) for _, body in everything(server, destination)]
    assert (sorted(set(numbers)), overtaken(numbers), watch.wrong) == (list(range(count)), [], []), what
    assert len(troubles) >= 5, what


def test_nothing_of_100_000_messages_is_missing_after_ten_kills(server: KafkaServer, client: str) -> None:
    """One of three members, at random, is killed with -9 and replaced, ten times: all arrive, keys keep order."""
    seed = random.randrange(10**6)
    luck = random.Random(seed)
    source, destination = (fresh_topic(server, partitions=6) for _ in range(2))
    group, each, kills = f"kills-{uuid.uuid4().hex[:8]}", 10_000, 10
    ways = (
        url_of(server.address(), source, client, group=group, session_timeout=3),
        url_of(server.address(), destination, client),
    )
    with Members(*ways, "at-least-once") as members:
        for number in range(kills):
            fill(server, source, range(number * each, (number + 1) * each))
            wait_until(lambda: sum(ends(server, destination).values()) > 0, 30, what="outputs", every=0.2)
            pass_time(luck.uniform(0.0, 1.0))
            members.kill(luck.randrange(3))
            members.join()
        wanted = ends(server, source)
        wait_until(lambda: committed(server, group) == wanted, 120, what=f"seed {seed}: everything done", every=0.5)
    numbers = [int(body) for _, body in everything(server, destination)]
    assert sorted(set(numbers)) == list(range(kills * each)), f"seed {seed}"
    assert overtaken(numbers) == [], f"seed {seed}"
