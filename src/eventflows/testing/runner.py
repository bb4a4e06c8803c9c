"""The runner suite, R1 to R39, as far as this version goes: what a flow promises, over any adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Final

from eventflows.testing.runner_failures import Attempts, Halting, Inputs
from eventflows.testing.runner_outputs import Outputs
from eventflows.testing.runner_processes import Processes
from eventflows.testing.runner_work import Ends, Work

LATER: Final[Mapping[int, str]] = {
    17: "needs the process executor",
    18: "needs batches",
    26: "is a soak of 1,000,000 messages, run by the simulator",
    27: "needs the bounds that adapters of real brokers declare",
    28: "needs a network that can be dropped",
    31: "needs exactly-once",
    33: "needs the process executor",
    36: "needs at-most-once",
    37: "needs batches",
}
"""Cases of a later version, and what they wait for."""

CASES: Final = range(1, 40)


class RunnerConformance(Outputs, Halting, Attempts, Inputs, Work, Ends, Processes):
    """The promises of the runner, kept over the adapter of the harness."""

    prefix: ClassVar[str] = "r"

    def test_r00_no_case_is_missing(self) -> None:
        """Every case of the table has a method, or is named as one of a later version."""
        names = [name for name in dir(self) if callable(getattr(self, name))]
        found = {int(match[1]) for name in names if (match := re.match(r"test_r(\d+)_", name))}
        assert sorted(set(CASES) - found - {0}) == sorted(LATER)
