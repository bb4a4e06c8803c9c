"""The adapter suite, C01 to C60: what every adapter sits, each case by what the broker claims."""

from __future__ import annotations

import re

from eventflows.testing.adapter_opening import Lives, Refusals
from eventflows.testing.adapter_ownership import Claims, Positions
from eventflows.testing.adapter_publishing import Batches, Contents
from eventflows.testing.adapter_receiving import Groups, Peeking, Receiving
from eventflows.testing.adapter_running import LongWork, Order, Trouble
from eventflows.testing.adapter_settling import Acknowledging, Leases, Verdicts

CASES = range(1, 61)


class AdapterConformance(
    Contents, Batches, Refusals, Lives, Receiving, Groups, Peeking, Acknowledging, Verdicts, Leases,
    Positions, Claims, Order, LongWork, Trouble,
):  # fmt: skip
    """Subclass it, name the harness, and pytest does the rest.

    A capability that is claimed makes its cases mandatory; one that is not claimed makes the
    refusal mandatory. A case is skipped only for want of something in the harness, or where the
    broker has neither the thing nor a way to refuse it, and the skip says which.
    """

    def test_c00_no_case_is_missing(self) -> None:
        """Every case of the table has a method; a subclass that takes one away is found out."""
        names = [name for name in dir(self) if callable(getattr(self, name))]
        found = {int(match[1]) for name in names if (match := re.match(r"test_c(\d+)_", name))}
        assert sorted(set(CASES) - found) == []

    def test_c00_the_harness_allows_skips_of_real_cases_only(self) -> None:
        """What a harness allows to be skipped are numbers of the table."""
        named = {name for name in self.broker.allowed_skips or () if name.startswith("C")}
        assert sorted(named - {f"C{number:02d}" for number in CASES}) == []
