"""The runner suite, R1 to R39: what a flow promises, over any adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from eventflows.testing.runner_executors import Executors
from eventflows.testing.runner_failures import Attempts, Halting, Inputs
from eventflows.testing.runner_outputs import Outputs
from eventflows.testing.runner_work import Ends, Work

LATER: Final[Mapping[int, str]] = {
    26: "is a soak of 1,000,000 messages, a trial of its own",
}
"""Cases that are no method of the suite, and why."""

CASES: Final = range(1, 40)


class RunnerConformance(Outputs, Halting, Attempts, Inputs, Work, Ends, Executors):
    """The promises of the runner, kept over the adapter of the harness."""

    prefix: ClassVar[str] = "r"

    def test_r00_no_case_is_missing(self) -> None:
        """Every case of the table has a method, or is named with the reason."""
        names = [name for name in dir(self) if callable(getattr(self, name))]
        found = {int(match[1]) for name in names if (match := re.match(r"test_r(\d+)_", name))}
        assert sorted(set(CASES) - found - {0}) == sorted(LATER)
