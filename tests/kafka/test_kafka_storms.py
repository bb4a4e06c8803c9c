"""Members that join, leave and are killed while messages flow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kafka_harness import KafkaHarness
from kafka_members import storm

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def broker() -> Iterator[KafkaHarness]:
    """The broker that all share."""
    harness = KafkaHarness()
    yield harness
    harness.close()


@pytest.mark.trial
@pytest.mark.timeout(600)
def test_nothing_is_missing_when_members_come_go_and_are_killed(broker: KafkaHarness) -> None:
    """At least once: every number arrives, and none of a key before the first arrival of one below it."""
    count = 6000
    reader, what = storm(broker, count, "at-least-once", troubles=10, delay=0.002)
    assert (count - len(reader.seen), reader.early) == (0, []), what
