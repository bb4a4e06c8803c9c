"""FIFO queues sit the adapter suite, on ElasticMQ."""

from __future__ import annotations

from eventflows.testing import AdapterConformance
from sqs_harness import SqsFifoHarness


class TestSqsFifo(AdapterConformance):
    """FIFO queues."""

    harness = SqsFifoHarness
