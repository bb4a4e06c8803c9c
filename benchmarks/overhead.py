"""Microseconds per message that the library adds to a bare loop over the same work.

The work: `orjson.loads`, a trivial `apply`, and `orjson.dumps` where results are published; 200-byte JSON, memory
broker, one worker. Bare loop and flows take turns; medians are shown, and each pair's difference is taken in its own
turn, so that a machine whose speed drifts drifts for both.
"""

from __future__ import annotations

import statistics
import time
import uuid

import orjson

import eventflows
from eventflows import Message

COUNT = 100_000
TURNS = 5
BODY = orjson.dumps({"id": 123456, "name": "sensor-17", "text": "x" * 100, "values": [1.25, 2.5, 3.75], "ok": True})


def apply(reading: object) -> object:
    """Do nothing."""
    return reading


def bare(dump: bool) -> float:
    """Time the bare loop; seconds per message."""
    began = time.perf_counter()
    for _ in range(COUNT):
        value = apply(orjson.loads(BODY))
        if dump:
            orjson.dumps(value)
    return (time.perf_counter() - began) / COUNT


def flow(publish: bool) -> float:
    """Time a flow over as many messages; seconds per message."""
    name = uuid.uuid4().hex
    source = eventflows.open_publisher(f"local://{name}")
    for _ in range(COUNT // 1000):
        source.publish([Message(BODY)] * 1000)
    made = eventflows.subscriber(f"local://{name}")(apply)
    if publish:
        made = eventflows.publisher(f"local://{name}-out")(made)
    return made.run(limit=COUNT).seconds / COUNT


def main() -> None:
    """Print the table."""
    print(f"{COUNT:,} messages of {len(BODY)} bytes, {TURNS} turns, medians in microseconds per message")
    for what, publish, goal in (("subscriber", False, 3.0), ("subscriber and publisher", True, 5.0)):
        pairs = [(bare(publish), flow(publish)) for _ in range(TURNS)]
        added = statistics.median(full - plain for plain, full in pairs) * 1e6
        ratio = statistics.median(full / plain for plain, full in pairs)
        plain = statistics.median(plain for plain, _ in pairs) * 1e6
        full = statistics.median(full for _, full in pairs) * 1e6
        print(f"{what:26} bare {plain:5.2f}  flow {full:5.2f}  ratio {ratio:4.1f}  added {added:5.2f} (goal {goal:g})")


if __name__ == "__main__":
    main()
