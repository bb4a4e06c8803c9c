"""The embedded broker sits both suites while it plays each of the others: what they cannot do, it cannot either."""

from __future__ import annotations

from emulated_harness import (
    EventHubsHarness,
    KafkaFileHarness,
    KafkaHarness,
    ServiceBusHarness,
    SqsFifoHarness,
    SqsFileHarness,
    SqsHarness,
)
from eventflows.testing import AdapterConformance, RunnerConformance


class TestAsKafka(AdapterConformance):
    """As Kafka, in memory."""

    harness = KafkaHarness


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


class TestAsKafkaInAFile(AdapterConformance):
    """As Kafka, in a file."""

    harness = KafkaFileHarness


class TestAsSqsInAFile(AdapterConformance):
    """As SQS, in a file."""

    harness = SqsFileHarness


class TestRunnerAsKafka(RunnerConformance):
    """The runner, over Kafka."""

    harness = KafkaHarness


class TestRunnerAsEventHubs(RunnerConformance):
    """The runner, over Event Hubs."""

    harness = EventHubsHarness


class TestRunnerAsSqs(RunnerConformance):
    """The runner, over SQS."""

    harness = SqsHarness


class TestRunnerAsSqsFifo(RunnerConformance):
    """The runner, over a FIFO queue."""

    harness = SqsFifoHarness


class TestRunnerAsServiceBus(RunnerConformance):
    """The runner, over Service Bus."""

    harness = ServiceBusHarness


class TestRunnerAsKafkaInAFile(RunnerConformance):
    """The runner, over Kafka in a file."""

    harness = KafkaFileHarness
