"""Service Bus sits the adapter suite and the runner suite, on the stand-in."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance, RunnerConformance
from servicebus_harness import ServiceBusHarness, SessionHarness, SubscriptionHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = [
    pytest.mark.broker,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class TestServiceBusQueue(AdapterConformance):
    """A queue."""

    harness = ServiceBusHarness


@pytest.mark.trial
class TestServiceBusSubscription(AdapterConformance):
    """A subscription of a topic."""

    harness = SubscriptionHarness


@pytest.mark.trial
class TestServiceBusSessions(AdapterConformance):
    """A queue with sessions."""

    harness = SessionHarness


@pytest.mark.trial
class TestRunnerOnServiceBusSessions(RunnerConformance):
    """The runner, over a queue with sessions."""

    harness = SessionHarness


@pytest.mark.trial
class TestRunnerOnServiceBusQueue(RunnerConformance):
    """The runner, over a queue."""

    harness = ServiceBusHarness

    # An abandoned message comes at once, so a delay that is not waited in the process is cut to `hold`.
    @pytest.mark.parametrize("hold", [10.0])
    def test_r05_the_delay_of_retry_is_honoured(self, hold: float) -> None:
        """`Retry(delay)` brings the message again no sooner, held in the process."""
        super().test_r05_the_delay_of_retry_is_honoured(hold)
