"""`eventflows connections`, `grants`, `flows`, `list`, `forward` and `check`, as a person would use them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from servers.platform import Api, platform

SCORER = """
from eventflows import subscriber

def apply(input: int) -> int:
    return 2 * input

@subscriber("local://in?file=flows.db", algorithm="owner/counts", version="1.2.0")
def counts(input: int) -> None: ...
"""
KEY = "own-key-do-not-show"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with an algorithm."""
    (tmp_path / "scorer.py").write_text(SCORER)
    return tmp_path


@pytest.fixture
def api() -> Iterator[Api]:
    """The platform."""
    with platform() as server:
        yield server


def command(
    folder: pathlib.Path, *words: str, given: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, with an environment of our own names only."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("EVENTFLOWS", "ALGORITHMIA", "AWS"))
    }
    return subprocess.run(
        [sys.executable, "-m", "eventflows", *words], cwd=folder, input=given, capture_output=True, text=True,
        timeout=60,
        env=clean | dict(environment or {}), check=False,
    )  # fmt: skip


def hosted(api: Api) -> dict[str, str]:
    """The environment that leads to the platform."""
    return {"ALGORITHMIA_API": api.url, "ALGORITHMIA_API_KEY": KEY, "ALGORITHMIA_ADMIN_API_KEY": KEY}


def test_connect_grant_enable_run(folder: pathlib.Path) -> None:
    """The whole way, as the how-to has it."""
    for words in (
        "connections add dev local -o file=flows.db",
        "flows edit double --algorithm scorer:apply --source local:///in?connection=dev --destination local:///out?connection=dev",
        "grants add scorer:apply subscriber dev/in",
        "grants add scorer:apply publisher dev/out",
    ):
        assert command(folder, *words.split()).returncode == 0
    command(folder, "send", "local:///in?connection=dev", given="21\n")
    ran = command(folder, "flows", "run", "--until-idle", "0.2")
    assert (ran.returncode, "1 published" in ran.stdout) == (0, True)
    assert command(folder, "tail", "local:///out?connection=dev").stdout.split("\t")[3] == "42\n"


def test_flow_without_its_grant_says_the_command(folder: pathlib.Path) -> None:
    """Exit status 2, one line."""
    command(folder, "connections", "add", "dev", "local", "-o", "file=flows.db")
    command(folder, "flows", "edit", "double", "--algorithm", "scorer:apply", "--source", "local:///in?connection=dev")
    ran = command(folder, "flows", "run")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "eventflows grants add scorer:apply subscriber 'dev/in'" in ran.stderr


def test_disabled_flow_is_not_run(folder: pathlib.Path) -> None:
    """And says how to enable it."""
    command(folder, "flows", "edit", "double", "--algorithm", "scorer:apply", "--source", "local://in?file=flows.db")
    command(folder, "flows", "disable", "double")
    ran = command(folder, "flows", "run", "double")
    assert (ran.returncode, "eventflows flows enable double" in ran.stderr) == (2, True)


def test_flow_of_the_catalogue_keeps_what_its_decorator_says(folder: pathlib.Path) -> None:
    """The entry changes the source; load, state and the rest stay."""
    (folder / "loads.py").write_text(
        "from eventflows import subscriber\n"
        "@subscriber('local://other', load=lambda: 40)\n"
        "def apply(input: int, state: int) -> None:\n    print(input + state, flush=True)\n"
    )
    command(folder, "flows", "edit", "loads", "--algorithm", "loads:apply", "--source", "local://in?file=flows.db")
    command(folder, "send", "local://in?file=flows.db", given="2\n")
    assert "42" in command(folder, "flows", "run", "--until-idle", "0.2").stdout


def test_connections_are_listed_without_secrets(folder: pathlib.Path) -> None:
    """Only where a secret is read from."""
    added = command(
        folder, "connections", "add", "prod", "kafka", "one:9092", "-o", "username=u", "--env", "password=PW",
    )  # fmt: skip
    shown = command(folder, "connections", "list", environment={"PW": "hush"})
    assert (added.returncode, shown.returncode) == (0, 0)
    assert shown.stdout == "prod\tkafka\tone:9092\tusername=u, password=Secret.env('PW')\n"


def test_secret_on_the_command_line_is_refused(folder: pathlib.Path) -> None:
    """And neither repeated nor written."""
    done = command(folder, "connections", "add", "prod", "kafka", "one:9092", "-o", "password=hush")
    assert (done.returncode, "hush" in done.stderr, (folder / "eventflows.toml").exists()) == (2, False, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("connections remove none", "no connection 'none'"),
        ("connections test none", "no eventflows.toml"),
        ("connections add x rabbit y", "'rabbit' is not one of"),
        ("connections add x local -o file", "NAME=VALUE"),
        ("grants add owner reader x/y", "'reader' is not one of"),
        ("grants add owner subscriber x/y", "owner/name"),
        ("grants remove o/n subscriber x/y", "has no grant"),
        ("flows enable none", "no flow 'none'"),
        ("flows edit none", "nothing to change"),
        ("flows edit x --algorithm nonsense", "module:function"),
        ("flows run", "no flow that is enabled"),
        ("flows run none", "has no flow 'none'"),
        ("list --cluster --account ann", "one of --account"),
        ("list --cluster", "ALGORITHMIA_API is not set"),
        ("list nowhere", "no module 'nowhere'"),
        ("forward local://in?file=f.db owner", "owner/name"),
        ("forward local://in?file=f.db owner/name", "ALGORITHMIA_API"),
        ("check nowhere:apply", "no module 'nowhere'"),
        ("check kafak://x/y", "kafka"),
    ],
)
def test_mistake_is_one_readable_line(folder: pathlib.Path, words: str, said: str) -> None:
    """Exit status 2, and no traceback."""
    done = command(folder, *words.split())
    assert (done.returncode, "Traceback" in done.stderr, said in done.stderr) == (2, False, True), done.stderr


