"""A queue sits the adapter suite, and does what the simulation says, on the stand-in."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance, ScenarioConformance
from servicebus_harness import ServiceBusHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class TestServiceBusQueue(AdapterConformance):
    """A queue."""

    harness = ServiceBusHarness


class TestScenariosOnServiceBus(ScenarioConformance):
    """What happens on a queue is what the simulation says."""

    harness = ServiceBusHarness
    played = "servicebus"
