"""The runner sits its suite over standard queues, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing import RunnerConformance
from sqs_harness import SqsHarness


@pytest.mark.trial
class TestRunnerOnSqs(RunnerConformance):
    """The runner, over standard queues."""

    harness = SqsHarness
