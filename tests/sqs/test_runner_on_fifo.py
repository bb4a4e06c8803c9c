"""The runner sits what is starred or about order of its suite over FIFO queues, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from runner_choice import ABOUT_ORDER, STARRED, only
from sqs_harness import SqsFifoHarness


@pytest.mark.trial
@only(STARRED | ABOUT_ORDER)
class TestRunnerOnSqsFifo(RunnerConformance):
    """The runner, over FIFO queues."""

    harness = SqsFifoHarness
