"""The runner suite, over a queue."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from servicebus_harness import ServiceBusHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.trial
class TestRunnerOnServiceBusQueue(RunnerConformance):
    """The runner, over a queue."""

    harness = ServiceBusHarness

    # An abandoned message comes at once, so a delay that is not waited in the process is cut to `hold`.
    @pytest.mark.parametrize("hold", [10.0])
    def test_r05_the_delay_of_retry_is_honoured(self, hold: float) -> None:
        """`Retry(delay)` brings the message again no sooner, held in the process."""
        super().test_r05_the_delay_of_retry_is_honoured(hold)
