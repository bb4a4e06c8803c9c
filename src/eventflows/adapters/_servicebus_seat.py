"""A seat: one thread that reads one session after another, and says what it is told on what it has read."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import attrs

from eventflows.adapters._servicebus_held import Held
from eventflows.adapters._servicebus_link import IDLE_SLICE, SLICE
from eventflows.adapters._servicebus_session import ATTACH, FETCH, SEEK, SessionLink
from eventflows.adapters._servicebus_types import Native
from eventflows.errors import BrokerError, ConnectionFailedError, LeaseLostError
from eventflows.message import Lane

GRACE: Final = 3.0  # seconds after its time at which a call of the client counts as one that hangs
UNHEARD: Final = 3.0  # seconds in which nobody asks, after which a session that nothing is held of is let go
PAUSE: Final = 0.5  # seconds between two searches after one that failed


class Table:
    """What the seats of one subscriber share.

    Args:
        idle: Seconds without a message after which a session is let go.
    """

    def __init__(self, idle: float) -> None:
        self.idle = idle
        self.changed = threading.Condition()
        """Held for every change of what is below, and of what is at hand in the seats."""
        self.ended = False
        self.wanted = False
        """Whether the core asks for messages."""
        self.heard = time.monotonic()
        """When the core called last."""
        self.asked = time.monotonic()
        """When it asked for messages last."""
        self.error: BrokerError | None = None
        """Why no session can be had; raised by the next receive."""
        self.silent = False
        """Whether the last search found nothing: then one seat searches, else all that are free."""
        self.seeking = 0

    def may_seek(self) -> bool:
        """Wait a little for leave to search."""
        with self.changed:
            if self.ended or not self.wanted or (self.silent and self.seeking):
                self.changed.wait(IDLE_SLICE)
                return False
            self.seeking += 1
            return True

    def sought(self, found: bool, error: BrokerError | None = None) -> None:
        """Note what a search came to; with `changed` held."""
        self.seeking -= 1
        self.silent = not found
        self.error = error or self.error
        self.changed.notify_all()


@attrs.define(eq=False)
class Claim:
    """One session for as long as it is ours."""

    lane: Lane
    until: float
    """The end of its lock, in `time.monotonic()` seconds."""
    held: Held = attrs.field(factory=Held)
    """Handed out and not settled; changed by the core's thread only."""
    ahead: deque[Native] = attrs.field(factory=deque)
    """At hand and not handed out."""
    quiet: float = attrs.field(factory=time.monotonic)
    """Since when nothing happens."""
    waits: float = attrs.field(factory=time.monotonic)
    """Since when the first of what is at hand waits for leave to be handed out."""


