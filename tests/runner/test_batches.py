"""Batches: what a call gets, when it comes, and what its results mean."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import numpy
import pytest

import eventflows
from eventflows import ConfigError, Delivery, Message, publisher, subscriber
from eventflows.testing import wait_until

PATIENCE = 30.0


@pytest.fixture
def place() -> str:
    """Give a memory broker of its own."""
    return f"local://{uuid.uuid4().hex}"


def outputs(url: str) -> list[Message]:
    """Look at what was published."""
    return [one.message for one in eventflows.open_subscriber(url).peek(1000, timeout=5)]


def test_batch_results_may_be_rows_of_an_array(place: str) -> None:
    """A numpy array is a sequence of its rows; each is the result of one input."""

    @subscriber(place, batch=3, batch_wait=1.0)
    @publisher(f"{place}-out")
    def apply(input: list[list[float]]) -> Any:
        return numpy.array(input) * 2

    eventflows.send(place, [1.0, 2.0], [3.0, 4.0], [5.0, 6.0])
    apply.run(limit=3)
    assert sorted(one.body or b"" for one in outputs(f"{place}-out")) == [b"[10.0,12.0]", b"[2.0,4.0]", b"[6.0,8.0]"]


def test_batch_gets_a_delivery_for_each_input(place: str) -> None:
    """`list[Delivery]`, in the order of the inputs."""
    seen: list[tuple[int, bytes | None]] = []

    @subscriber(place, batch=3, batch_wait=1.0)
    def apply(input: list[int], *, delivery: list[Delivery]) -> None:
        seen.extend((value, one.message.body) for value, one in zip(input, delivery, strict=True))

    eventflows.send(place, 1, 2, 3)
    apply.run(limit=3)
    assert sorted(seen) == [(1, b"1"), (2, b"2"), (3, b"3")]


def test_batch_leaves_out_what_cannot_be_decoded(place: str) -> None:
    """An undecodable body goes to the dead letters alone; the others are called without it."""
    calls: list[list[int]] = []

    @subscriber(place, batch=3, batch_wait=1.0)
    def apply(input: list[int]) -> None:
        calls.append(sorted(input))

    eventflows.send(place, 1, "no number", 3)
    result = apply.run(limit=3)
    assert (result.acked, result.dead_lettered, calls) == (2, 1, [[1, 3]])


def test_batch_of_one_element_that_is_an_exception_fails_alone(place: str) -> None:
    """The other results are taken."""

    @subscriber(place, batch=3, batch_wait=1.0, retry=eventflows.RetryPolicy(attempts=1))
    @publisher(f"{place}-out")
    def apply(input: list[int]) -> list[object]:
        return [ValueError("two") if value == 2 else value for value in input]

    eventflows.send(place, 1, 2, 3)
    result = apply.run(limit=3)
    assert (result.acked, result.dead_lettered) == (2, 1)
    assert sorted(one.body or b"" for one in outputs(f"{place}-out")) == [b"1", b"3"]


def test_batch_is_full_when_enough_waits(place: str) -> None:
    """With much waiting, calls get as many as they may."""
    sizes: list[int] = []

    @subscriber(place, batch=8)
    def apply(input: list[int]) -> None:
        sizes.append(len(input))

    eventflows.send(place, *range(800))
    apply.run(limit=800)
    assert (sum(sizes), max(sizes), sizes.count(8) >= 95) == (800, 8, True)


def test_batch_goes_at_once_when_nothing_more_waits(place: str) -> None:
    """Without `batch_wait` a lone message is a batch of one."""
    sizes: list[int] = []

    @subscriber(place, batch=64)
    def apply(input: list[int]) -> None:
        sizes.append(len(input))

    with apply.running():
        for number in range(3):
            eventflows.send(place, number)
            wait_until(lambda: sum(sizes) > number, PATIENCE, what="the call")  # noqa: B023
    assert sizes == [1, 1, 1]


def test_batch_keeps_the_order_of_a_key_over_calls(place: str) -> None:
    """Messages of one key are in order within a batch, and from one batch to the next."""
    seen: list[int] = []
    lock = threading.Lock()

    @subscriber(place, batch=5, workers=4)
    def apply(input: list[int]) -> None:
        with lock:
            seen.extend(input)

    eventflows.send(place, *range(200), key="one")
    apply.run(limit=200)
    assert seen == list(range(200))


def test_batch_may_be_awaited(place: str) -> None:
    """An `async def apply` takes batches, too."""
    seen: list[int] = []

    @subscriber(place, batch=3, batch_wait=1.0)
    async def apply(input: list[int]) -> None:
        seen.extend(input)

    eventflows.send(place, 1, 2, 3)
    apply.run(limit=3)
    assert sorted(seen) == [1, 2, 3]


def test_batch_input_that_is_annotated_otherwise_is_refused(place: str) -> None:
    """With `batch=` the annotation is `list[T]`."""

    @subscriber(place, batch=3)
    def apply(input: int) -> None: ...

    with pytest.raises(ConfigError, match=r"list\["):
        apply.run(until_idle=0.01)
