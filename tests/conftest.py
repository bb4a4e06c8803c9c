"""What every test may count on, and which of them need a broker."""

from __future__ import annotations

import pytest

WITH_A_BROKER = {"kafka", "sqs", "servicebus", "eventhubs"}
"""Folders whose tests sit beside a server: `make brokers` runs them alone."""
ALONE = ("errors", "place", "store", "holding", "loop", "wire")
"""Endings of the files there that start none."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a broker, so that no file can forget it."""
    for item in items:
        if item.path.parent.name in WITH_A_BROKER and not item.path.stem.endswith(ALONE):
            item.add_marker(pytest.mark.broker)