def test_broken_catalogue_is_said_with_its_line(folder: pathlib.Path) -> None:
    """And is left as it is."""
    (folder / "eventflows.toml").write_text("[connections.x]\nkind = \n")
    done = command(folder, "connections", "add", "dev", "local")
    assert (done.returncode, "line 2" in done.stderr) == (2, True)
    assert (folder / "eventflows.toml").read_text() == "[connections.x]\nkind = \n"


def test_list_shows_catalogue_code_and_platform(folder: pathlib.Path, api: Api) -> None:
    """In one table, without a secret."""
    listener = {"id": 7, "sourceType": "AzureSB", "sourceURI": "scans", "algoOwner": "ann", "algoName": "ocr",
                "credentials": "Endpoint=sb://x;SharedAccessKey=hush"}  # fmt: skip
    api.rule = lambda asked: {"id": "u-1", "username": "ann"} if asked[1] == "/v1/users/ann" else [listener]
    command(folder, "flows", "edit", "double", "--algorithm", "scorer:apply", "--source", "local://in?file=flows.db")
    shown = command(folder, "list", "scorer", "--account", "ann", environment=hosted(api))
    rows = [line.split("\t") for line in shown.stdout.splitlines()]
    assert [row[0] for row in rows] == ["catalogue", "code", "platform"]
    assert (rows[1][3:5], rows[2][1:4]) == (["owner/counts", "1.2.0"], ["ann", "7", "ann/ocr"])
    assert "hush" not in shown.stdout + shown.stderr


def test_list_of_the_cluster_names_what_was_refused(folder: pathlib.Path, api: Api) -> None:
    """As JSON, too, and the secret is hidden there."""
    api.say(200, {"results": [{"id": "1", "username": "ann"}]})
    api.say(200, [{"id": 7, "credentials": "hush"}])
    found = command(folder, "list", "--cluster", "--json", environment=hosted(api))
    assert json.loads(found.stdout)[0]["credentials"] == "Secret(***)"
    api.say(200, {"results": [{"id": "1", "username": "ann"}]})
    api.say(403, {"message": "not yours"})
    refused = command(folder, "list", "--cluster", environment=hosted(api))
    assert (refused.returncode, "account ann is not shown" in refused.stderr) == (0, True)


def test_api_that_refuses_is_one_line_without_the_key(folder: pathlib.Path, api: Api) -> None:
    """Exit status 1."""
    api.say(401, {"code": 2002, "message": f"unknown key {KEY}"})
    done = command(folder, "list", "--account", "ann", environment=hosted(api))
    assert (done.returncode, KEY in done.stderr, done.stderr.count("\n")) == (1, False, 1)


def test_forward_hands_messages_to_the_hosted_algorithm(folder: pathlib.Path, api: Api) -> None:
    """Says which version is the latest, and publishes the results."""
    api.rule = lambda asked: (
        {"version_info": {"semantic_version": "1.4.2"}}
        if asked[0] == "GET"
        else {"result": int(asked[3]) * 2, "metadata": {"content_type": "json"}}
    )
    command(folder, "send", "local://in?file=flows.db", given="21\n")
    done = command(
        folder, "forward", "local://in?file=flows.db", "owner/double", "--to", "local://out?file=flows.db",
        "--workers", "4", "--until-idle", "0.2", environment=hosted(api),
    )  # fmt: skip
    assert (done.returncode, "owner/double: latest is 1.4.2" in done.stderr) == (0, True)
    assert api.asked[-1][1] == "/v1/algo/owner/double/1.4.2?timeout=420"
    assert command(folder, "tail", "local://out?file=flows.db").stdout.split("\t")[3] == "42\n"


def test_hosted_flow_of_the_catalogue_runs(folder: pathlib.Path, api: Api) -> None:
    """The algorithm is owner/name, its version of the entry."""
    api.rule = lambda _: {"result": None, "metadata": {"content_type": "json"}}
    command(
        folder,
        "flows",
        "edit",
        "ocr",
        "--algorithm",
        "owner/ocr",
        "--version",
        "1.0.0",
        "--source",
        "local://in?file=flows.db",
    )
    command(folder, "send", "local://in?file=flows.db", given="1\n")
    done = command(folder, "flows", "run", "ocr", "--limit", "1", environment=hosted(api))
    assert (done.returncode, [asked[1] for asked in api.asked]) == (0, ["/v1/algo/owner/ocr/1.0.0?timeout=420"])


def test_check_looks_at_every_end_of_a_flow(folder: pathlib.Path) -> None:
    """A line each; what is wrong has its next step, and exit status 1."""
    (folder / "ends.py").write_text(
        "from eventflows import publisher, subscriber\n"
        "@subscriber('local://in?file=flows.db', dead_letter='local://dead?file=flows.db')\n"
        "@publisher('kafka://127.0.0.1:1/scores')\n"
        "def apply(input): return input\n"
    )
    done = command(folder, "check", "ends:apply")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["ok", "ok", "error", "Check"]
    assert done.returncode == 1


def test_help_of_every_command_teaches(folder: pathlib.Path) -> None:
    """Each has an example or says what its words are."""
    for words in ("connections", "grants", "flows", "list", "forward", "check", "connections add", "flows run"):
        assert "Usage: " in command(folder, *words.split(), "--help").stdout
