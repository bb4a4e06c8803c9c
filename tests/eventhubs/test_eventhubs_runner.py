"""The runner suite, over a hub."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from eventhubs_harness import EventHubsHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.trial
class TestRunnerOnEventHubs(RunnerConformance):
    """The runner, over a hub of three partitions."""

    harness = EventHubsHarness
