"""Kafka on a real broker: this library, through both of its clients, against the best hand-written loops, in one run.

Every row of a table does the same work on the same topic: 200-byte JSON, one process. Rows take turns; what is shown
are medians, ratios being taken turn by turn. After each row all of it is looked at: every input was seen once, the
group's committed offsets are the ends, every output is there once. Broker and rows share the machine's processors.
"""

from __future__ import annotations

import argparse
import gc
import json
import pathlib
import statistics
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

sys.path.pop(0)  # in this script's own folder, `kafka` is this script
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "loops"))

import kafka_loops as loops
import orjson
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kafka_loops import Place, Work

import eventflows
from eventflows import Message
from eventflows.message import Batch
from servers.kafka import KafkaServer
from servers.kafka_gate import COMMIT, FETCH, KafkaGate
from servers.process import free_port

HERE: Final = pathlib.Path(__file__).resolve().parent
PARTITIONS: Final = 4
CLIENTS: Final = ("kafka-python", "librdkafka")
PARTS: Final = ("consume", "keyed", "pipe", "publish", "commits", "latency", "memory", "peers")
PEERS: Final = {"faststream": "faststream[kafka,confluent]==0.7.8"}
PEER_MESSAGES: Final = 2_000

Row = Callable[[Place, Work], float]
"""Works through a topic; gives the seconds from the first messages to the end."""
Goal = tuple[str, str, float]
"""A row, the row that it is measured against, and how much of it is wanted."""


class Clock(eventflows.Observer):
    """Notes when the first messages came."""

    def __init__(self) -> None:
        self.began = 0.0

    def received(self, *, flow: str, chunk: object) -> None:
        """Note it."""
        self.began = self.began or time.perf_counter()


def url(place: Place, client: str) -> str:
    """Give the source."""
    return f"kafka://{place.broker}/{place.topic}?group={place.group}{other(client, '&')}"


def other(client: str, sign: str = "?") -> str:
    """Give what makes a URL use another client than the default one."""
    return "" if client == CLIENTS[0] else f"{sign}client={client}"


def flow_consume(client: str) -> Row:
    """Run a flow, at least once, with everything on."""

    def run(place: Place, work: Work) -> float:
        clock = Clock()
        flow = eventflows.subscriber(url(place, client), name="bench", dead_letter="halt", observers=[clock])(work.note)
        assert flow.run(limit=place.count, signals=False).acked == place.count
        return time.perf_counter() - clock.began

    return run


def flow_pipe(client: str) -> Row:
    """Run a flow with a destination."""

    def run(place: Place, work: Work) -> float:
        clock = Clock()
        publishes = eventflows.publisher(f"kafka://{place.broker}/{place.out}{other(client)}")(work.change)
        flow = eventflows.subscriber(url(place, client), name="bench", dead_letter="halt", observers=[clock])(publishes)
        assert flow.run(limit=place.count, signals=False).published == place.count
        return time.perf_counter() - clock.began

    return run


def messages(bodies: list[bytes]) -> Sequence[Message]:
    """Make a message of each body."""
    return [Message(body) for body in bodies]


def library_publish(client: str, made: Callable[[list[bytes]], Sequence[Message]] = messages) -> Row:
    """Publish batches, some of them on their way at any time, and look at every answer."""

    def run(place: Place, _: Work) -> float:
        with eventflows.open_publisher(f"kafka://{place.broker}/{place.out}{other(client)}") as publisher:
            publisher.open()
            began = time.perf_counter()
            sent: deque[Any] = deque()
            for batch in loops.values(place.count):
                sent.append(publisher.send(made([orjson.dumps(value) for value in batch])))
                if len(sent) >= loops.WINDOW:
                    assert not [one for one in sent.popleft().results(30) if one.error]
            for pending in sent:
                assert not [one for one in pending.results(30) if one.error]
        return time.perf_counter() - began

    return run


