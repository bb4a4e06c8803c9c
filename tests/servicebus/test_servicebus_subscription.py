"""A subscription of a topic sits the adapter suite, and does what the simulation says."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance, ScenarioConformance
from servicebus_harness import SubscriptionHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.trial
class TestServiceBusSubscription(AdapterConformance):
    """A subscription of a topic."""

    harness = SubscriptionHarness


class TestScenariosOnServiceBusSubscription(ScenarioConformance):
    """What happens on a subscription is what the simulation says."""

    harness = SubscriptionHarness
    played = "servicebus"
