"""The runner on an emulated log, where only a log can go wrong: claims that end while work is under way."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eventflows import Flow, Message, Observer, open_publisher, open_subscriber, publisher, subscriber
from eventflows.adapters.local import forget, local_broker
from eventflows.message import Delivery, Lane
from eventflows.testing import Background, wait_until
from eventflows.testing.conditions import pass_time


class Heard(Observer):
    """What the observers of a flow are told."""

    def __init__(self) -> None:
        self.discards = 0
        self.lanes: list[str] = []

    def discarded(self, *, flow: str, delivery: Delivery, count: int, reason: str) -> None:
        """Count outputs."""
        self.discards += count

    def lane_lost(self, *, flow: str, lane: Lane) -> None:
        """Note the lane."""
        self.lanes.append(lane.name)


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """A source and a destination, forgotten afterwards."""
    made = f"in-{uuid.uuid4().hex}", f"out-{uuid.uuid4().hex}"
    yield made
    for name in made:
        forget(name)


def source(name: str) -> str:
    """The URL of a log."""
    return f"local://{name}?emulate=kafka"


def connected(names: tuple[str, str], apply: Callable[[bytes], object], **settings: Any) -> Flow[..., Any]:
    """A flow from the log to the queue."""

    def function(input: bytes) -> object:
        return apply(input)

    return publisher(f"local://{names[1]}")(subscriber(source(names[0]), name="log", **settings)(function))


def publish(name: str, *messages: Message) -> None:
    """Publish to the log."""
    with open_publisher(source(name)) as sender:
        assert [result.error for result in sender.publish(messages)] == [None] * len(messages)


def outputs(name: str) -> list[bytes | None]:
    """What the destination has."""
    reader: Any = open_subscriber(f"local://{name}")
    return [delivery.message.body for delivery in reader.peek(1000, timeout=1)]


def committed(name: str) -> int:
    """How many messages the group has finished."""
    return sum(local_broker(source(name)).log.committed("default").values())


def test_output_of_a_lost_lane_is_discarded(names: tuple[str, str]) -> None:
    """Work that ends after its claim publishes nothing; the next claim does it again, and publishes once."""
    heard, go = Heard(), threading.Event()
    calls: list[bytes] = []

    def work(body: bytes) -> bytes:
        calls.append(body)
        go.wait(20)
        return body

    publish(names[0], Message(b"one", key="k"))
    with connected(names, work, observers=[heard]).running():
        wait_until(lambda: len(calls) == 1, what="the first call")
        local_broker(source(names[0])).log.revoke("default")
        go.set()
        wait_until(lambda: outputs(names[1]) == [b"one"], what="the output")
        wait_until(
            lambda: sum(local_broker(source(names[0])).log.committed("default").values()) == 1, what="the commit"
        )
    assert (heard.discards, len(heard.lanes), len(calls), outputs(names[1])) == (1, 1, 2, [b"one"])


def test_outputs_that_are_dropped_with_their_lane_hold_up_no_stop(names: tuple[str, str]) -> None:
    """Outputs wait for a destination that is silent, their claims end, they are dropped, and a stop is answered."""
    heard, seen = Heard(), set[bytes]()

    def work(body: bytes) -> bytes:
        seen.add(body)
        return body

    faults = local_broker(f"local://{names[1]}").faults
    publish(names[0], Message(b"0", key="k"))
    flow = connected(names, work, observers=[heard], drain_timeout=3.0)
    running = Background(lambda: flow.run(signals=False))
    faults.freeze("publish")
    try:
        wait_until(lambda: b"0" in seen, what="an output on its way")
        publish(names[0], *[Message(b"%d" % number, key="k") for number in range(1, 4)])
        wait_until(lambda: len(seen) == 4, what="outputs behind it")
        local_broker(source(names[0])).log.expel("default")
    finally:
        faults.thaw("publish")
    wait_until(lambda: heard.discards, what="the dropped outputs")
    wait_until(lambda: set(outputs(names[1])) == {b"0", b"1", b"2", b"3"}, what="all outputs, from the new claim")
    flow.stop()
    running.result(10.0, "the drain")


def test_members_that_come_and_go_lose_nothing_and_keep_the_order(names: tuple[str, str]) -> None:
    """With members joining and leaving under load, every message is done, and those of a key first in their order."""
    done: list[bytes] = []
    lock = threading.Lock()

    def work(body: bytes) -> None:
        pass_time(0.001)  # so that members come and go in the middle of it
        with lock:
            done.append(body)

    total = 600
    publish(names[0], *(Message(b"%d:%d" % (n % 6, n // 6), key=f"k{n % 6}") for n in range(total)))
    flows = [connected(names, work, workers=2, max_in_flight=20) for _ in range(3)]
    runs = [Background(lambda flow=flow: flow.run(signals=False)) for flow in flows[:2]]  # type: ignore[misc]
    wait_until(lambda: len(done) > 100, what="a hundred messages")
    runs.append(Background(lambda: flows[2].run(signals=False)))
    wait_until(lambda: len(done) > 250, what="250 messages")
    flows[0].stop()
    wait_until(lambda: len(set(done)) == total, 30, what="all messages")
    for flow, run in zip(flows, runs, strict=True):
        flow.stop()
        run.result(20, "the drain")
    first: dict[bytes, list[int]] = {}
    for body in dict.fromkeys(done):
        key, _, number = body.partition(b":")
        first.setdefault(key, []).append(int(number))
    assert first == {b"%d" % key: list(range(100)) for key in range(6)}
    assert committed(names[0]) == total


KILLER = """
import os, signal, sys
from eventflows import RetryPolicy, subscriber

