"""The runner suite, over a queue with sessions."""

from __future__ import annotations

import pytest

from eventflows.protocols import Subscriber
from eventflows.testing import Background, RunnerConformance
from eventflows.testing.cases import Taken
from eventflows.testing.conditions import wait_until
from servicebus_harness import SessionHarness

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.trial
class TestRunnerOnServiceBusSessions(RunnerConformance):
    """The runner, over a queue with sessions."""

    harness = SessionHarness

    def taken_over(self, other: Subscriber) -> list[Taken]:
        """Let another member be the first in line when the session is lost: its old owner searches one again, too."""
        assert isinstance(self.broker, SessionHarness)
        broker, patience = self.broker, self.broker.patience
        wait_until(lambda: not broker.searches(self.topic), patience, what="the end of the flow's own searches")
        taking = Background(lambda: self.take(other, 1))
        wait_until(lambda: broker.searches(self.topic), patience, what="a search of the other member")
        self.fault("expire_leases")()
        return taking.result(patience, "the other member's message")
