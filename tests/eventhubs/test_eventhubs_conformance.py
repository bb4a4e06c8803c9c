"""Event Hubs sits the adapter suite, on the stand-in."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance
from eventhubs_harness import EventHubsHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = [
    pytest.mark.broker,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class TestEventHubs(AdapterConformance):
    """A hub of three partitions."""

    harness = EventHubsHarness
