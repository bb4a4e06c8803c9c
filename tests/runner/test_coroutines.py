"""Coroutine functions: at once, bounded, ended in time."""

from __future__ import annotations

import asyncio
import threading
import uuid

import pytest

import eventflows
from eventflows import ConfigError, DrainTimeoutError, RetryPolicy, subscriber
from eventflows.testing import wait_until

PATIENCE = 30.0


@pytest.fixture
def place() -> str:
    """Give a memory broker of its own."""
    return f"local://{uuid.uuid4().hex}"


def test_coroutines_overlap_up_to_their_bound(place: str) -> None:
    """`workers=` is how many are awaited at once, and no more."""
    running = 0
    most = 0
    barrier: list[asyncio.Barrier] = []

    @subscriber(place, workers=8)
    async def apply(input: int) -> None:
        nonlocal running, most
        if not barrier:
            barrier.append(asyncio.Barrier(8))
        running += 1
        most = max(most, running)
        await barrier[0].wait()
        running -= 1

    eventflows.send(place, *range(80))
    result = apply.run(limit=80)
    assert (result.acked, most) == (80, 8)


def test_coroutine_that_takes_too_long_is_cancelled_and_fails(place: str) -> None:
    """With `timeout=` the call is cancelled, and the message is tried again as after any failure."""
    cancelled: list[int] = []

    @subscriber(place, timeout=0.05, retry=RetryPolicy(attempts=2, delay=0.01))
    async def apply(input: int) -> None:
        if input == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(input)
                raise

    eventflows.send(place, 0, 1, 2)
    result = apply.run(limit=3)
    dead = eventflows.open_subscriber(f"{place}?dead-letter").peek(9, timeout=1)
    assert (result.acked, result.dead_lettered, cancelled, len(dead)) == (2, 1, [1, 1], 1)


def test_coroutine_with_a_timeout_of_its_own_fails_as_itself(place: str) -> None:
    """A TimeoutError that `apply` raises is its own, not ours."""

    @subscriber(place, timeout=60, retry=RetryPolicy(attempts=1), dead_letter=f"{place}-dead")
    async def apply(input: int) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    eventflows.send(place, 1)
    apply.run(limit=1)
    [dead] = eventflows.open_subscriber(f"{place}-dead").peek(9, timeout=1)
    assert dead.message.headers["ef-error-type"] == "TimeoutError"


def test_coroutine_that_cancels_itself_does_not_end_the_flow(place: str) -> None:
    """A CancelledError from inside `apply` is a failure like any other."""

    @subscriber(place, retry=RetryPolicy(attempts=1))
    async def apply(input: int) -> None:
        if input == 1:
            raise asyncio.CancelledError

    eventflows.send(place, 0, 1, 2)
    result = apply.run(limit=3)
    assert (result.acked, result.dead_lettered) == (2, 1)


def test_coroutine_that_hangs_is_cancelled_with_the_drain(place: str) -> None:
    """After the drain time nothing goes on in the background."""
    begun, ended = threading.Event(), threading.Event()

    @subscriber(place, drain_timeout=0.1)
    async def apply(input: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    eventflows.send(place, 1)
    stopper = threading.Thread(target=lambda: (begun.wait(PATIENCE), apply.stop()))
    stopper.start()
    with pytest.raises(DrainTimeoutError):
        apply.run()
    stopper.join()
    wait_until(ended.is_set, PATIENCE, what="the cancellation")


def test_timeout_of_a_plain_function_on_a_thread_is_refused(place: str) -> None:
    """Nothing could end the call, so the option is not taken."""
    with pytest.raises(ConfigError, match='executor="process"'):
        subscriber(place, timeout=1.0)(lambda input: None)
