"""A queue with sessions sits the adapter suite, and does what the simulation says."""

from __future__ import annotations

import signal
import threading

import pytest

from eventflows import Message, Secret
from eventflows.errors import ConnectionFailedError, LeaseLostError, ThrottledError
from eventflows.testing import AdapterConformance, ScenarioConformance
from eventflows.testing.conditions import wait_until
from eventflows.testing.flows import Calls
from servicebus_harness import SessionHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


HOLDING = """
import os, signal
from eventflows import open_subscriber
subscriber = open_subscriber(URL, **OPTIONS)
subscriber.open()
while not subscriber.receive(1, max_bytes=1 << 20, timeout=5):
    pass
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.trial
class TestServiceBusSessions(AdapterConformance):
    """A queue with sessions: five cases say what they mean where the lease is a session's.

    A session that was lost is another claim and another lane, as a partition is. That it is lost the client tells
    after it has closed its receiver, which takes up to a second.
    """

    harness = SessionHarness

    def test_c16_a_failed_receive_is_reported_at_once(self) -> None:
        """A search of a session that fails is raised by `receive`, not repeated in silence."""
        subscriber = self.opened()
        self.fault("fail")("open", ConnectionFailedError("an injected failure"))
        with pytest.raises(ConnectionFailedError) as caught:
            subscriber.receive(1, max_bytes=1000, timeout=self.broker.patience)
        assert caught.value.retryable

    def test_c35_a_lost_lane_says_so(self) -> None:
        """A session whose lock ended is marked as lost, and stays so."""
        self.publish(Message(b"0", key="one"))
        subscriber = self.opened()
        [taken] = self.take(subscriber, 1)
        self.lose(subscriber)
        lane = taken.chunk.lane
        assert lane is not None
        wait_until(lambda: lane.lost, 5.0, what="the loss")

    def test_c36_what_a_killed_owner_held_has_cost_an_attempt(self) -> None:
        """Nobody has closed its session: when the lock has ended the service has counted a delivery."""
        self.publish(Message(b"0", key="one"))
        url, options = self.broker.source(self.topic)
        said = {name: value for name, value in options.items() if not isinstance(value, Secret)}
        assert self.elsewhere(HOLDING, url, said).returncode == -signal.SIGKILL
        [taken] = self.take(self.opened(), 1)
        assert taken.delivery.attempt == 2

    def test_c42_a_message_received_again_while_it_is_worked_on_runs_once(self) -> None:
        """A message whose session was lost runs again, in the new claim, and is settled by it."""
        go = threading.Event()
        calls = Calls(lambda _: go.wait(self.broker.patience / 2))
        self.publish(b"one")
        with self.running(self.flow(calls, workers=4)):
            wait_until(lambda: calls.running == 1, self.broker.patience, what="the first call")
            self.fault("expire_leases")()
            wait_until(lambda: calls.running == 2, self.broker.patience, what="the second call")
            go.set()
            wait_until(lambda: calls.running == 0, self.broker.patience, what="the end of the calls")
        assert self.left() == []

    def test_c42_the_newest_handle_settles(self) -> None:
        """A message whose session was lost is settled by its new delivery, and not by the old one."""
        self.publish(b"one")
        subscriber = self.opened()
        old = self.take(subscriber, 1)
        self.fault("expire_leases")()
        new = self.take(subscriber, 1)
        assert [type(one.error) for one in self.ack(subscriber, old)] == [LeaseLostError]
        self.acked(subscriber, new)
        self.nothing(subscriber)

    def test_c45_a_settlement_that_fails_for_a_while_is_repeated(self) -> None:
        """When the service is busy a settlement is tried again; one on a broken connection has lost its session."""
        self.fault("refuse_settlement")(lambda _: True, ThrottledError("an injected failure"), times=2)
        calls = Calls()
        self.publish(*[Message(b"%d" % n) for n in range(5)])
        self.run(self.flow(calls), limit=5)
        assert (sorted(calls.bodies), self.left()) == ([b"0", b"1", b"2", b"3", b"4"], [])


@pytest.mark.trial
class TestScenariosOnServiceBusSessions(ScenarioConformance):
    """What happens on a queue with sessions is what the simulation says."""

    harness = SessionHarness
    played = "servicebus"
