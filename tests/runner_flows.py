"""Flows that worker processes import: they must be at the top level of a module."""

from __future__ import annotations

import gc
import os
import threading
import uuid
from typing import Any

from eventflows import Delivery, Message, Messages, Reject, RetryPolicy, publisher, subscriber

PLACE = uuid.uuid4().hex
"""Makes the names of this process's memory broker its own."""


class OddError(Exception):
    """An error that cannot be pickled and read again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


def source(name: str) -> str:
    """Name a source."""
    return f"local://{PLACE}-{name}"


def destination(name: str) -> str:
    """Name a destination."""
    return f"local://{PLACE}-{name}-out"


def in_processes(name: str, **settings: Any) -> Any:
    """Make the decorator of a flow in worker processes, from a source to a destination of its name."""

    def decorate(function: Any) -> Any:
        flow = publisher(destination(name), key=settings.pop("key", None))(function)
        return subscriber(source(name), executor="process", **settings)(flow)

    return decorate


@in_processes("doubles", workers=2)
def doubles(input: int) -> int:
    """Give twice the input."""
    return 2 * input


@in_processes("keys", key=lambda result: f"key-{result % 2}")
def keys(input: int) -> int:
    """Give the input."""
    return input


@in_processes("several")
def several(input: int) -> object:
    """Give messages, values or nothing."""
    return {0: None, 1: Messages([1, Message(b"own", key="own", id="own")]), 2: Message(b"alone")}[input]


@in_processes("odd", dead_letter=destination("odd"), retry=RetryPolicy(attempts=1))
def odd(input: int) -> None:
    """Raise what cannot cross."""
    if input:
        raise Reject("rejected there")
    raise OddError("one", "two")


@in_processes("told")
def told(input: bytes, *, delivery: Delivery) -> str:
    """Say what the delivery says."""
    return f"{delivery.position} {delivery.key} {delivery.message.headers['a']} {delivery.native}"


@in_processes("batches", batch=4, batch_wait=0.2)
def batches(input: list[int]) -> list[int]:
    """Say how many came together."""
    return [len(input)] * len(input)


@in_processes("awaits")
async def awaits(input: int) -> int:
    """Await something."""
    import asyncio

    await asyncio.sleep(0)
    return input


@in_processes("hangs", drain_timeout=0.2)
def hangs(input: int) -> None:
    """Never return."""
    (open(os.environ["EVENTFLOWS_TEST_MARK"], "w")).close()
    threading.Event().wait()


@in_processes("sleeps", order="none")
def sleeps(input: float) -> None:
    """Take so many seconds."""
    threading.Event().wait(input)


@in_processes("watched")
def watched(input: int) -> None:
    """Do nothing."""


@in_processes("spared")
def spared(input: int) -> bool:
    """Say whether most of what is loaded is spared the garbage collector."""
    return gc.get_freeze_count() > len(gc.get_objects())


ASSIGNED = in_processes("assigned")(lambda input: input)
