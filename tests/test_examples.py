"""README, documents and examples run, and print what they say."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: pathlib.Path, kind: str) -> list[str]:
    """Give a document's blocks of one kind."""
    return [text for found, text in BLOCK.findall(document.read_text(encoding="utf-8")) if found == kind]


def run_python(code: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    file = folder / "shown.py"
    file.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", str(file)], capture_output=True, text=True, timeout=60, cwd=folder, check=False
    )


def environment() -> dict[str, str]:
    """Put the command of this environment on the path."""
    return {**os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(example: pathlib.Path) -> None:
    """Every example runs to its end without a warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "python")], ids=lambda path: path.name)
def test_python_blocks_of_a_document_run_in_order(document: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The Python blocks of a document run one after another."""
    done = run_python("\n".join(blocks(document, "python")), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "console")], ids=lambda path: path.name)
def test_commands_of_a_document_run_and_print_what_is_shown(document: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The commands of a document run in order, and print the lines that follow them."""
    for block in blocks(document, "console"):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            if command.startswith("make "):  # what runs this test
                continue
            done = subprocess.run(
                ["bash", "-c", command],
                capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment(), check=False,
            )  # fmt: skip
            assert (done.returncode, done.stdout if shown else "") == (0, shown), done.stderr


def test_readme_first_screen_prints_what_it_shows(tmp_path: pathlib.Path) -> None:
    """The first code of the README prints the lines below it."""
    readme = ROOT / "README.md"
    assert run_python(blocks(readme, "python")[0], tmp_path).stdout == blocks(readme, "output")[0]


def test_readme_first_screen_is_the_first_example() -> None:
    """The code of the README is the example of that name."""
    assert blocks(ROOT / "README.md", "python")[0] == (ROOT / "examples/first_flow.py").read_text(encoding="utf-8")


def test_notebook_runs() -> None:
    """Every cell of the notebook runs, inside its running event loop."""
    code = (
        "import nbclient, nbformat, sys\n"
        f"book = nbformat.read({str(ROOT / 'examples/notebook.ipynb')!r}, as_version=4)\n"
        "nbclient.NotebookClient(book, timeout=60).execute()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_demo_accounts_for_every_message() -> None:
    """The demo prints its table and ends with status 0, which it does when every message is accounted for."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/digits/demo.py")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, "accuracy on held-out images" in done.stdout) == (0, True), done.stdout + done.stderr
