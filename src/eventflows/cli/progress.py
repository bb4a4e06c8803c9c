"""What a run shows: a live line on a terminal, plain log lines in a pipe."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

from eventflows.message import Delivery
from eventflows.observe import Observer
from eventflows.policy import Verdict

EVERY = 0.2
"""Seconds between two looks of the live line."""
PLAIN_EVERY = 10.0
"""Seconds between two plain lines."""


class Counts(Observer):
    """Counts what happened, over all flows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
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

    def line(self) -> str:
        """Give the counts and the rate."""
        rate = (self._acked + self._dead) / max(time.monotonic() - self._began, 1e-6)
        return (
            f"{self._acked:,} acked, {self._published:,} published, {self._retried:,} retried, "
            f"{self._dead:,} dead-lettered, {rate:,.0f} messages/s"
        )


@contextlib.contextmanager
def shown(counts: Counts) -> Iterator[None]:
    """Show the counts while the block lasts, on standard error."""
    logger = logging.getLogger("eventflows")
    logger.setLevel(logging.INFO)
    if not sys.stderr.isatty():
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        with _ticking(lambda: logger.info("%s", counts.line()), PLAIN_EVERY):
            yield
        return
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    logger.addHandler(RichHandler(console=console, show_path=False, markup=False, highlighter=None))
    with console.status(counts.line()) as status, _ticking(lambda: status.update(counts.line()), EVERY):
        yield


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
