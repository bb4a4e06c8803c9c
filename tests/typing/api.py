"""The public API, as type checkers see it; never run."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import assert_type

import eventflows
from eventflows import (
    Delivery,
    Flow,
    Message,
    Messages,
    Observer,
    RetryPolicy,
    RunResult,
    Secret,
    publisher,
    subscriber,
)


@subscriber("local://a")
def consumes(order: dict[str, int]) -> float:
    """A subscriber keeps its parameters and its result."""
    return order["price"] / 2


keeps: Flow[[dict[str, int]], float] = consumes
assert_type(consumes({"price": 1}), float)
assert_type(consumes.run(limit=1, until_idle=0.5, signals=False), RunResult)


@publisher("local://b", key=lambda result: str(result), headers={"a": "b"}, timeout=5.0)
def produces(number: int) -> str:
    """A publisher, too."""
    return str(number)


assert_type(produces(1), str)


@subscriber("local://a", load=lambda: 3, retry=RetryPolicy(attempts=2), order="key", workers=2, observers=[Observer()])
@publisher("local://b")
def both(order: bytes, state: int, *, delivery: Delivery | None = None) -> Message | None:
    """Stacked: a caller passes the state."""
    return Message(order, key=str(state))


assert_type(both(b"x", 3), Message | None)


@publisher("local://b")
@subscriber("local://a")
def other_way_round(order: str) -> Messages:
    """In the other order."""
    return Messages([order, order])


assert_type(other_way_round("x"), Messages)


@publisher("local://b")
async def later(number: int) -> int:
    """A coroutine function's call is awaited."""
    return number


awaited: Awaitable[int] = later(1)

assert_type(eventflows.run(consumes, both), list[RunResult])
assert_type(eventflows.send("local://a", 1, 2, key="k"), list[str | None])
secret: Secret = Secret.env("NAME")
revealed: str = secret.reveal()

with consumes.running() as running:
    running.stop()
for row in consumes.preview(3):
    seconds: float = row.seconds
description: str = str(consumes.describe())

consumes("not a dict")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
subscriber("local://a", order="sideways")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
