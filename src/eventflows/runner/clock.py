"""The time that the runner goes by: of the machine, or of a simulation."""

from __future__ import annotations

import time


class Clock:
    """Monotonic seconds, and waiting for them to pass. A simulation has its own."""

    def now(self) -> float:
        """Give the time, in seconds that never step."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)
