"""`check` of a source on the stand-in: one finding for each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from amqp import AzureServer
from amqp.server import KEY
from eventflows import Message, Secret
from eventflows.locate import open_publisher, open_subscriber
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Checkable

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def azure() -> Iterator[AzureServer]:
    """A stand-in with a queue, and one of sessions."""
    with AzureServer() as server:
        server.queue("plain")
        server.queue("ordered", sessions=True)
        server.queue("full")
        server.call(lambda: server.broker.keys.update(listens=KEY, sends=KEY))
        server.call(lambda: server.broker.claims.update(listens="Listen", sends="Send"))
        yield server


def found(azure: AzureServer, name: str, options: Mapping[str, object] | None = None) -> list[tuple[str, str]]:
    """Check a source; gives level and text of each finding."""
    secret = Secret(azure.connection_string)
    made = open_subscriber(f"servicebus://{azure.host}/{name}", **{"connection_string": secret, **(options or {})})
    assert isinstance(made, Checkable)
    return [(one.level, f"{one.text} {one.fix}") for one in made.check()]


def test_a_queue_is_found_well_when_it_can_be_read(azure: AzureServer) -> None:
    """It is there, has no sessions, and no dead letters wait; the emulator's administration cannot be asked."""
    findings = found(azure, "plain")
    assert [level for level, _ in findings] == ["ok"] * 3
    assert "is not known" in findings[1][1]


def test_a_queue_of_sessions_is_found_well_when_they_are_asked_for(azure: AzureServer) -> None:
    """It is there, and has sessions."""
    assert [level for level, _ in found(azure, "ordered", {"sessions": 2})] == ["ok"] * 3


@pytest.mark.parametrize(
    ("name", "options", "fix"), [("ordered", {}, "Give sessions="), ("plain", {"sessions": 2}, "Leave sessions= out")]
)
def test_sessions_are_told_when_they_do_not_match(
    azure: AzureServer, name: str, options: Mapping[str, object], fix: str
) -> None:
    """The finding says which option to give, or to leave out."""
    [(level, text)] = found(azure, name, options)
    assert level == "error"
    assert fix in text


def test_a_missing_queue_is_told(azure: AzureServer) -> None:
    """With what to do about it."""
    [(level, text)] = found(azure, "nobody-made-this")
    assert (level, "Create it" in text) == ("error", True)


def test_a_wrong_key_is_told_without_it(azure: AzureServer) -> None:
    """The finding names the credentials, and shows none."""
    key = "YS1rZXktdGhhdC1pcy13cm9uZw=="
    wrong = Secret(azure.connection_string_of("RootManageSharedAccessKey", key))
    [(level, text)] = found(azure, "plain", {"connection_string": wrong})
    assert (level, "connection_string" in text, key in text) == ("error", True, False)


def test_dead_letters_that_wait_are_a_warning(azure: AzureServer) -> None:
    """How many, and how to look at them."""
    url, secret = f"servicebus://{azure.host}/full", Secret(azure.connection_string)
    with open_publisher(url, connection_string=secret) as publisher:
        publisher.publish([Message(b"x")])
    with open_subscriber(url, connection_string=secret) as subscriber:
        [chunk] = subscriber.receive(1, max_bytes=1000, timeout=10)
        subscriber.settle([Settlement(verdict=Verdict.DEAD_LETTER, spans=[(chunk, slice(0, 1))], reason="no good")])
    assert [level for level, _ in found(azure, "full")] == ["ok", "ok", "warning"]


def test_a_key_that_may_not_listen_is_told(azure: AzureServer) -> None:
    """With the right that is missing, by both of its names."""
    [(level, text)] = found(azure, "plain", {"connection_string": Secret(azure.connection_string_of("sends", KEY))})
    assert (level, "Listen" in text, "Data Receiver" in text, KEY in text) == ("error", True, True, False)


# Destinations.


def written(azure: AzureServer, name: str, key: str = "sends", value: str = KEY) -> tuple[str, str, str]:
    """Check a destination; gives level, text and fix of the one finding."""
    secret = Secret(azure.connection_string_of(key, value))
    made = open_publisher(f"servicebus://{azure.host}/{name}", connection_string=secret)
    assert isinstance(made, Checkable)
    [one] = made.check()
    return one.level, one.text, one.fix


def test_a_destination_is_found_well_when_it_can_be_written(azure: AzureServer) -> None:
    """It says how large a message may be; and leaves nothing there."""
    before = azure.counts("plain")
    level, text, _ = written(azure, "plain")
    assert (level, "bytes" in text, azure.counts("plain") == before) == ("ok", True, True)


def test_a_key_that_may_not_send_is_told(azure: AzureServer) -> None:
    """With the right that is missing, by both of its names; the place is said once."""
    level, text, fix = written(azure, "plain", "listens")
    assert (level, "Send" in fix, "Data Sender" in fix, KEY in text + fix) == ("error", True, True, False)
    assert text.count("servicebus://") == 1


def test_a_missing_destination_is_told(azure: AzureServer) -> None:
    """With what to do about it."""
    level, text, fix = written(azure, "nobody-made-this")
    assert (level, "nobody-made-this" in text, "Create the queue" in fix) == ("error", True, True)


def test_wrong_credentials_of_a_destination_are_told_without_them(azure: AzureServer) -> None:
    """The finding names the option, and shows nothing of it."""
    key = "YS1rZXktdGhhdC1pcy13cm9uZw=="
    level, text, fix = written(azure, "plain", "sends", key)
    assert (level, "connection_string" in fix, key in text + fix) == ("error", True, False)
