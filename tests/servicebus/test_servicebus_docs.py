"""What docs/how-to/service-bus.md shows is run."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest

from amqp import AzureServer
from eventflows import Message, Secret
from eventflows.locate import open_publisher

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "how-to" / "service-bus.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def test_the_flow_of_sessions_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It reads what its session has; only the namespace is another."""
    [block] = [text for text in BLOCKS if "sessions=" in text]
    with AzureServer() as azure:
        azure.queue("orders", lock=10.0, sessions=True)
        monkeypatch.setenv("EVENTFLOWS_SERVICEBUS_CONNECTION_STRING", azure.connection_string)
        with open_publisher(
            f"servicebus://{azure.host}/orders", connection_string=Secret(azure.connection_string)
        ) as publisher:
            publisher.publish([Message(b'{"item": "tea"}', key="customer-1")])
        names: dict[str, Any] = {}
        exec(block.replace("//shop/", f"//{azure.host}/"), names)  # noqa: S102 - our own page
        assert names["apply"].run(limit=1, signals=False).acked == 1
    assert capsys.readouterr().out == "tea\n"
