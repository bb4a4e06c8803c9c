"""Which cases of the runner's suite sit on a broker; the others know nothing of one, and sit on the embedded one."""

from __future__ import annotations

import re
from collections.abc import Callable

STARRED = {1, 4, 6, 8, 14, 15, 21, 31}
"""What every real broker must show."""
ABOUT_ORDER = {13, 19, 22, 37, 39}
ABOUT_BROKERS = {2, 3, 5, 9, 11, 20, 23, 24, 27, 28, 29, 30, 34, 35, 38}
"""Retries, limits, leases, links and dead letters, as the service has them."""


def only(cases: set[int]) -> Callable[[type], type]:
    """Leave a suite's other cases out."""

    def chosen(suite: type) -> type:
        for name in dir(suite):
            case = re.match(r"test_r(\d+)_", name)
            if case and int(case[1]) not in cases:
                setattr(suite, name, None)
        return suite

    return chosen
