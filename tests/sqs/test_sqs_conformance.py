"""SQS sits the adapter suite and the runner suite, standard and FIFO, on ElasticMQ."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance, RunnerConformance, ScenarioConformance
from sqs_harness import SqsFifoHarness, SqsHarness, SqsRedriveHarness

pytestmark = pytest.mark.broker


class TestSqs(AdapterConformance):
    """Standard queues."""

    harness = SqsHarness


class TestSqsFifo(AdapterConformance):
    """FIFO queues."""

    harness = SqsFifoHarness


@pytest.mark.trial
class TestSqsRedrive(AdapterConformance):
    """Standard queues with a redrive policy."""

    harness = SqsRedriveHarness


@pytest.mark.trial
class TestRunnerOnSqs(RunnerConformance):
    """The runner, over standard queues."""

    harness = SqsHarness


@pytest.mark.trial
class TestRunnerOnSqsFifo(RunnerConformance):
    """The runner, over FIFO queues."""

    harness = SqsFifoHarness


class TestScenariosOnSqs(ScenarioConformance):
    """What happens on standard queues is what the simulation says."""

    harness = SqsHarness
    played = "sqs"


class TestScenariosOnSqsFifo(ScenarioConformance):
    """What happens on FIFO queues is what the simulation says."""

    harness = SqsFifoHarness
    played = "sqs"
    played_source = "local://in.fifo"
