"""The runner sits what is starred of its suite over a subscription of a topic."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from runner_choice import STARRED, only
from servicebus_harness import SubscriptionHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.trial
@only(STARRED)
class TestRunnerOnServiceBusSubscription(RunnerConformance):
    """The runner, over a subscription."""

    harness = SubscriptionHarness
