"""What can be imported, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import eventflows

HEAVY = (
    "kafka", "boto3", "azure", "confluent_kafka", "click", "rich", "httpx", "orjson", "cattrs", "sqlite3", "asyncio",
    "numpy", "pytest",
)  # fmt: skip
NAMES = {
    "subscriber", "publisher", "Flow", "run", "send", "open_subscriber", "open_publisher", "Message", "Messages",
    "Delivery", "RetryPolicy", "Retry", "Reject", "Secret", "Observer", "RunResult", "EventListeners",
    "hosted_algorithm",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(eventflows.__all__))
def test_name_is_importable_when_it_is_listed(name: str) -> None:
    """Every listed name is there."""
    assert getattr(eventflows, name) is not None


def test_names_are_those_of_the_contract() -> None:
    """The list is the contract's names, and every error."""
    errors = {
        name
        for name, value in vars(__import__("eventflows.errors", fromlist=["errors"])).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert set(eventflows.__all__) == NAMES | errors


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there says so."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = eventflows.nothing


def test_import_brings_in_nothing_heavy() -> None:
    """Importing the package imports no vendor SDK and nothing that is not needed yet."""
    code = f"import sys, eventflows; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
