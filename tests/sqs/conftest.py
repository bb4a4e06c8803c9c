"""What the tests of SQS share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sqs_harness import SqsFifoHarness, SqsHarness


@pytest.fixture
def broker() -> Iterator[SqsHarness]:
    """ElasticMQ behind its gate, standard queues."""
    made = SqsHarness()
    yield made
    made.close()


@pytest.fixture
def fifo() -> Iterator[SqsFifoHarness]:
    """ElasticMQ behind its gate, FIFO queues."""
    made = SqsFifoHarness()
    yield made
    made.close()
