"""README, documents and examples run, and print what they say.

The Python blocks of a document run in order, in one namespace; what they print is the document's `output` blocks. Its
`console` blocks run in order in the same folder, and print the lines that follow each command. A comment
`<!-- file: name -->` before a block puts the block into a file of that name instead; the entry points of such a
`pyproject.toml` count as installed.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from eventflows.testing.platform import ADMIN_KEY, playing_platform

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
HOW_TO = [ROOT / "docs" / "how-to" / f"{name}.md" for name in ("connections-and-grants", "list-event-flows")]
DOCUMENTS = [ROOT / "README.md", DIGITS / "README.md", *sorted((ROOT / "docs").glob("*.md")), *HOW_TO]
BLOCK = re.compile(r"(?:^<!-- file: (\S+) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
PRINTED = {
    "first_flow.py": "tea: 6 paid\ncup: 8 paid\n",
    "publisher_only.py": "{'sensor': 'roof', 'celsius': 20.0}\nroof {\"sensor\":\"roof\",\"celsius\":20.0}\n",
    "retry_and_dead_letter.py": (
        "2 acked, 3 retried, 2 dead-lettered\n"
        '{"number":2} - nobody lives there - attempts: 1\n'
        '{"number":3} - attempts used up - attempts: 3\n'
    ),
    "typed_input.py": "tea 7\ndead letter: $.prices[1]: expected int\n",
}


def blocks(document: pathlib.Path, kind: str) -> list[str]:
    """Give a document's blocks of one kind, those for files excepted."""
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    return [text for file, name, text in found if name == kind and not file]


def prepare(document: pathlib.Path, folder: pathlib.Path) -> None:
    """Put the files that a document needs into a folder."""
    for beside in document.parent.glob("*.py"):
        shutil.copy(beside, folder)
    for file, _, text in BLOCK.findall(document.read_text(encoding="utf-8")):
        if file:
            (folder / file).write_text(text, encoding="utf-8")
        if file == "pyproject.toml":
            install(tomllib.loads(text)["project"], folder)


def install(project: dict[str, Any], folder: pathlib.Path) -> None:
    """Write down what an installer would: which entry points there are."""
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in points.items()))
    ]
    place = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    place.mkdir()
    (place / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (place / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8")


def with_blocks(kind: str) -> pytest.MarkDecorator:
    """Give the documents that have blocks of a kind."""
    documents = [document for document in DOCUMENTS if blocks(document, kind)]
    return pytest.mark.parametrize("document", documents, ids=lambda path: str(path.relative_to(ROOT)))


def run(*words: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment."""
    path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        words, capture_output=True, text=True, timeout=100, cwd=folder, env=environment, check=False
    )  # fmt: skip


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example_prints_what_it_shows(example: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Every example runs to its end without a warning, and prints what is expected."""
    done = run(sys.executable, "-W", "error", str(example), folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, PRINTED[example.name]), done.stderr


@with_blocks("python")
def test_python_of_a_document_prints_what_is_shown(document: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The Python blocks of a document run one after another, and print its output blocks."""
    prepare(document, tmp_path)
    (tmp_path / "shown.py").write_text("\n".join(blocks(document, "python")), encoding="utf-8")
    done = run(sys.executable, "-W", "error", "shown.py", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "".join(blocks(document, "output"))), done.stderr


@with_blocks("console")
def test_commands_of_a_document_print_what_is_shown(document: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The commands of a document run in order, and print the lines that follow them."""
    prepare(document, tmp_path)
    for command, shown in COMMAND.findall("".join(blocks(document, "console"))):
        if command.startswith("make "):  # what runs this test
            continue
        done = run("bash", "-o", "pipefail", "-c", command, folder=tmp_path)
        assert (command, done.returncode, done.stdout if shown else "") == (command, 0, shown), done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_shows_nothing_that_is_not_run(document: pathlib.Path) -> None:
    """A block is Python, commands or output, or a file for those; `text` is for diagrams."""
    found = BLOCK.findall(document.read_text(encoding="utf-8"))
    assert {kind for file, kind, _ in found if not file} <= {"python", "console", "output", "text"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_a_document_lead_somewhere(document: pathlib.Path) -> None:
    """A link to a file of the project finds it."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_readme_first_screen_is_the_first_example() -> None:
    """The first code of the README is the example of that name, in 14 lines."""
    shown = blocks(ROOT / "README.md", "python")[0]
    assert (shown, shown.count("\n")) == ((ROOT / "examples/first_flow.py").read_text(encoding="utf-8"), 14)


@pytest.mark.parametrize("notebook", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebook_runs(notebook: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Every cell of a notebook runs, inside its running event loop."""
    code = (
        "import nbclient, nbformat\n"
        f"book = nbformat.read({str(notebook)!r}, as_version=4)\n"
        "nbclient.NotebookClient(book, timeout=60).execute()\n"
    )
    done = run(sys.executable, "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_demo_accounts_for_every_message(tmp_path: pathlib.Path) -> None:
    """The demo prints its table and ends with status 0, which it does when every message is accounted for."""
    done = run(sys.executable, str(DIGITS / "demo.py"), folder=tmp_path)
    assert (done.returncode, "accuracy on held-out images" in done.stdout) == (0, True), done.stdout + done.stderr


def test_demo_shows_dead_letters_with_their_reasons(tmp_path: pathlib.Path) -> None:
    """A broken body, a body of another type and an image that the model refuses are each named."""
    shown = run(sys.executable, str(DIGITS / "demo.py"), folder=tmp_path).stdout
    reasons = ("undecodable: $: not JSON", "undecodable: $.number: expected int", "a blank image shows no digit")
    assert [reason for reason in reasons if reason not in shown] == []


def test_demo_has_a_progress_bar_on_a_terminal() -> None:
    """A bar for each flow, full at the end."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(DIGITS / "demo.py")],
        stdin=follower, stdout=follower, stderr=follower, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while b"accuracy on held-out images" not in shown:
            shown += os.read(leader, 65536)
    finally:
        os.close(leader)
        process.wait(timeout=60)
    assert re.search(rb"classify .*?(\d+)/\1 ", re.sub(rb"\x1b\[[0-9;?]*\w", b"", shown))


def test_readme_table_says_what_the_adapters_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of brokers is made from the capabilities: `python docs/brokers.py` writes it."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    brokers = importlib.import_module("brokers")
    assert brokers.README.read_text(encoding="utf-8") == brokers.written()


def test_readme_lines_for_the_platform_run(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a played platform, with the keys from the environment as they say."""
    prepare(ROOT / "README.md", tmp_path)
    with playing_platform("ann") as platform:
        monkeypatch.setenv("ALGORITHMIA_API", platform.url)
        monkeypatch.setenv("ALGORITHMIA_API_KEY", platform.key_of("ann"))
        monkeypatch.setenv("ALGORITHMIA_ADMIN_API_KEY", ADMIN_KEY)
        done = run(sys.executable, "-W", "error", "platform_flows.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
