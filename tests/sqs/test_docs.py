"""What docs/how-to/sqs.md shows is run."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from eventflows import Message, open_publisher
from servers.elasticmq import elasticmq
from sqs_harness import SqsHarness

pytestmark = pytest.mark.broker

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "how-to" / "sqs.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "json"])
def test_every_policy_is_one(text: str) -> None:
    """Each JSON block has statements with an effect and actions of SQS or STS."""
    for statement in json.loads(text)["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert all(action.startswith(("sqs:", "sts:")) for action in actions)


@pytest.fixture
def names(broker: SqsHarness, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The Python blocks' names, the broker being a local one by the environment alone."""
    monkeypatch.setenv("EVENTFLOWS_SQS_ENDPOINT", elasticmq().endpoint)
    for name in ("orders", "receipts", "scores.fifo"):
        broker._direct.create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if name.endswith(".fifo") else {})
        broker._made.append(name)
    return {}


def block(word: str) -> str:
    """The Python block with a word in it."""
    [found] = [text for kind, text in BLOCKS if kind == "python" and word in text]
    return found


def test_the_first_flow_runs(names: dict[str, Any]) -> None:
    """It reads orders and publishes receipts."""
    exec(block("receipts"), names)  # noqa: S102 - our own page
    with open_publisher("sqs://eu-west-1/123456789012/orders") as made:
        made.publish([Message(b'{"item": "tea", "price": 3, "count": 2}')])
    result = names["apply"].run(limit=1, signals=False)
    assert (result.acked, result.published) == (1, 1)


def test_the_lone_publisher_publishes(names: dict[str, Any]) -> None:
    """It returns its value once the queue has it."""
    exec(block("scores.fifo"), names)  # noqa: S102 - our own page
    assert names["score"]("c-1") == {"customer": "c-1", "score": 0.5}
    names["score"].close()


def test_the_flow_with_a_role_is_decorated(names: dict[str, Any]) -> None:
    """Its options are valid, before anything is connected."""
    exec(block("partner-7"), names)  # noqa: S102 - our own page
    assert "210987654321" in repr(names["apply"])
