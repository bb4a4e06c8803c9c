"""The embedded broker sits both suites while it plays each of the others: what they cannot do, it cannot either.

Each kind sits once in each run of the tests; the others, which share most of their code with one of those, in trials.
"""

from __future__ import annotations

import pytest

from emulated_harness import (
    EventHubsHarness,
    KafkaFileHarness,
    KafkaHarness,
    ServiceBusHarness,
    SqsFifoHarness,
    SqsFileHarness,
    SqsHarness,
)
from eventflows.testing import AdapterConformance, RunnerConformance, ScenarioConformance


class TestAsKafka(AdapterConformance):
    """As Kafka, in memory."""

    harness = KafkaHarness


@pytest.mark.trial
class TestAsEventHubs(AdapterConformance):
    """As Event Hubs, in memory."""

    harness = EventHubsHarness


class TestAsSqs(AdapterConformance):
    """As SQS, in memory."""

    harness = SqsHarness


class TestAsSqsFifo(AdapterConformance):
    """As a FIFO queue of SQS, in memory."""

    harness = SqsFifoHarness


class TestAsServiceBus(AdapterConformance):
    """As Service Bus, in memory."""

    harness = ServiceBusHarness


@pytest.mark.trial
class TestAsKafkaInAFile(AdapterConformance):
    """As Kafka, in a file."""

    harness = KafkaFileHarness


@pytest.mark.trial
class TestAsSqsInAFile(AdapterConformance):
    """As SQS, in a file."""

    harness = SqsFileHarness


class TestRunnerAsKafka(RunnerConformance):
    """The runner, over Kafka."""

    harness = KafkaHarness


@pytest.mark.trial
class TestRunnerAsEventHubs(RunnerConformance):
    """The runner, over Event Hubs."""

    harness = EventHubsHarness


class TestRunnerAsSqs(RunnerConformance):
    """The runner, over SQS."""

    harness = SqsHarness


@pytest.mark.trial
class TestRunnerAsSqsFifo(RunnerConformance):
    """The runner, over a FIFO queue."""

    harness = SqsFifoHarness


@pytest.mark.trial
class TestRunnerAsServiceBus(RunnerConformance):
    """The runner, over Service Bus."""

    harness = ServiceBusHarness


@pytest.mark.trial
class TestRunnerAsKafkaInAFile(RunnerConformance):
    """The runner, over Kafka in a file."""

    harness = KafkaFileHarness


class TestScenariosAsSqs(ScenarioConformance):
    """Scenarios as SQS, in memory and in real time."""

    harness = SqsHarness
    played = "sqs"


class TestScenariosAsKafka(ScenarioConformance):
    """Scenarios as Kafka, in memory and in real time."""

    harness = KafkaHarness
    played = "kafka"
