"""Each promise of docs/guarantees.md names tests, and they exist."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

from eventflows.testing import AdapterConformance, RunnerConformance

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
NAME = re.compile(r"`((?:tests/[^\s`]+::)?test_\w+)`")
NAMED = sorted(set(NAME.findall(PAGE)))
PROMISES = re.findall(r"^\*\*.*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
CASES = dict(re.findall(r"^\| R(\d+) \|.*\| (.*) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("name", NAMED)
def test_named_test_exists(name: str) -> None:
    """It is a case of a suite, or a function of the file that is named with it."""
    file, _, function = name.rpartition("::")
    if file:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        assert function in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    else:
        assert hasattr(RunnerConformance, function) or hasattr(AdapterConformance, function)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda text: text[2:30])
def test_promise_names_a_test(promise: str) -> None:
    """What nobody has shown is no promise."""
    assert NAME.search(promise)


def test_there_are_nine_promises() -> None:
    """As many as the design has."""
    assert len(PROMISES) == 9


@pytest.mark.parametrize("case", range(1, 40))
def test_case_of_the_runner_is_named_with_its_tests(case: int) -> None:
    """Every case has a row, and the row has every test of that case."""
    of_the_suite = {name for name in dir(RunnerConformance) if name.startswith(f"test_r{case:02}_")}
    assert of_the_suite <= set(re.findall(r"test_\w+", CASES[str(case)]))
    assert "test_" in CASES[str(case)]
