"""Grants hold on every broker, before anything connects."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from eventflows import publisher, subscriber
from eventflows.catalog import Grant
from eventflows.catalog_file import CatalogFile
from eventflows.errors import ConfigError, GrantError
from eventflows.flow import Flow

PLACES = {
    "kafka": "one:9092",
    "sqs": "eu-west-1/123456789012",
    "servicebus": "shop",
    "eventhubs": "shop",
    "local": "",
}
OPTIONS = {"kafka": "&group=g", "eventhubs": "&group=$Default"}


@pytest.fixture
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> CatalogFile:
    """A catalogue with a connection of each kind, where the process runs."""
    monkeypatch.chdir(tmp_path)
    made = CatalogFile()
    for kind, place in PLACES.items():
        made.put_connection(f"my-{kind}", {"kind": kind, "place": place} if place else {"kind": kind})
    return made


def reader(kind: str, **settings: Any) -> Flow[..., Any]:
    """A flow that reads through a named connection."""
    url = f"{kind}:///things?connection=my-{kind}{OPTIONS.get(kind, '')}"

    @subscriber(url, name="reads", **settings)
    def apply(input: object) -> None: ...

    return apply


@pytest.mark.parametrize("kind", PLACES)
def test_flow_does_not_start_without_its_grant(file: CatalogFile, kind: str) -> None:
    """The error has the command that mends it."""
    with pytest.raises(GrantError, match=f"eventflows grants add owner/a subscriber 'my-{kind}/things'"):
        reader(kind, algorithm="owner/a").run(limit=1)


@pytest.mark.parametrize("kind", PLACES)
def test_grant_lets_a_flow_start(file: CatalogFile, kind: str) -> None:
    """Every version, an unpublished build included."""
    file.add_grant(Grant(algorithm="owner/a", role="subscriber", place=f"my-{kind}/things"))
    assert reader(kind, algorithm="owner/a", version="0f3c9a1").plan().source.startswith(kind)


@pytest.mark.parametrize("kind", PLACES)
def test_publishing_needs_a_grant_of_its_own(file: CatalogFile, kind: str) -> None:
    """Reading does not cover writing."""
    file.add_grant(Grant(algorithm="owner/a", role="subscriber", place=f"my-{kind}/things"))

    @publisher(f"{kind}:///things?connection=my-{kind}", algorithm="owner/a")
    def apply(input: object) -> object:
        return input

    with pytest.raises(GrantError, match=f"publisher of my-{kind}/things"):
        apply(1)


def test_flow_names_no_algorithm_when_it_must(file: CatalogFile) -> None:
    """It says how."""
    with pytest.raises(GrantError, match="EVENTFLOWS_ALGORITHM"):
        reader("local").run(limit=1)


def test_environment_names_the_algorithm(file: CatalogFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a version or without."""
    file.add_grant(Grant(algorithm="owner/a", role="subscriber", place="my-local/things"))
    monkeypatch.setenv("EVENTFLOWS_ALGORITHM", "owner/a/1.2.0")
    reader("local").plan()


def test_plain_url_needs_a_grant_when_the_catalogue_demands_it(file: CatalogFile) -> None:
    """`require-grants` guards everything that runs under it."""
    file.path.write_text("require-grants = true\n" + file.path.read_text())

    @subscriber("local://plain", algorithm="owner/a")
    def apply(input: object) -> None: ...

    with pytest.raises(GrantError, match="subscriber of local://plain"):
        apply.run(limit=1)


def test_plain_url_is_free_otherwise(file: CatalogFile) -> None:
    """A catalogue nearby changes nothing for flows that do not use it."""

    @subscriber("local://plain")
    def apply(input: object) -> None: ...

    apply.plan()


def test_disabled_flow_does_not_start(file: CatalogFile) -> None:
    """By its name, or by its algorithm."""
    file.add_grant(Grant(algorithm="owner/a", role="subscriber", place="my-local/things"))
    file.put_flow("reads", {"algorithm": "owner/a", "enabled": False})
    with pytest.raises(GrantError, match="eventflows flows enable reads"):
        reader("local", algorithm="owner/a").run(limit=1)


def test_disabled_entry_does_not_stop_another_flow_of_the_algorithm(file: CatalogFile) -> None:
    """When that is enabled."""
    file.add_grant(Grant(algorithm="owner/a", role="subscriber", place="my-local/things"))
    file.put_flow("one", {"algorithm": "owner/a", "enabled": False})
    file.put_flow("two", {"algorithm": "owner/a"})
    reader("local", algorithm="owner/a").plan()


def test_connection_of_another_kind_is_refused(file: CatalogFile) -> None:
    """The URL says kafka, the connection local."""
    file.add_grant(Grant(algorithm="owner/a", role="subscriber", place="my-local/things"))

    @subscriber("kafka:///things?connection=my-local&group=g", algorithm="owner/a")
    def apply(input: object) -> None: ...

    with pytest.raises(ConfigError, match="of kind local, not kafka"):
        apply.run(limit=1)


def test_place_beside_a_connection_is_refused_at_decoration() -> None:
    """One of the two says where the broker is."""
    with pytest.raises(ConfigError, match="kafka:///things"):
        subscriber("kafka://host:9092/things?connection=prod&group=g")


def test_decorating_reads_no_catalogue(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be broken, or not there yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eventflows.toml").write_text("[broken")
    reader("kafka")


def test_connection_without_a_catalogue_says_how_to_make_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command, and the variable."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="eventflows connections add"):
        reader("local").run(limit=1)


def test_messages_flow_through_a_named_connection(file: CatalogFile) -> None:
    """Both ends, on the embedded broker."""
    for role, topic in (("subscriber", "in"), ("publisher", "out")):
        file.add_grant(Grant(algorithm="owner/a", role=role, place=f"my-local/{topic}"))  # type: ignore[arg-type]
    import eventflows

    @subscriber("local:///in?connection=my-local", algorithm="owner/a")
    @publisher("local:///out?connection=my-local")
    def apply(input: int) -> int:
        return 2 * input

    eventflows.send("local:///in?connection=my-local", 21)
    assert apply.run(limit=1).published == 1
    with eventflows.open_subscriber("local://out") as plain:
        assert [
            delivery.message.body for chunk in plain.receive(5, max_bytes=1000, timeout=1) for delivery in chunk
        ] == [b"42"]
