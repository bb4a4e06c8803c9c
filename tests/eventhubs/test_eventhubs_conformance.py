"""A hub sits the adapter suite, and does what the simulation says, on the stand-in."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance, ScenarioConformance
from eventhubs_harness import EventHubsHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.trial
class TestEventHubs(AdapterConformance):
    """A hub of three partitions."""

    harness = EventHubsHarness


class TestScenariosOnEventHubs(ScenarioConformance):
    """What happens on a hub is what the simulation says."""

    harness = EventHubsHarness
    played = "eventhubs"
