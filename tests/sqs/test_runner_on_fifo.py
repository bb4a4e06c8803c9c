"""The runner sits its suite over FIFO queues, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from sqs_harness import SqsFifoHarness


@pytest.mark.trial
class TestRunnerOnSqsFifo(RunnerConformance):
    """The runner, over FIFO queues."""

    harness = SqsFifoHarness
