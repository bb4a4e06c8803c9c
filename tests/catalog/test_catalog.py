"""What a catalogue may say, and what is said of one that is broken."""

from __future__ import annotations

import os
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventflows import Secret
from eventflows.catalog import Catalog, find, load, read
from eventflows.catalog_file import CatalogFile
from eventflows.errors import ConfigError

GOOD = """
# who may use what
require-grants = true

[connections.prod]
kind = "kafka"  # the big one
place = "one:9092,two:9092"
username = "flows"
password = { env = "KAFKA_PASSWORD" }

[connections.bus]
kind = "servicebus"
place = "shop"
connection_string = { command = ["pass", "show", "bus"] }

[connections.dev]
kind = "local"
file = "flows.db"

[[grants]]
algorithm = "owner/scorer"
role = "subscriber"
place = "prod/images"

[flows.scorer]
algorithm = "scorer:apply"
source = "kafka:///images?connection=prod&group=g"
dead-letter = "halt"
timeout = 30
enabled = false
"""


def catalogue(text: str = GOOD) -> Catalog:
    """Read a text."""
    return read(text, "eventflows.toml")


def test_catalogue_gives_connections_grants_and_flows() -> None:
    """Typed, secrets as references."""
    found = catalogue()
    assert found.connections["prod"].options["password"] == Secret.env("KAFKA_PASSWORD")
    assert (found.grants[0].role, found.flows["scorer"].enabled, found.require_grants) == ("subscriber", False, True)
    assert (found.flows["scorer"].version, found.flows["scorer"].timeout) == ("latest", 30.0)


def test_secret_is_what_a_program_prints() -> None:
    """Without its line end."""
    assert Secret.command("printf", "hush\n").reveal() == "hush"


@pytest.mark.parametrize("words", [("false",), ("no-such-program-here",)])
def test_secret_of_a_program_that_fails_is_an_error_without_its_arguments(words: tuple[str, ...]) -> None:
    """An argument may be a secret."""
    with pytest.raises(ConfigError) as caught:
        Secret.command(*words, "hush").reveal()
    assert (words[0] in str(caught.value), "hush" in str(caught.value)) == (True, False)


def test_paths_are_read_from_the_folder_of_the_catalogue(tmp_path: pathlib.Path) -> None:
    """Whatever folder the flow starts in."""
    (tmp_path / "eventflows.toml").write_text(GOOD)
    found = load(tmp_path / "eventflows.toml")
    assert found is not None
    assert found.connections["dev"].options["file"] == str(tmp_path / "flows.db")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[connections", "line 1"),
        ("a = 1\n\n[flows.x\n", "line 3"),
        ("[conections.prod]\nkind = 'local'", "did you mean 'connections'"),
        ("connections = 3", "connections: expected tables"),
        ("[connections.prod]\nkind = 'kafak'\nplace = 'x'", r"\[connections.prod\]: kind is one of kafka"),
        ("[connections.prod]\nkind = 'kafka'", r"\[connections.prod\]: place is missing"),
        ("[connections.prod]\nkind = 'kafka'\nplace = 'kafka://x'", "no scheme"),
        ("[connections.prod]\nkind = 'kafka'\nplace = 'u:hush@x'", "no scheme, options or passwords"),
        ("[connections.prod]\nkind = 'kafka'\nplace = 'x'\npassword = 'hush'", "secrets are not written down"),
        ("[connections.prod]\nkind = 'kafka'\nplace = 'x'\npassword = { enw = 'X' }", "a secret is"),
        ("[connections.prod]\nkind = 'kafka'\nplace = 'x'\npassword = { command = [] }", "command is a list"),
        ("[connections.'a b']\nkind = 'local'", "a name has letters"),
        ("[[grants]]\nalgorithm = 'owner/x'\nrole = 'reader'\nplace = 'prod/x'", "grant 1: role is"),
        ("[[grants]]\nalgorithm = 'x'\nrole = 'subscriber'\nplace = 'prod/x'", "grant 1: algorithm is"),
        ("[[grants]]\nalgorithm = 'o/x'\nrole = 'subscriber'\nplace = 'prod'", "grant 1: place is"),
        ("[[grants]]\nalgorithm = 'o/x'\nrole = 'subscriber'\nplaec = 'prod/x'", "did you mean 'place'"),
        ("[flows.x]\nalgorithm = 'scorer:apply'\ntimeout = -1", r"\[flows.x\] timeout"),
        ("[flows.x]\nalgorithm = 'scorer:apply'\nenabled = 'yes'", r"\[flows.x\] enabled"),
        ("[flows.x]\nsource = 'local://a'", r"\[flows.x\]: algorithm is"),
        ("require-grants = 1", "require-grants: expected true or false"),
    ],
)  # fmt: skip
def test_broken_catalogue_is_an_error_with_its_place(text: str, said: str) -> None:
    """The file, and the line or the entry; never a secret."""
    with pytest.raises(ConfigError, match=f"eventflows.toml.*{said}") as caught:
        catalogue(text)
    assert "hush" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_catalogue_is_read_or_refused_and_left_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Nothing but a ConfigError, and no byte of the file changes."""
    at = data.draw(st.integers(0, len(GOOD)))
    cut = data.draw(st.integers(0, 12))
    text = GOOD[:at] + data.draw(st.text(max_size=6)) + GOOD[at + cut :]
    raw = text.encode("utf-8", "surrogatepass")
    path = tmp_path_factory.mktemp("catalogue") / "eventflows.toml"
    path.write_bytes(raw)
    try:
        load(path)
        CatalogFile(path).remove_connection("not-there")
    except ConfigError:
        pass
    assert path.read_bytes() == raw


def test_file_that_is_not_text_is_an_error(tmp_path: pathlib.Path) -> None:
    """It is UTF-8."""
    (tmp_path / "eventflows.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "eventflows.toml")


def test_catalogue_is_found_in_a_folder_above(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest one."""
    (tmp_path / "eventflows.toml").write_text(GOOD)
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert find() == tmp_path / "eventflows.toml"


def test_variable_that_names_no_file_is_an_error(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence would be a catalogue without grants."""
    monkeypatch.setenv("EVENTFLOWS_CATALOG", str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match=r"missing\.toml: there is no such file"):
        load()


def test_unknown_connection_names_the_nearest() -> None:
    """And how to see them all."""
    with pytest.raises(ConfigError, match="did you mean 'prod'"):
        catalogue().connection("prd")


def test_nothing_shows_a_secret() -> None:
    """Only where it is read from."""
    os.environ["KAFKA_PASSWORD"] = "hush"
    try:
        assert "hush" not in repr(catalogue())
    finally:
        del os.environ["KAFKA_PASSWORD"]
