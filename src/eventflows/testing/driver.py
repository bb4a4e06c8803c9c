"""Sit a suite outside pytest: to test the suite itself, or to try an adapter at the prompt."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal

import attrs
import pytest

from eventflows.testing.cases import Cases


@attrs.frozen
class Outcome:
    """What became of one case."""

    name: str
    """The method, with its parameter where it has one."""
    verdict: Literal["passed", "failed", "skipped"]
    text: str = ""
    """Why it failed or was skipped."""

    @property
    def case(self) -> str:
        """The case's number, as `C05`."""
        return self.name.removeprefix("test_").split("_", 1)[0].upper()


def _calls(suite: type[Cases], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give every call that pytest would make of one method: one for each parameter."""
    marks = [mark for mark in getattr(getattr(suite, name), "pytestmark", []) if mark.name == "parametrize"]
    if not marks:
        yield name, {}
        return
    [mark] = marks
    argument, values = mark.args[:2]
    for value in values:
        yield f"{name}[{value!r}]", {argument: value}


def _sit_one(suite: type[Cases], name: str, shown: str, given: dict[str, Any]) -> Outcome:
    cases = suite()
    method: Callable[..., object] = getattr(cases, name)
    try:
        cases.setup_method(method)
        try:
            method(**given)
        finally:
            cases.teardown_method(method)
    except pytest.skip.Exception as skipped:
        return Outcome(shown, "skipped", str(skipped))
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is, the case failed
        return Outcome(shown, "failed", f"{type(error).__name__}: {error}")
    return Outcome(shown, "passed")


def sit(suite: type[Cases], want: Callable[[str], bool] = lambda _: True) -> list[Outcome]:
    """Run the cases of a suite one after another, without pytest's collection and report.

    Args:
        suite: With its harness.
        want: Says by the method's name which to run; all of them when not given.

    Returns:
        One outcome for each case and parameter, in the order of the names.
    """
    names = sorted(name for name, _ in inspect.getmembers(suite, inspect.isfunction) if name.startswith("test_"))
    return [_sit_one(suite, name, shown, given) for name in names if want(name) for shown, given in _calls(suite, name)]
