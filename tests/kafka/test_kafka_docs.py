"""What docs/how-to/kafka.md shows is run, on a real broker."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.admin import (
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePatternFilter,
    ResourceType,
)

import eventflows
from kafka_use import administrator
from servers.kafka import PASSWORDS, KafkaServer, shared

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "how-to" / "kafka.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    """The broker that all share; what the page makes there is removed."""
    server = shared()
    yield server
    with administrator(server) as admin:
        admin.delete_topics(["orders", "receipts", "orders-dead"])
        pattern = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
        admin.delete_acls([ACLFilter("User:alice", None, ACLOperation.ANY, ACLPermissionType.ANY, pattern)])


def run(server: KafkaServer, word: str) -> dict[str, Any]:
    """Run the block with a word in it, its places being those of the broker; gives its names."""
    [text] = [text for text in BLOCKS if word in text]
    for shown, real in (
        ("localhost:9092", server.address()),
        ("localhost:9094", server.address("SASL_SSL")),
        ("ca.pem", str(server.tls / "ca.pem")),
        ("User:till", "User:alice"),
        ('"username": "till"', '"username": "alice"'),
    ):
        text = text.replace(shown, real)
    names: dict[str, Any] = {"__name__": "shown"}
    exec(text, names)  # noqa: S102 - our own page
    return names


def bodies(server: KafkaServer, topic: str) -> list[bytes | None]:
    """Read what is in a topic."""
    with eventflows.open_subscriber(f"kafka://{server.address()}/{topic}", group="reader") as reader:
        return [one.message.body for one in reader.peek(10, timeout=5)]


def test_the_page_leads_from_nothing_to_a_secured_cluster(
    server: KafkaServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Topics, a flow, rights, and the flow again as a user who has no others."""
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORDS["alice"])
    run(server, '"num_partitions"')
    run(server, "eventflows.send(")
    assert bodies(server, "receipts") == [b'{"item":"tea","paid":6}']
    run(server, "create_acls")
    eventflows.send(f"kafka://{server.address()}/orders", {"item": "cup", "price": 8, "count": 1})
    run(server, "secured =")
    assert sorted(bodies(server, "receipts")) == [b'{"item":"cup","paid":8}', b'{"item":"tea","paid":6}']
