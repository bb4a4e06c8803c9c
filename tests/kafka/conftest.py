"""What the tests of Kafka share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from kafka_use import CLIENTS


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Each client of the adapter, one after another."""
    return str(request.param)


@pytest.fixture(autouse=True)
def what_is_left_open_is_told_of() -> Iterator[None]:
    """A socket that a test leaves to the collector is found in this test, not in a later one."""
    yield
    gc.collect()
