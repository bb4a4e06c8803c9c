"""The runner suite, over a queue with sessions."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from servicebus_harness import SessionHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.trial
class TestRunnerOnServiceBusSessions(RunnerConformance):
    """The runner, over a queue with sessions."""

    harness = SessionHarness
