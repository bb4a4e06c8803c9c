"""What a flow does while its source fails, and somebody wants it to stop."""

from __future__ import annotations

import itertools
import threading
import time
import uuid

import pytest

from eventflows import DrainTimeoutError, Message, Observer, open_publisher, subscriber
from eventflows.adapters.local import local_broker
from eventflows.errors import BrokerError, ConnectionFailedError, ThrottledError
from eventflows.testing import wait_until

UP_TO = 20.0
FOREVER = 10_000


class Waits(Observer):
    """Notes when the source failed, and how long the flow says that it waits."""

    def __init__(self) -> None:
        self.said: list[tuple[float, float]] = []

    def reconnecting(self, *, flow: str, place: str, error: BaseException, delay: float) -> None:
        """Note it."""
        self.said.append((time.monotonic(), delay))


@pytest.mark.parametrize("kind", [ConnectionFailedError, ThrottledError])
def test_flow_ends_at_once_when_it_is_stopped_while_it_waits_for_its_source(kind: type[BrokerError]) -> None:
    """Nobody waits for the end of a pause that may be long."""
    place, waits = f"local://{uuid.uuid4().hex}", Waits()
    flow = subscriber(place, observers=[waits])(lambda input: None)
    with flow.running():
        local_broker(place).faults.fail("receive", kind("injected", retry_after=60))
        wait_until(lambda: waits.said, UP_TO, what="the pause")
        began = time.monotonic()
    assert (time.monotonic() - began < UP_TO / 4, [delay for _, delay in waits.said]) == (True, [60.0])


def test_flow_waits_as_long_as_it_says_when_its_source_is_gone_while_it_drains() -> None:
    """It goes on trying to say its last words, and says so every second or two, not as fast as it can."""
    place, waits = f"local://{uuid.uuid4().hex}", Waits()
    with open_publisher(place) as source:
        source.publish([Message(b"1")])
    begun, go = threading.Event(), threading.Event()

    @subscriber(place, observers=[waits], drain_timeout=4.0)
    def apply(input: bytes) -> None:
        begun.set()
        go.wait(UP_TO)

    def until_its_source_is_gone() -> None:
        with apply.running():
            assert begun.wait(UP_TO)
            local_broker(place).faults.fail("settle", ThrottledError("injected"), times=FOREVER)
            apply.stop()
            go.set()

    with pytest.raises(DrainTimeoutError):
        until_its_source_is_gone()
    early = [then + delay - now for (then, delay), (now, _) in itertools.pairwise(waits.said)]
    assert (max(early) < 0.1, max(delay for _, delay in waits.said) <= 2.0) == (True, True)
