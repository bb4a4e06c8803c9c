"""SQS on ElasticMQ: this library against a tuned hand-written boto3 loop, in one run.

Every row does the same work: receive, `orjson.loads`, a small change, delete; or send, in batches, what `orjson.dumps`
gave. Rows take turns and medians are shown: only ratios mean anything. The number of calls is counted in a pass of its
own, through a gate that slows everything down. The consumers that one would pick instead run in an environment of
their own, `.venv/peers`, each in its best setting for throughput.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import orjson

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}

import boto3
from botocore.config import Config

import eventflows
from eventflows import Message
from servers.elasticmq import ACCOUNT, REGION, elasticmq
from servers.gate import Gate

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNT = int(os.environ.get("COUNT", "6000"))
TURNS = int(os.environ.get("TURNS", "3"))
TRICKLE = 60
RECEIVERS = (1, 4)
PEERS = {"repid": "repid[sqs]==2.1.4", "taskiq": "taskiq-aio-sqs==2.1.1", "celery": "celery[sqs]==5.7.0"}
PEER_COUNT = 2000
BODY = orjson.dumps({"id": 123456, "name": "sensor-17", "text": "x" * 100, "values": [1.25, 2.5, 3.75], "ok": True})

Row = Callable[[str], None]
"""Works through a queue, at an endpoint."""


def apply(reading: dict[str, Any]) -> None:
    """Change it a little."""
    reading["seen"] = True


def client(endpoint: str) -> Any:  # noqa: ANN401 - boto3 has no types
    """Make a client as the library does."""
    config = Config(retries={"mode": "standard", "total_max_attempts": 1}, max_pool_connections=16)
    return boto3.Session(region_name=REGION).client("sqs", endpoint_url=endpoint, config=config)


def handwritten(receivers: int, count: int = COUNT) -> Row:
    """Receive ten, work, delete ten; in each thread."""

    def run(url: str) -> None:
        sqs = client(url.partition(f"/{ACCOUNT}")[0])
        left, lock = [count], threading.Lock()

        def loop() -> None:
            while left[0] > 0:
                answer = sqs.receive_message(
                    QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=60,
                    MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"],
                )  # fmt: skip
                messages = answer.get("Messages", ())
                for message in messages:
                    apply(orjson.loads(message["Body"]))
                if messages:
                    entries = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
                    deleted = sqs.delete_message_batch(QueueUrl=url, Entries=entries)
                    assert not deleted.get("Failed")
                    with lock:
                        left[0] -= len(messages)

        threads = [threading.Thread(target=loop) for _ in range(receivers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def flow(receivers: int, count: int = COUNT) -> Row:
    """The library, at least once, with everything on."""

    def run(url: str) -> None:
        result = eventflows.subscriber(url, receivers=receivers, dead_letter="halt")(apply).run(
            limit=count, signals=False
        )
        assert result.acked == count

    return run


def send_by_hand(url: str) -> None:
    """Send in tens, one call after another."""
    sqs = client(url.partition(f"/{ACCOUNT}")[0])
    value = orjson.loads(BODY)
    for start in range(0, COUNT, 10):
        entries = [{"Id": str(n), "MessageBody": orjson.dumps(value).decode()} for n in range(min(10, COUNT - start))]
        assert not sqs.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")


def send_by_library(url: str) -> None:
    """Publish a thousand at a time."""
    value = orjson.loads(BODY)
    with eventflows.open_publisher(url) as publisher:
        for start in range(0, COUNT, 1000):
            batch = [Message(orjson.dumps(value)) for _ in range(min(1000, COUNT - start))]
            assert not [one for one in publisher.publish(batch) if one.error is not None]


def fill(url: str) -> None:
    """Put the messages of one row into its queue."""
    with eventflows.open_publisher(url) as publisher:
        assert not [one for one in publisher.publish([Message(BODY)] * COUNT, timeout=120) if one.error]


def measure(row: Row, *, full: bool, endpoint: str) -> tuple[float, float]:
    """Run a row once on a queue of its own; gives its rate, and milliseconds of CPU per 1,000 messages."""
    direct = elasticmq().client()
    name = f"bench-{uuid.uuid4().hex[:8]}"
    direct.create_queue(QueueName=name)
    if full:
        fill(f"{elasticmq().endpoint}/{ACCOUNT}/{name}")
    began, burnt = time.perf_counter(), time.process_time()
    row(f"{endpoint}/{ACCOUNT}/{name}")
    seconds, burnt = time.perf_counter() - began, time.process_time() - burnt
    direct.delete_queue(QueueUrl=f"{elasticmq().endpoint}/{ACCOUNT}/{name}")
    direct.close()
    return COUNT / seconds, burnt * 1e6 / COUNT


def calls(row: Row, *, full: bool) -> float:
    """Count the calls per 1,000 messages."""
    gate = Gate(elasticmq().port)
    measure(row, full=full, endpoint=gate.endpoint)
    gate.close()
    counted = ("ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch", "SendMessageBatch")
    return sum(gate.calls.count(action) for action in counted) * 1000 / COUNT


def table(title: str, rows: dict[str, Row], *, full: bool) -> float:
    """Measure rows in turns and print them; ratios are to the hand-written row with as many receivers.

    Gives the best rate of the library.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _, (name, row) in itertools.product(range(TURNS), rows.items()):
        found[name].append(measure(row, full=full, endpoint=elasticmq().endpoint))
    print(f"\n{title}: {COUNT:,} messages of {len(BODY)} bytes, medians of {TURNS} turns")
    print(f"{'':34} {'per second':>10} {'ratio':>6} {'CPU ms/1,000':>13} {'calls/1,000':>12}")
    base = best = 0.0
    for name, row in rows.items():
        rate = statistics.median(rate for rate, _ in found[name])
        cpu = statistics.median(cpu for _, cpu in found[name])
        base, best = (rate, best) if "hand" in name else (base, max(best, rate))
        print(f"{name:34} {rate:10,.0f} {rate / base:6.2f} {cpu:13.0f} {calls(row, full=full):12.0f}")
    return best


