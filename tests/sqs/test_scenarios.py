"""Scenarios come to the same on ElasticMQ as in the simulation of SQS."""

from __future__ import annotations

import pytest

from eventflows.testing import ScenarioConformance
from sqs_harness import SqsFifoHarness, SqsHarness


class TestScenariosOnSqs(ScenarioConformance):
    """What happens on standard queues is what the simulation says."""

    harness = SqsHarness
    played = "sqs"


@pytest.mark.trial
class TestScenariosOnSqsFifo(ScenarioConformance):
    """What happens on FIFO queues is what the simulation says."""

    harness = SqsFifoHarness
    played = "sqs"
    played_source = "local://in.fifo"
