"""The runner sits its suite over standard queues, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from runner_choice import ABOUT_BROKERS, ABOUT_ORDER, STARRED, only
from sqs_harness import SqsHarness


@pytest.mark.trial
@only(STARRED | ABOUT_ORDER | ABOUT_BROKERS)
class TestRunnerOnSqs(RunnerConformance):
    """The runner, over standard queues."""

    harness = SqsHarness
