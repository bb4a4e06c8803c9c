"""FIFO queues sit the adapter suite, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance
from sqs_harness import SqsFifoHarness


@pytest.mark.trial
class TestSqsFifo(AdapterConformance):
    """FIFO queues."""

    harness = SqsFifoHarness