def idle() -> None:
    """Say what an idle subscriber costs."""
    direct = elasticmq().client()
    direct.create_queue(QueueName="bench-idle")
    gate = Gate(elasticmq().port)
    made = eventflows.subscriber(f"{gate.endpoint}/{ACCOUNT}/bench-idle", dead_letter="halt")(apply)
    with made.running():
        threading.Event().wait(8)
        before, burnt = len(gate.calls), time.process_time()
        threading.Event().wait(10)
        share, count = (time.process_time() - burnt) / 10, len(gate.calls) - before
    print(f"\nidle: {share:.2%} of a processor (the gate's own share included), {count} calls in 10 s")
    gate.close()


def trickle(name: str, row: Row) -> None:
    """Say how long one message at a time takes from its sending to its deletion; nothing else comes meanwhile."""
    direct = elasticmq().client()
    queue = f"bench-{uuid.uuid4().hex[:8]}"
    direct.create_queue(QueueName=queue)
    gate = Gate(elasticmq().port)
    deleted = threading.Semaphore(0)

    def note(action: str, content: bytes) -> bytes:
        if action == "DeleteMessageBatch":
            deleted.release(len(orjson.loads(content)["Successful"]))
        return content

    gate.on_answer.append(note)
    worker = threading.Thread(target=row, args=(f"{gate.endpoint}/{ACCOUNT}/{queue}",), daemon=True)
    worker.start()
    took = []
    for _ in range(TRICKLE):
        threading.Event().wait(0.05)
        began = time.perf_counter()
        direct.send_message(QueueUrl=f"{elasticmq().endpoint}/{ACCOUNT}/{queue}", MessageBody=BODY.decode())
        deleted.acquire()
        took.append(time.perf_counter() - began)
    worker.join()
    direct.close()
    gate.close()
    print(f"{name:34} {statistics.median(took) * 1000:10.1f} ms {max(took) * 1000:10.1f} ms")


def peers(best: float) -> None:
    """Print what the consumers do that one would pick instead, in an environment of their own."""
    home = ROOT / ".venv" / "peers"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    made = subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS.values()], check=False)
    if made.returncode:
        print("\npeers: left out, because they could not be installed")
        return
    print(f"\npeers: receive, work, delete; {PEER_COUNT:,} messages, the better of 2 turns; eventflows {best:,.0f}/s")
    for name, package in PEERS.items():
        try:
            seconds = min(peer(python, name) for _ in range(2))
        except subprocess.CalledProcessError as error:
            print(f"{package:34} failed: {error.stderr.strip().rpartition(chr(10))[2]}")
            continue
        rate = PEER_COUNT / seconds
        print(f"{package:34} {rate:10,.0f} {rate / best:6.2f}  eventflows is {best / rate:.1f} times as fast")


def peer(python: pathlib.Path, name: str) -> float:
    """Run a peer once on a queue of its own; gives its seconds."""
    direct = elasticmq().client()
    queue = f"peer-{name}-{uuid.uuid4().hex[:8]}"
    direct.create_queue(QueueName=queue)
    script = ROOT / "benchmarks" / "peers" / "sqs_peers.py"
    words = [str(python), str(script), name, elasticmq().endpoint, REGION, queue, str(PEER_COUNT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    direct.close()
    return float(done.stdout.split()[0])


def main() -> None:
    """Print the tables."""
    receiving: dict[str, Row] = {}
    for number in RECEIVERS:
        receiving |= {f"hand-written, {number} receiving": handwritten(number)}
        receiving |= {f"eventflows, receivers={number}": flow(number)}
    best = table("receive, apply, delete", receiving, full=True)
    table("send", {"hand-written send_message_batch": send_by_hand, "eventflows": send_by_library}, full=False)
    print(f"\na trickle, {TRICKLE} messages one by one: sent to deleted, median and longest")
    trickle("hand-written, 1 receiving", handwritten(1, TRICKLE))
    trickle("eventflows, receivers=4", flow(4, TRICKLE))
    idle()
    peers(best)


if __name__ == "__main__":
    main()
