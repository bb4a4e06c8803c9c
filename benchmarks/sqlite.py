"""Messages per second through a file: receive, `apply`, acknowledge, with few and with many waiting."""

from __future__ import annotations

import statistics
import tempfile
import time

import orjson

import eventflows
from eventflows import Message

COUNT = 20_000
TURNS = 3
BODY = orjson.dumps({"id": 123456, "name": "sensor-17", "text": "x" * 100, "values": [1.25, 2.5, 3.75], "ok": True})


def bare() -> float:
    """Time the bare loop over the same bodies; messages per second."""
    began = time.perf_counter()
    for _ in range(COUNT):
        orjson.loads(BODY)
    return COUNT / (time.perf_counter() - began)


def rate(waiting: int, folder: str) -> float:
    """Fill a file so that so many wait throughout, and time a flow; messages per second."""
    url = f"local://bench?file={folder}/waiting-{waiting}.db"
    with eventflows.open_publisher(url) as publisher:
        for _ in range((waiting + COUNT * TURNS) // 1000):
            publisher.publish([Message(BODY)] * 1000)
    flow = eventflows.subscriber(url)(lambda reading: None)
    return statistics.median(COUNT / flow.run(limit=COUNT).seconds for _ in range(TURNS))


def main() -> None:
    """Print the table."""
    plain = bare()
    print(f"bare loop without a broker: {plain:,.0f} messages/s")
    for waiting in (1_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            found = rate(waiting, folder)
        print(f"{waiting:9,} waiting: {found:9,.0f} messages/s (goal 20,000), {found / plain:.3f} of the bare loop")


if __name__ == "__main__":
    main()
