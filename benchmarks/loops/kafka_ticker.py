"""Publishes 200 messages a second, each with the time in it, once it is told to; in a process of its own.

Usage: kafka_ticker.py BROKER TOPIC COUNT.
"""

from __future__ import annotations

import sys
import time

import orjson
from confluent_kafka import Producer


def main() -> None:
    """Publish."""
    broker, topic, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0})
    producer.list_topics(topic)
    sys.stdin.readline()
    begun = time.perf_counter()
    for number in range(count):
        time.sleep(max(begun + number / 200 - time.perf_counter(), 0.0))
        producer.produce(topic, orjson.dumps({"at": time.time(), "text": "x" * 150}))
        producer.poll(0)
    producer.flush()


if __name__ == "__main__":
    main()