class Bench:
    """A broker, and what is measured on it.

    Args:
        count: Messages of each row.
        turns: Of each row.
        clients: Those to measure.
    """

    def __init__(self, count: int, turns: int, clients: Sequence[str]) -> None:
        self._count = count
        self._turns = turns
        self._clients = clients
        self._gate_port = free_port()
        self._server = KafkaServer(advertised={"PROXIED": self._gate_port})
        self._server.start()
        self._admin = AdminClient({"bootstrap.servers": self._server.address()})
        self._full: dict[int, str] = {}

    def close(self) -> None:
        """Remove the broker."""
        self._server.remove()

    def topic(self) -> str:
        """Make a topic; gives its name."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self._admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
        return name

    def place(self, count: int, *, topic: str = "", out: bool = False, broker: str = "") -> Place:
        """Give a row a place of its own."""
        address = broker or self._server.address()
        return Place(address, topic, self.topic() if out else "", uuid.uuid4().hex, count)

    def filled(self, count: int, keys: int = 0) -> str:
        """Make a topic of so many messages, with so many keys; 0: without."""
        place = self.place(count, out=True)
        loops.confluent_publish(place, Work(0), keys)
        return place.out

    def full(self, keys: int = 0) -> str:
        """Give the topic that all rows read."""
        if keys not in self._full:
            self._full[keys] = self.filled(self._count, keys)
        return self._full[keys]

    def measure(self, row: Row, *, source: bool, out: bool, keys: int = 0) -> tuple[float, float]:
        """Run a row once and look at what it did; gives its rate, and microseconds of CPU for each message."""
        place = self.place(self._count, topic=self.full(keys) if source else "", out=out)
        work = Work(place.count)
        gc.collect()
        gc.freeze()  # as `eventflows run` does; for the loops, too
        burnt = time.process_time()
        seconds = row(place, work)
        burnt = time.process_time() - burnt
        if source:
            assert work.seen == b"\1" * place.count, "not every input was seen once"
            assert self._committed(place) == place.count, "what is committed is not the end"
        if out:
            assert self._ids(place.out) == b"\1" * place.count, "not every output is there once"
            self._admin.delete_topics([place.out])[place.out].result()
        return place.count / seconds, burnt * 1e6 / place.count

    def _committed(self, place: Place) -> int:
        consumer = Consumer({"bootstrap.servers": self._server.address(), "group.id": place.group})
        found = consumer.committed([TopicPartition(place.topic, number) for number in range(PARTITIONS)], 10)
        consumer.close()
        return sum(max(one.offset, 0) for one in found)

    def _ids(self, topic: str) -> bytearray:
        seen = bytearray(self._count)
        consumer = Consumer({"bootstrap.servers": self._server.address(), "group.id": "look"})
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in range(PARTITIONS)]
        consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        left = sum(ends)
        while left > 0:
            for message in consumer.consume(10_000, 1.0):
                seen[orjson.loads(message.value())["id"]] += 1
                left -= 1
        consumer.close()
        return seen

    def table(
        self, title: str, rows: Mapping[str, Row], goals: Sequence[Goal], *, source: bool, out: bool, keys: int = 0
    ) -> None:
        """Measure rows in turns, print them, and print what was wanted of them."""
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
        for turn in range(self._turns):
            names = [*rows][turn % len(rows) :] + [*rows][: turn % len(rows)]
            for name in names:
                found[name].append(self.measure(rows[name], source=source, out=out, keys=keys))
        print(f"\n{title}: {self._count:,} messages, medians of {self._turns} turns")
        print(f"{'':36} {'per second':>10} {'CPU us each':>12}")
        for name, turns in found.items():
            rate, cpu = (statistics.median(column) for column in zip(*turns, strict=True))
            print(f"{name:36} {rate:10,.0f} {cpu:12.1f}")
        for name, base, goal in goals:
            if name in found and base in found:
                pairs = [mine[0] / theirs[0] for mine, theirs in zip(found[name], found[base], strict=True)]
                spread = " ".join(f"{one:.2f}" for one in sorted(pairs))
                print(f"{name}: {statistics.median(pairs):.2f} of {base} (goal {goal:g}; {spread})")
        sys.stdout.flush()

    def rows(
        self, python: Mapping[str, Row], confluent: Mapping[str, Row], ours: Callable[[str], Row]
    ) -> dict[str, Row]:
        """Put together what the chosen clients are measured with; kafka-python's loops always count."""
        rows = dict(python)
        if CLIENTS[0] in self._clients:
            rows[f"eventflows, {CLIENTS[0]}"] = ours(CLIENTS[0])
        if CLIENTS[1] in self._clients:
            rows |= confluent
            rows[f"eventflows, {CLIENTS[1]}"] = ours(CLIENTS[1])
        return rows

    def consume(self) -> None:
        """Consume, apply, acknowledge."""
        self._consume("consume, apply, acknowledge", 0)

    def keyed(self) -> None:
        """Do the same where every message has one of 1,000 keys, whose order the library keeps."""
        self._consume("the same with 1,000 keys, in the order of each", 1000)

    def _consume(self, title: str, keys: int) -> None:
        plain, quick, best = "kafka-python, json", "kafka-python, orjson", "confluent-kafka, orjson"
        python = {plain: loops.python_consume(json.loads), quick: loops.python_consume(orjson.loads)}
        rows = self.rows(python, {best: loops.confluent_consume}, flow_consume)
        goals = [
            ("eventflows, kafka-python", plain, 0.95),
            ("eventflows, kafka-python", quick, 0.85),
            ("eventflows, librdkafka", best, 0.7),
            ("eventflows, librdkafka", plain, 2.5),
        ]
        self.table(title, rows, goals, source=True, out=False, keys=keys)

    def pipe(self) -> None:
        """Consume, apply, publish, acknowledge."""
        plain, quick, best = "kafka-python, json", "kafka-python, orjson", "confluent-kafka, orjson"
        python = {
            plain: loops.python_pipe(json.loads, lambda value: json.dumps(value).encode()),
            quick: loops.python_pipe(orjson.loads, orjson.dumps),
        }
        rows = self.rows(python, {best: loops.confluent_pipe}, flow_pipe)
        goals = [
            ("eventflows, kafka-python", plain, 0.95),
            ("eventflows, kafka-python", quick, 0.95),
            ("eventflows, librdkafka", best, 0.6),
            ("eventflows, librdkafka", plain, 3.0),
        ]
        self.table("consume, apply, publish, acknowledge", rows, goals, source=True, out=True)

    def publish(self) -> None:
        """Publish batches."""
        rows = self.rows(
            {"kafka-python": loops.python_publish}, {"confluent-kafka": loops.confluent_publish}, library_publish
        )
        rows |= {f"eventflows, {client}, columns": library_publish(client, Batch) for client in self._clients}
        goals = [
            ("eventflows, kafka-python", "kafka-python", 0.95),
            ("eventflows, librdkafka", "confluent-kafka", 0.7),
            ("eventflows, librdkafka, columns", "confluent-kafka", 0.7),
        ]
        self.table("publish batches of 1,000", rows, goals, source=False, out=True)

    def commits(self) -> None:
        """Count the requests, through a gate that slows everything down."""
        print("\nrequests per 1,000 messages, consume and acknowledge, counted on the way to the broker")
        rows = self.rows({"kafka-python, json": loops.python_consume(json.loads)}, {}, flow_consume)
        for name, row in rows.items():
            gate = KafkaGate(self._gate_port, self._server.ports["PROXIED"])
            broker = f"127.0.0.1:{self._gate_port}"
            row(self.place(self._count, topic=self.full(), broker=broker), Work(self._count))
            gate.close()
            commits, fetches = (gate.requests[kind] * 1000 / self._count for kind in (COMMIT, FETCH))
            print(f"{name:36} commits {commits:.2f} (goal 2), fetches {fetches:.2f}")

    def latency(self, seconds: float = 6.0) -> None:
        """Say how long a message takes from publish to `apply` at 200 a second."""
        print(f"\nlatency at 200 messages a second, from publish to the function's call, {seconds:g} s each, best of 2")
        rows: dict[str, Callable[..., list[float]]] = {}
        for client, raw in (("kafka-python", loops.python_latency), ("librdkafka", loops.confluent_latency)):
            if client in self._clients:
                rows |= {f"{client}, hand-written": raw, f"eventflows, {client}": flow_latency(client)}
        base = 0.0
        for name, row in rows.items():
            middle, late = min(self._delays(row, seconds) for _ in range(2))
            added = f"added {middle - base:.2f} (goal 2)" if name.startswith("eventflows") else ""
            base = middle
            print(f"{name:36} median {middle:5.2f} ms, of 100 one is over {late:6.2f} ms  {added}")

    def _delays(self, row: Callable[..., list[float]], seconds: float) -> tuple[float, float]:
        place = self.place(int(seconds * 200), topic=self.topic())
        script = HERE / "loops" / "kafka_ticker.py"
        words = [sys.executable, str(script), place.broker, place.topic, str(place.count)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as ticker:
            delays = sorted(row(place, ticker)[200:])  # the first second may still be joining
        return statistics.median(delays) * 1000, delays[int(len(delays) * 0.99)] * 1000

    def memory(self) -> None:
        """Say what the process takes at most, with 100,000 and with 1,000,000 messages waiting."""
        print("\npeak memory of a process that works through what waits")
        waiting = (100_000, 1_000_000)
        topics = [self.filled(count) for count in waiting]
        for client in self._clients:
            peaks = []
            for topic, count in zip(topics, waiting, strict=True):
                place = self.place(count, topic=topic)
                words = [sys.executable, str(HERE / "loops" / "kafka_memory.py"), url(place, client), str(count)]
                peaks.append(int(subprocess.run(words, capture_output=True, check=True).stdout) / 1024)
            print(f"eventflows, {client:24} 100,000: {peaks[0]:.0f} MiB, 1,000,000: {peaks[1]:.0f} MiB")

    def peers(self) -> None:
        """Measure what one would pick instead, in an environment of its own, on few messages: they are slow."""
        home = HERE.parent / ".venv" / "peers-kafka"
        python = home / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        if subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS.values()], check=False).returncode:
            print("\npeers: left out, because they could not be installed")
            return
        best = {client: self.measure(flow_consume(client), source=True, out=False)[0] for client in self._clients}
        topic = self.filled(PEER_MESSAGES)
        print(f"\npeers: consume, apply, acknowledge; {PEER_MESSAGES:,} messages, the better of 2 turns")
        for client, name in zip(CLIENTS, ("aiokafka", "confluent"), strict=True):
            if client in best:
                rate = max(self._peer(python, name, topic) for _ in range(2))
                times = f"{best[client]:,.0f}, {best[client] / rate:.0f} times as much (goal 10)"
                print(f"FastStream over {name:20} {rate:10,.0f} per second; eventflows over {client} {times}")

    def _peer(self, python: pathlib.Path, name: str, topic: str) -> float:
        place = self.place(PEER_MESSAGES, topic=topic)
        script = HERE / "peers" / "kafka_peers.py"
        words = [str(python), str(script), name, place.broker, topic, place.group, str(place.count)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=200, check=True)
        assert self._committed(place) == place.count
        return place.count / float(done.stdout.split()[0])


def flow_latency(client: str) -> Callable[..., list[float]]:
    """Run a flow while a ticker publishes; gives the delays in seconds."""

    def run(place: Place, ticker: subprocess.Popen[str]) -> list[float]:
        delays: list[float] = []
        flow = eventflows.subscriber(url(place, client), name="bench", dead_letter="halt")(
            lambda reading: delays.append(time.time() - reading["at"])
        )
        with flow.running():
            loops.begin(ticker)
            while len(delays) < place.count:
                time.sleep(0.05)
        return delays

    return run


def main() -> None:
    """Print the tables."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("parts", nargs="*", default=PARTS, help=f"of {', '.join(PARTS)}; all by default")
    asked.add_argument("--messages", type=int, default=400_000)
    asked.add_argument("--turns", type=int, default=3)
    asked.add_argument("--client", choices=CLIENTS, help="only this one; both by default")
    given = asked.parse_args()
    bench = Bench(given.messages, given.turns, [given.client] if given.client else CLIENTS)
    try:
        for part in given.parts:
            getattr(bench, part)()
    finally:
        bench.close()


if __name__ == "__main__":
    main()
