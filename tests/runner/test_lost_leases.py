"""What is said of leases that are lost."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence

import pytest

from eventflows import Delivery, Message, Observer, open_publisher, subscriber
from eventflows.adapters.local import local_broker
from eventflows.errors import LeaseLostError
from eventflows.testing import wait_until

UP_TO = 20.0


class Lost(Observer):
    """Notes what was lost, each time."""

    def __init__(self) -> None:
        self.times: list[list[str]] = []

    def lease_lost(self, *, flow: str, deliveries: Sequence[Delivery]) -> None:
        """Note it."""
        self.times.append([str(one.message.body) for one in deliveries])


@pytest.mark.parametrize(("count", "said"), [(1, "the lease of local://"), (5, "the leases of 5 messages of local://")])
def test_lost_leases_are_one_line_when_one_renewal_finds_them(
    caplog: pytest.LogCaptureFixture, count: int, said: str
) -> None:
    """However many there are, they are told of together, each of them once."""
    place = f"local://{uuid.uuid4().hex}"
    with open_publisher(place) as source:
        source.publish([Message(b"%d" % number) for number in range(count)])
    go, lost = threading.Event(), Lost()
    taken: list[bytes] = []

    @subscriber(place, lease=1, observers=[lost])
    def apply(input: bytes) -> None:
        taken.append(input)
        go.wait(UP_TO)

    with caplog.at_level(logging.WARNING), apply.running():
        wait_until(lambda: taken, UP_TO, what="the first at work")
        local_broker(place).faults.refuse_extension(LeaseLostError("injected"), times=count)
        wait_until(lambda: lost.times, UP_TO, what="a renewal that failed")
        go.set()
    lines = [one.getMessage() for one in caplog.records if "lost" in one.getMessage()]
    assert (len(lines), said in lines[0]) == (1, True)
    assert [sorted(one) for one in lost.times] == [sorted(str(b"%d" % number) for number in range(count))]


class Order(Observer):
    """Notes what was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def received(self, *, flow: str, chunk: object) -> None:
        """Note it."""
        self.told.append("received")

    def lease_lost(self, *, flow: str, deliveries: Sequence[Delivery]) -> None:
        """Note it."""
        self.told.append("lost")


def test_a_lost_lease_is_told_of_before_the_next_receive_when_it_made_room() -> None:
    """A receive may block for as long as another member holds the message, so nothing waits for its end."""
    place = f"local://{uuid.uuid4().hex}"
    with open_publisher(place) as source:
        source.publish([Message(b"one"), Message(b"two")])
    go, order = threading.Event(), Order()

    @subscriber(place, lease=1, max_in_flight=1, observers=[order])
    def apply(_: bytes) -> None:
        go.wait(UP_TO)

    with apply.running():
        wait_until(lambda: order.told, UP_TO, what="the first at work")
        local_broker(place).faults.refuse_extension(LeaseLostError("injected"), times=1)
        wait_until(lambda: len(order.told) >= 3, UP_TO, what="the next one")
        go.set()
    assert order.told[:3] == ["received", "lost", "received"]
