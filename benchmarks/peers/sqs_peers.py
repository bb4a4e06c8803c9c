"""SQS consumers that one would pick instead, each in its best setting for throughput, in a process of its own.

Usage: sqs_peers.py NAME ENDPOINT REGION QUEUE COUNT. The messages go in by the peer's own API; then the time is taken
from the start of its worker until the last of them was handled, and seconds and processor seconds are printed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}

NAME, ENDPOINT, REGION, QUEUE = sys.argv[1:5]
COUNT = int(sys.argv[5])
READING: dict[str, Any] = {
    "id": 123456, "name": "sensor-17", "text": "x" * 100, "values": [1.25, 2.5, 3.75], "ok": True,
}  # fmt: skip
AT_ONCE = 50


class Meter:
    """Counts what was handled, and says at the end how long it took."""

    def __init__(self) -> None:
        self._left = COUNT
        self._began = self._burnt = 0.0
        self.done = threading.Event()

    def begin(self) -> None:
        """Take the time from here."""
        self._began, self._burnt = time.perf_counter(), time.process_time()

    def one(self, reading: dict[str, Any]) -> None:
        """Do the work of one message."""
        reading["seen"] = True
        self._left -= 1
        if self._left == 0:
            print(time.perf_counter() - self._began, time.process_time() - self._burnt, flush=True)
            self.done.set()


METER = Meter()


async def sent(send: Any) -> None:  # noqa: ANN401 - a peer's own
    """Send all, some at a time."""
    for start in range(0, COUNT, AT_ONCE):
        await asyncio.gather(*[send() for _ in range(min(AT_ONCE, COUNT - start))])


async def repid() -> None:
    """Repid, an `async` actor."""
    from repid import Repid, Router
    from repid.connections.sqs.message_broker import SqsServer

    app, router = Repid(), Router()
    server = SqsServer(ENDPOINT, REGION, dlq_queue_strategy=None, receive_wait_time_seconds=1, visibility_timeout=60)
    app.servers.register_server("sqs", server, is_default=True)

    @router.actor(channel=QUEUE)
    async def apply(id: int, name: str, text: str, values: list[float], ok: bool) -> None:
        METER.one({"id": id, "name": name, "text": text, "values": values, "ok": ok})

    app.include_router(router)
    async with server.connection():
        await sent(lambda: app.send_message_json(channel=QUEUE, payload=READING, headers={"topic": "apply"}))
        METER.begin()
        await app.run_worker(messages_limit=COUNT)


async def taskiq() -> None:
    """taskiq-aio-sqs, an `async` task."""
    from taskiq.api import run_receiver_task
    from taskiq_aio_sqs import SQSBroker

    broker = SQSBroker(
        QUEUE, endpoint_url=ENDPOINT, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x",  # noqa: S106 - the stand-in's
        max_number_of_messages=10, wait_time_seconds=1, visibility_timeout=60,
    )  # fmt: skip

    @broker.task
    async def apply(reading: dict[str, Any]) -> None:
        METER.one(reading)

    await broker.startup()
    await sent(lambda: apply.kiq(READING))
    METER.begin()
    running = asyncio.create_task(run_receiver_task(broker, max_prefetch=20))
    await asyncio.to_thread(METER.done.wait)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await broker.shutdown()


def celery() -> None:
    """Celery, one process, acknowledging late: at least once, as the others."""
    from celery import Celery

    address = ENDPOINT.partition("://")[2]
    app = Celery("peer", broker=f"sqs://x:x@{address}//")
    queue = {"url": f"{ENDPOINT}/000000000000/{QUEUE}", "access_key_id": "x", "secret_access_key": "x"}
    app.conf.update(
        broker_transport_options={
            "region": REGION, "is_secure": False, "predefined_queues": {QUEUE: queue}, "wait_time_seconds": 1,
            "polling_interval": 0.01, "visibility_timeout": 60,
        },
        task_default_queue=QUEUE, task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=10,
        worker_enable_remote_control=False, worker_hijack_root_logger=False, worker_redirect_stdouts=False,
    )  # fmt: skip

    @app.task(name="apply")
    def apply(reading: dict[str, Any]) -> None:
        METER.one(reading)

    for _ in range(COUNT):
        apply.delay(READING)
    METER.begin()
    threading.Thread(target=lambda: (METER.done.wait(), os._exit(0)), daemon=True).start()
    app.Worker(pool="solo", loglevel="ERROR", quiet=True).start()


if __name__ == "__main__":
    if NAME == "celery":
        celery()
    else:
        asyncio.run({"repid": repid, "taskiq": taskiq}[NAME]())