class Seat:
    """One thread, one session at a time.

    Args:
        table: What the seats share.
        link: The receiver; only this thread calls it.
    """

    def __init__(self, table: Table, link: SessionLink) -> None:
        self._table = table
        self._link = link
        self._calls: queue.SimpleQueue[tuple[Future[Any], Callable[[SessionLink], Any]]] = queue.SimpleQueue()
        self._gone = False
        self._seeks = False
        self.claim: Claim | None = None
        self.back_by = float("inf")
        """When the client's call that is out must have come back."""
        self.leaving = threading.Event()
        """Set when it is over, and nothing is left but to say goodbye."""
        self.thread = threading.Thread(target=self._run, name="eventflows-servicebus-session", daemon=True)
        self.thread.start()

    # For the core's thread.

    @property
    def lock_seconds(self) -> float:
        """Length of a session's lock."""
        return self._link.lock_seconds

    def start(self, call: Callable[[SessionLink], Any]) -> Future[Any]:
        """Have something called on this seat's thread."""
        future: Future[Any] = Future()
        self._calls.put((future, call))
        return future

    def abandon(self) -> None:
        """Leave the thread behind: a call of the client hangs in it. Its session is lost."""
        self._gone = True
        with self._table.changed:
            if self._seeks:
                self._seeks = False
                self._table.sought(False, ConnectionFailedError("the client hangs in the search of a session."))
        self._lose()

    # On its own thread.

    @property
    def _over(self) -> bool:
        return self._gone or self._table.ended

    def _run(self) -> None:
        while not self._over:
            if self._table.may_seek():
                self._sit()
        self.leaving.set()
        self._link.close()
        self._refuse_calls()

    def _sit(self) -> None:
        """Search for a session, and read it while it is ours and anything comes."""
        name, error = None, None
        self._seeks = True
        self.back_by = time.monotonic() + SEEK + ATTACH + GRACE
        try:
            name = self._link.seek()
        except BrokerError as why:
            error = why
        except Exception as why:  # noqa: BLE001 - whatever it is, the core is to hear of it
            error = BrokerError(f"searching a session failed: {type(why).__name__}: {why}")
        self.back_by = float("inf")
        with self._table.changed:
            if self._seeks:
                self._seeks = False
                self._table.sought(name is not None, error)
            if error is not None:
                self._table.changed.wait_for(lambda: self._over, PAUSE)
        if name is None:
            return
        with self._table.changed:
            self.claim = claim = Claim(Lane(name), self._link.until)
        with contextlib.suppress(LeaseLostError):
            while not self._over and not claim.lane.lost and not self._done_with(claim):
                self._turn(claim)
        self._lose()
        if self._over:
            self.leaving.set()
        self._link.leave()

    def _done_with(self, claim: Claim) -> bool:
        """Whether to let the session go: nothing is held of it, and nothing comes, or nobody asks."""
        with self._table.changed:
            now = time.monotonic()
            if len(claim.held) or not self._calls.empty():
                claim.quiet = now
                return False
            if claim.ahead:
                return now - self._table.asked > UNHEARD  # others may have room for it
            return now - claim.quiet > self._table.idle

    def _turn(self, claim: Claim) -> None:
        """Do what was asked, else renew what nobody else renews, else fetch."""
        while self._called(0.0):
            pass
        with self._table.changed:
            alone = not len(claim.held)
            heard = time.monotonic() - self._table.heard < UNHEARD
            full = len(claim.ahead) >= FETCH
        if alone and heard and self._link.until - time.monotonic() < self._link.lock_seconds / 2:
            self._keep(claim)
        elif full:
            self._called(SLICE)
        else:
            self._fetch(claim, SLICE if claim.held or claim.ahead else IDLE_SLICE)

    def _called(self, wait: float) -> bool:
        try:
            future, call = self._calls.get(timeout=wait) if wait else self._calls.get_nowait()
        except queue.Empty:
            return False
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call(self._link))
            except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
                future.set_exception(error)
        self.back_by = float("inf")
        return True

    def _keep(self, claim: Claim) -> None:
        self.back_by = time.monotonic() + self._link.lock_seconds + GRACE
        error = self._link.keep(self._link.lock_seconds / 4)
        self.back_by = float("inf")
        claim.until = self._link.until
        if isinstance(error, LeaseLostError) or claim.until <= time.monotonic():
            raise LeaseLostError("the session's lock was lost")

    def _fetch(self, claim: Claim, wait: float) -> None:
        self.back_by = time.monotonic() + wait + GRACE
        try:
            natives = self._link.fetch(wait)
        except BrokerError as error:
            if isinstance(error, LeaseLostError):
                raise
            raise LeaseLostError(str(error)) from error
        finally:
            self.back_by = float("inf")
        if natives:
            with self._table.changed:
                claim.waits = claim.waits if claim.ahead else time.monotonic()
                claim.ahead.extend(natives)
                claim.quiet = time.monotonic()
                self._table.changed.notify_all()

    def _lose(self) -> None:
        """End the claim, if there is one."""
        with self._table.changed:
            claim, self.claim = self.claim, None
            if claim is not None:
                claim.ahead.clear()
                self._table.changed.notify_all()
        if claim is not None:
            with claim.lane.lock:
                claim.lane.lose()
        self._refuse_calls()

    def _refuse_calls(self) -> None:
        """Answer what came too late: the session is no longer ours."""
        with contextlib.suppress(queue.Empty):
            while True:
                future, _ = self._calls.get_nowait()
                if future.set_running_or_notify_cancel():
                    future.set_exception(LeaseLostError("the session is no longer ours"))
