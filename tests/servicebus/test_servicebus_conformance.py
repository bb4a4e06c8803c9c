"""Service Bus sits the adapter suite and the runner suite, on the stand-in."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance, RunnerConformance
from servicebus_harness import ServiceBusHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


class TestServiceBusQueue(AdapterConformance):
    """A queue."""

    harness = ServiceBusHarness


class TestRunnerOnServiceBusQueue(RunnerConformance):
    """The runner, over a queue."""

    harness = ServiceBusHarness
