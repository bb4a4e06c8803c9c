"""What the tests of Event Hubs count on."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from eventhubs_harness import EventHubsHarness


@pytest.fixture(autouse=True)
def sockets_of_the_client() -> Iterator[None]:
    """Collect the sockets that the vendor's client leaves open when a connection is refused or cut under it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def broker() -> Iterator[EventHubsHarness]:
    """The stand-in, checkpoints in a SQLite file."""
    made = EventHubsHarness()
    yield made
    made.close()
