"""The runner sits what is starred or about order of its suite over FIFO queues, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from sqs_harness import SqsFifoHarness
from sqs_runner import ABOUT_ORDER, STARRED, only


@pytest.mark.trial
@only(STARRED | ABOUT_ORDER)
class TestRunnerOnSqsFifo(RunnerConformance):
    """The runner, over FIFO queues."""

    harness = SqsFifoHarness
