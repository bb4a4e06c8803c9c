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
def sockets_of_refused_connections() -> Iterator[None]:
    """Collect them within each test, whose mark ignores the warning: kafka-python leaves them to the collector."""
    yield
    gc.collect()
