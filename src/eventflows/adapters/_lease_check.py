"""Whether a lease is long enough, for `eventflows check` of brokers that have them."""

from __future__ import annotations

from typing import Final

from eventflows.protocols import Finding

LONGEST_TURN: Final = 30.0
"""Seconds for which the pump may be busy with one settlement, at worst; a lease must outlast twice that."""


def of_lease(seconds: float, lengthen: str) -> Finding:
    """Compare a lease with the pump's longest turn.

    Args:
        seconds: Of the lease.
        lengthen: How to make it longer, as the beginning of a sentence that ends with the seconds.
    """
    if seconds >= 2 * LONGEST_TURN:
        return Finding("ok", f"a lease of {seconds:g} s, renewed at half its time")
    return Finding(
        "warning",
        f"a lease of {seconds:g} s may end during a slow settlement ({LONGEST_TURN:g} s at worst)",
        f"{lengthen}{2 * LONGEST_TURN:g} or more: it is renewed as long as work takes.",
    )
