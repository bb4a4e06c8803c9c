"""What a command shows while it works: a live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from eventflows.message import Delivery
from eventflows.observe import Observer
from eventflows.policy import Verdict

PER_SECOND: Final = 5
"""Looks of the live line."""
PLAIN_EVERY: Final = 10.0
"""Seconds between two plain lines."""
IDLE_EVERY: Final = 300.0
"""Seconds between two plain lines while nothing happens."""
WINDOW: Final = 5.0
"""Seconds over which a rate is measured."""

_log: Final = logging.getLogger("eventflows")


class Rate:
    """How fast a count grows, over the last few seconds.

    Args:
        clock: Gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: collections.deque[tuple[float, int]] = collections.deque([(clock(), 0)])

    def of(self, count: int) -> float:
        """Note a count, and give how much it grows in a second."""
        now = self._clock()
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] < now - WINDOW:
            self._seen.popleft()
        since, before = self._seen[0]
        return (count - before) / max(now - since, 1e-3)


class News:
    """Whether a plain line has something to say: the counts moved, or nothing was said for some minutes.

    Args:
        counts: Gives what is counted, as it is now.
        clock: Gives seconds.
    """

    def __init__(self, counts: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._counts, self._clock = counts, clock
        self._said, self._when = counts(), clock()

    def due(self) -> bool:
        """Say whether to speak, and take it as done."""
        counts, now = self._counts(), self._clock()
        if counts == self._said and now - self._when < IDLE_EVERY:
            return False
        self._said, self._when = counts, now
        return True


class Counts(Observer):
    """Counts what happened, over all flows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rate = Rate()
        self._acked = self._dead = self._published = self._retried = 0

    def settled(self, *, flow: str, verdict: Verdict, count: int) -> None:
        """Count what is done."""
        with self._lock:
            if verdict is Verdict.ACK:
                self._acked += count
            elif verdict is Verdict.DEAD_LETTER:
                self._dead += count

    def published(self, *, flow: str, destination: str, count: int) -> None:
        """Count what was confirmed."""
        with self._lock:
            self._published += count

    def retried(self, *, flow: str, delivery: Delivery, attempt: int, delay: float, error: BaseException) -> None:
        """Count a retry."""
        with self._lock:
            self._retried += 1

    def counts(self) -> tuple[int, ...]:
        """Give the counts alone."""
        return self._acked, self._published, self._retried, self._dead

    def line(self) -> str:
        """Give the counts and the rate."""
        return (
            f"{self._acked:,} acked, {self._published:,} published, {self._retried:,} retried, "
            f"{self._dead:,} dead-lettered, {self._rate.of(self._acked + self._dead):,.0f} messages/s"
        )


@contextlib.contextmanager
def shown(line: Callable[[], str], counts: Callable[[], object]) -> Iterator[None]:
    """Show a line anew and anew while the block lasts, and the library's log, on standard error.

    Args:
        line: Gives the line as it is now; asked from another thread.
        counts: Gives what is counted, as it is now; while it stays as it is, there are few plain lines.
    """
    with contextlib.ExitStack() as stack:
        # Not asked of rich, to which FORCE_COLOR makes a terminal of a pipe.
        if sys.stderr.isatty() and os.environ.get("TERM") not in (None, "dumb", "unknown"):
            from rich.console import Console
            from rich.live import Live
            from rich.logging import RichHandler
            from rich.spinner import Spinner

            console = Console(stderr=True)
            spinner = Spinner("dots")

            def look() -> Spinner:
                spinner.update(text=line())
                return spinner

            stack.enter_context(_logging(RichHandler(console=console, show_path=False, highlighter=None)))
            stack.enter_context(
                Live(
                    get_renderable=look, console=console, transient=True, refresh_per_second=PER_SECOND,
                    # What `apply` prints goes above the line, unless it goes to a file.
                    redirect_stdout=sys.stdout.isatty(),
                )
            )  # fmt: skip
        else:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            stack.enter_context(_logging(handler))
            news = News(counts)
            stack.enter_context(_ticking(lambda: _log.info("%s", line()) if news.due() else None, PLAIN_EVERY))
        yield


@contextlib.contextmanager
def _logging(handler: logging.Handler) -> Iterator[None]:
    """Show the log through a handler, unless a flow's module has set up its own."""
    former = _log.level
    if _log.level == logging.NOTSET:
        _log.setLevel(logging.INFO)
    if not _log.hasHandlers():
        _log.addHandler(handler)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(former)


@contextlib.contextmanager
def _ticking(look: Callable[[], None], every: float) -> Iterator[None]:
    done = threading.Event()

    def tick() -> None:
        while not done.wait(every):
            look()

    thread = threading.Thread(target=tick, name="eventflows progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
