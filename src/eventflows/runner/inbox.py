"""What the other threads tell the pump, and how they wake it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from eventflows.runner.outbox import Event
from eventflows.runner.runs import Report


class Inbox:
    """What the other threads tell the pump."""

    def __init__(self) -> None:
        self._events: deque[Report | Event] = deque()
        self._bell = threading.Event()
        self._rung = False
        self.stopping = False
        """Whether the run is to end, soon or at once."""
        self._wake: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        """Say whether something is there, or somebody rang."""
        return self._rung or bool(self._events)

    def post(self, event: Report | Event) -> None:
        """Tell the pump; from any thread."""
        self._events.append(event)
        wake = self._wake
        if wake is not None:
            wake()

    def ring(self) -> None:
        """Let the pump look up from a receive or a wait, or not begin one."""
        self._rung = True
        wake = self._wake
        if wake is not None:
            wake()

    def stop(self) -> None:
        """Ring for the end of the run."""
        self.stopping = True
        self.ring()

    def take(self) -> list[Report | Event]:
        """Give all that is there."""
        self._rung = False
        taken: list[Report | Event] = []
        while self._events:
            taken.append(self._events.popleft())
        return taken

    def listen(self, wake: Callable[[], None] | None) -> None:
        """Say how the pump is woken from what it is about to do; None: it is awake."""
        self._wake = wake

    def wait(self, timeout: float) -> None:
        """Wait until something is there or the bell rings."""
        self._bell.clear()
        self.listen(self._bell.set)
        if not self:
            self._bell.wait(timeout)
        self.listen(None)
