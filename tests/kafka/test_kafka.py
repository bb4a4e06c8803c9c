"""Kafka sits the adapter suite and the runner suite, on a real broker."""

from __future__ import annotations

import pytest

from eventflows.testing import AdapterConformance, RunnerConformance, ScenarioConformance
from kafka_harness import (
    KafkaHarness,
    KafkaRunnerHarness,
    KafkaScenarioHarness,
    RdHarness,
    RdRunnerHarness,
    RdScenarioHarness,
)

# A connection that is refused leaves kafka-python's socket to the garbage collector, which warns.
pytestmark = pytest.mark.broker


class TestKafka(AdapterConformance):
    """The adapter."""

    harness = KafkaHarness


class TestLibrdkafka(AdapterConformance):
    """The adapter, through librdkafka."""

    harness = RdHarness


@pytest.mark.trial
class TestRunnerOnKafka(RunnerConformance):
    """The runner, over it."""

    harness = KafkaRunnerHarness


@pytest.mark.trial
class TestScenariosOnKafka(ScenarioConformance):
    """What they come to is what they come to in the simulation."""

    harness = KafkaScenarioHarness
    played = "kafka"


@pytest.mark.trial
class TestScenariosOnLibrdkafka(ScenarioConformance):
    """The same through librdkafka."""

    harness = RdScenarioHarness
    played = "kafka"


@pytest.mark.trial
class TestRunnerOnLibrdkafka(RunnerConformance):
    """The runner, over it through librdkafka."""

    harness = RdRunnerHarness
