"""Names of flows that lead into somebody's own trouble: one line and status 2, never a traceback."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

FLOW = """
import eventflows

@eventflows.subscriber("local://in?file=flows.db")
def apply(input): ...
"""
PROPERTY = """
class A:
    @property
    def b(self):
        raise ValueError("SECRET-BODY")

a = A()
"""
GETATTR = """
def __getattr__(name):
    raise LookupError("SECRET-BODY")
"""


def run(folder: pathlib.Path, *words: str) -> tuple[int, list[str]]:
    """Run the command as it is installed, without the folder on Python's path; give its status and its lines."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "eventflows", *words],
        cwd=folder, capture_output=True, timeout=60, check=False, text=True,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.mark.parametrize(
    ("source", "attribute", "said"),
    [(PROPERTY, "a.b", "ValueError at place.py:5"), (GETATTR, "flow", "LookupError at place.py:3")],
    ids=["property", "module"],
)
def test_attribute_that_raises_is_one_line(tmp_path: pathlib.Path, source: str, attribute: str, said: str) -> None:
    """It says which, what and where, and nothing of the error's own text."""
    (tmp_path / "place.py").write_text(source, encoding="utf-8")
    status, [line] = run(tmp_path, "run", f"place:{attribute}")
    assert (status, said in line, "SECRET-BODY" in line) == (2, True, False), line


@pytest.mark.parametrize("name", ["json:apply", "json.py:apply", "colorsys.py:apply", "json.tool:apply"])
@pytest.mark.parametrize("command", ["run", "preview"])
def test_flow_is_refused_when_its_file_is_named_like_one_of_pythons(
    tmp_path: pathlib.Path, command: str, name: str
) -> None:
    """Every library would meet it where it wants Python's own."""
    for file in ("json.py", "colorsys.py"):
        (tmp_path / file).write_text(FLOW, encoding="utf-8")
    status, [line] = run(tmp_path, command, name)
    assert (status, "rename the file" in line) == (2, True), line


@pytest.mark.parametrize("name", ["scorer:apply", "scorer.py:apply"])
def test_run_works_when_another_file_is_named_like_one_of_pythons(tmp_path: pathlib.Path, name: str) -> None:
    """The library has its own imports done before the folder can stand in their way."""
    (tmp_path / "json.py").write_text("raise RuntimeError('this is not it')", encoding="utf-8")
    (tmp_path / "scorer.py").write_text(FLOW, encoding="utf-8")
    run(tmp_path, "send", "local://in?file=flows.db", "--key", "k", "scorer.py")
    status, lines = run(tmp_path, "run", name, "--until-idle", "0.1")
    assert (status, [line for line in lines if "Traceback" in line]) == (0, []), lines


def test_mistake_in_an_option_names_the_commands_own_help(tmp_path: pathlib.Path) -> None:
    """Where the option is explained."""
    status, [line] = run(tmp_path, "send", "local://in?file=flows.db", "--key")
    assert (status, line.endswith("See: eventflows send --help")) == (2, True), line
