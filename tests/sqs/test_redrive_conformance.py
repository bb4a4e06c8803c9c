"""What a redrive policy changes for the adapter suite: verdicts, order and trouble, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing.adapter_running import Order, Trouble
from eventflows.testing.adapter_settling import Acknowledging, Verdicts
from sqs_harness import SqsRedriveFifoHarness, SqsRedriveHarness


@pytest.mark.trial
class TestSqsRedrive(Acknowledging, Verdicts, Order, Trouble):
    """Standard queues whose dead letters have a place of the service's own."""

    harness = SqsRedriveHarness


@pytest.mark.trial
class TestSqsRedriveFifo(Verdicts, Order):
    """FIFO queues whose dead letters have a place of the service's own."""

    harness = SqsRedriveFifoHarness
