"""What one transaction costs on a real Kafka: some outputs and the position that they were made from, committed as one.

Each transaction is begun when the one before has been answered, as a flow with `guarantee="exactly-once"` does. Broker
and row share the machine's processors.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
import uuid
from typing import Final

sys.path.pop(0)  # in this script's own folder, `kafka` is another script
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

from eventflows import Message
from eventflows.adapters.kafka import KafkaPublisher, KafkaSubscriber
from eventflows.locate import open_publisher, open_subscriber
from eventflows.policy import Settlement, Verdict
from kafka import KafkaAdminClient
from servers.kafka import KafkaServer

BODY: Final = b"x" * 200
WARM: Final = 100


def run(server: KafkaServer, client: str, outputs: int, count: int) -> list[float]:
    """Run transactions of so many inputs and outputs; gives the milliseconds of each."""
    source, destination = (f"transactions-{uuid.uuid4().hex[:8]}" for _ in range(2))
    admin = KafkaAdminClient(bootstrap_servers=server.address())
    admin.create_topics({name: {"num_partitions": 4, "replication_factor": 1} for name in (source, destination)})
    admin.close()
    url = f"kafka://{server.address()}/{{}}"
    options = {} if client == "kafka-python" else {"client": client}
    times = []
    with (
        open_publisher(url.format(source)) as fill,
        open_publisher(url.format(destination), **options) as publisher,
        open_subscriber(url.format(source), group="g", **options) as subscriber,
    ):
        assert isinstance(publisher, KafkaPublisher)
        assert isinstance(subscriber, KafkaSubscriber)
        fill.publish([Message(BODY) for _ in range(outputs * (count + WARM) * 4)])
        subscriber.share_transactions([publisher])
        while len(times) < count + WARM:
            for chunk in subscriber.receive(outputs, max_bytes=10**9, timeout=1.0):
                began = time.perf_counter()
                done = Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, len(chunk)))])
                position = subscriber.claim_position([done])
                results = publisher.transact([(publisher, [Message(BODY) for _ in range(len(chunk))])], position)
                times.append((time.perf_counter() - began) * 1000)
                assert not any(one.error for one in results)
    return times[WARM : count + WARM]


def main() -> None:
    """Print a row for each client and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", action="append", choices=("kafka-python", "librdkafka"))
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    server = KafkaServer()
    server.start()
    try:
        print(f"{'client':<14}{'outputs':>8}{'median ms':>12}{'95 % ms':>10}")
        for client in given.client or ("kafka-python", "librdkafka"):
            for outputs in (1, 10, 100):
                times = run(server, client, outputs, given.count)
                slow = statistics.quantiles(times, n=20)[-1]
                print(f"{client:<14}{outputs:>8}{statistics.median(times):>12.1f}{slow:>10.1f}", flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
