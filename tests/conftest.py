"""What every test may count on, and which of them need a broker."""

from __future__ import annotations

import pytest

WITH_A_BROKER = {"kafka", "sqs", "servicebus", "eventhubs"}
"""Folders whose tests sit beside a server: `make brokers` runs them alone."""
HEAVY = {"kafka", "sqs"}
"""Those whose server takes seconds to start; the AMQP stand-in is there in a millisecond, wherever a test runs."""
ALONE = ("errors", "place", "store", "holding", "wire")
"""Endings of the files there that start none."""


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a broker, so that no file can forget it, and keep the tests of a class, or file, together."""
    for item in items:
        folder, stem = item.path.parent.name, item.path.stem
        if folder in WITH_A_BROKER and not stem.endswith(ALONE):
            item.add_marker(pytest.mark.broker)
            if folder in HEAVY:
                suite = getattr(item, "cls", None)
                item.add_marker(pytest.mark.xdist_group(stem if suite is None else f"{stem}-{suite.__name__}"))
