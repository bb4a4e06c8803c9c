"""What the runner is asked to do, as plain values."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from eventflows.codec import Decoder
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy
from eventflows.protocols import Publisher, Subscriber
from eventflows.runner.clock import Clock
from eventflows.runner.reference import Reference

HOLD_SECONDS: Final = 0.25
"""How much work, in time, is held for each worker when the flow gives no cap; more would starve other processes."""
MOST_HELD: Final = 2000
FIRST_HELD: Final = 100


@attrs.frozen(kw_only=True)
class Plan:
    """One flow, ready to run."""

    name: str
    source: str
    """The source's URL, as shown in logs."""
    subscriber: Callable[[], Subscriber]
    prepare: Callable[[], Callable[..., Any]]
    """Loads the state, once per process, and gives the function to call with an input."""
    decoder: Decoder
    is_async: bool = False
    """Whether a call of what `prepare` gives must be awaited."""
    wants_delivery: str | None = None
    """The keyword under which `apply` receives its delivery; None: it does not."""
    destination: str | None = None
    publisher: Callable[[], Publisher] | None = None
    key: str | Callable[[Any], str | None] | None = None
    headers: Mapping[str, str] | None = None
    publish_timeout: float = 30.0
    dead_letter: str | None = None
    """A URL as shown in logs, "halt", "drop", or None: the broker's own place, else halt."""
    dead_letter_publisher: Callable[[], Publisher] | None = None
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    order: Literal["key", "lane", "none"] | None = None
    guarantee: Literal["at-least-once", "at-most-once", "exactly-once"] = "at-least-once"
    workers: int = 1
    executor: Literal["thread", "process"] = "thread"
    reference: Reference | None = None
    """Where worker processes find the flow; None: there are none."""
    timeout: float | None = None
    """Seconds that one call of `apply` may take."""
    batch: int | None = None
    """Most inputs of one call; None: `apply` takes one, not a list."""
    batch_wait: float = 0.0
    """Seconds that a batch waits to become full, from its first message on."""
    max_in_flight: int | None = None
    max_in_flight_bytes: int | None = None
    drain_timeout: float = 30.0
    grace: float = 30.0
    """Seconds for which a destination may refuse everything before the flow halts."""
    observers: Sequence[Observer] = ()
    clock: Clock = attrs.field(factory=Clock)
    luck: Callable[[], float] = random.random
    """Where in the range of the jitter a retry falls, 0 to 1."""

    def cap(self, average: float | None) -> int:
        """Give how many messages may be held; `average` is how long a call took lately, in seconds, None before."""
        if self.max_in_flight is not None:
            return self.max_in_flight
        twice = 2 * self.workers * (self.batch or 1)
        if self.guarantee == "at-most-once":
            return twice  # what is held is lost when the process is
        ideal = FIRST_HELD if average is None else self.workers * HOLD_SECONDS / max(average, 1e-6)
        return max(int(min(max(ideal, 2 * self.workers), MOST_HELD)), twice)
