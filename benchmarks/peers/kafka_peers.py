"""FastStream on Kafka with a sync function that acknowledges, over either of its clients, in a process of its own.

Usage: kafka_peers.py aiokafka|confluent BROKER TOPIC GROUP COUNT. Prints the seconds from the first message to the
end of the last one's acknowledgement.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from faststream import AckPolicy

NAME, BROKER, TOPIC, GROUP = sys.argv[1:5]
COUNT = int(sys.argv[5])


async def main() -> None:
    """Run the application until all is done."""
    if NAME == "aiokafka":
        from faststream.kafka import KafkaBroker as Broker
    else:
        from faststream.confluent import KafkaBroker as Broker

    broker = Broker(BROKER, logger=None)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = 0.0
    left = COUNT

    @broker.subscriber(TOPIC, group_id=GROUP, auto_offset_reset="earliest", ack_policy=AckPolicy.ACK)
    def apply(reading: dict[str, Any]) -> None:
        nonlocal began, left
        began = began or time.perf_counter()
        reading["seen"] = True
        left -= 1
        if not left:
            loop.call_soon_threadsafe(done.set)

    async with broker:
        await broker.start()
        await done.wait()
        await asyncio.sleep(0.2)  # the last one's commit
        seconds = time.perf_counter() - began - 0.2
    print(seconds, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
