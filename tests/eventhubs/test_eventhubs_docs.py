"""What docs/how-to/event-hubs.md shows is run, on the stand-in and on Azurite."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from amqp import AzureServer
from eventflows import Message, Secret, open_publisher
from eventflows.adapters._eventhubs_place import DESTINATION, SOURCE
from eventhubs_harness import EventHubsHarness
from servers.azurite import azurite

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "how-to" / "event-hubs.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture
def server(broker: EventHubsHarness, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> AzureServer:
    """The hubs of the page."""
    server = broker._server
    for name in ("readings", "alarms", "unread"):
        server.hub(name, partitions=2, groups=("audit",))
    monkeypatch.setenv("TELEMETRY_CONNECTION_STRING", server.connection_string)
    monkeypatch.setenv("EVENTFLOWS_EVENTHUBS_BALANCE", "0.5")
    monkeypatch.chdir(tmp_path)
    return server


def block(word: str, server: AzureServer) -> str:
    """The block with a word in it, its places being the local ones."""
    [found] = [text for text in BLOCKS if word in text]
    return str(found).replace("eventhubs://shop/", f"eventhubs://{server.host}/")


def send(server: AzureServer, name: str, *values: dict[str, Any]) -> None:
    """Publish values to the first partition."""
    secret = Secret(server.connection_string)
    with open_publisher(f"eventhubs://{server.host}/{name}", connection_string=secret) as made:
        batch = [Message(json.dumps(value).encode(), options={"partition": "0"}) for value in values]
        assert [one.error for one in made.publish(batch)] == [None] * len(values)


def test_the_first_flow_runs(server: AzureServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions in a container, an alarm, a dead letter."""
    monkeypatch.setenv("TELEMETRY_STORAGE", azurite().connection_string)
    text = block("too_hot_by", server).replace("https://shop.blob.core.windows.net/checkpoints", azurite().container())
    monkeypatch.setenv("EVENTFLOWS_EVENTHUBS_CONNECTION_STRING", server.connection_string)  # for the dead letters
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 - our own page
    send(server, "readings", {"sensor": "s-1", "celsius": 81}, {"sensor": "s-2", "celsius": 20}, {"sensor": "s-3"})
    result = names["apply"].run(limit=3, signals=False)
    assert (result.acked, result.published, result.dead_lettered) == (2, 1, 1)


def test_the_flow_with_beginnings_runs(
    server: AzureServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It begins where its mapping says."""
    monkeypatch.setenv("EVENTFLOWS_EVENTHUBS_CONNECTION_STRING", server.connection_string)
    names: dict[str, Any] = {}
    send(server, "readings", *({"sensor": f"s-{number}"} for number in range(4)))
    exec(block("def audit", server), names)  # noqa: S102 - our own page
    names["audit"].run(limit=2, signals=False)
    assert capsys.readouterr().out.split() == ["s-2", "s-3"]


def test_the_publication_arrives(server: AzureServer) -> None:
    """In the partition that it names."""
    names: dict[str, Any] = {}
    exec(block("results =", server), names)  # noqa: S102 - our own page
    assert [one.error for one in names["results"]] == [None]
    assert len(server.broker.hubs["readings"].partitions[0].events) == 1


def test_every_option_is_in_the_table() -> None:
    """None is missing, and none is there that does not exist."""
    rows = set(re.findall(r"^\| `(\w+)`", PAGE.read_text().partition("## Where")[0], re.M))
    assert rows == {option.name.replace("-", "_") for option in (*SOURCE, *DESTINATION)}