@subscriber(sys.argv[1], name="killer", retry=RetryPolicy(attempts=2), dead_letter="drop", max_in_flight=1)
def apply(input: bytes) -> None:
    if input == b"0":
        os.kill(os.getpid(), signal.SIGKILL)

print(apply.run(limit=3))
"""


def test_message_that_kills_its_process_is_bounded_in_a_file(tmp_path: pathlib.Path) -> None:
    """A crash loop ends: after two dead processes the third gives the message up, and does those behind it."""
    url = f"local://orders?file={tmp_path}/flows.db&emulate=kafka"
    with open_publisher(url) as sender:
        sender.publish([Message(b"%d" % number, key="one") for number in range(3)])
    ends = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", KILLER, url], capture_output=True, text=True, timeout=60, check=False
        )
        ends.append(done.returncode)
    assert (ends, "3 acked" in done.stdout, "attempts used up" in done.stderr) == ([-9, -9, 0], True, True)


@pytest.mark.parametrize("options", ["retain=1", "lease=5", "dead-letter"])
def test_option_without_a_meaning_is_refused(options: str) -> None:
    """A log keeps everything, leases nothing and has no dead letters: options for that are refused."""
    with pytest.raises(ValueError, match="has no meaning with emulate=kafka"):
        open_subscriber(f"local://orders?emulate=kafka&{options}")


def test_name_is_one_thing_in_a_process(names: tuple[str, str]) -> None:
    """A name that is a log for one URL is no queue for another."""
    publish(names[0], Message(b"one"))
    with pytest.raises(ValueError, match="in use with emulate=kafka"), open_subscriber(f"local://{names[0]}"):
        pass


def test_log_in_a_file_is_no_queue(tmp_path: Any) -> None:
    """A name that is a log in a file is refused as a queue, and listed among the names of the file."""
    with open_publisher("local://orders", file=tmp_path / "flows.db", emulate="kafka") as sender:
        sender.publish([Message(b"one")])
    reader: Any = open_subscriber("local://other", file=tmp_path / "flows.db")
    assert "orders" in reader.entities()
    with (
        pytest.raises(ValueError, match="is a log"),
        open_publisher("local://orders", file=tmp_path / "flows.db", sync="full"),
    ):
        pass
