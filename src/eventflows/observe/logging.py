"""The observer that writes log lines; every flow has it."""

from __future__ import annotations

import logging
import traceback
import weakref
from collections.abc import Sequence
from typing import Final

from eventflows.errors import CodecError, EventflowsError, Reject
from eventflows.message import Delivery, Lane
from eventflows.observe import Observer

_log: Final = logging.getLogger("eventflows")


def shown(error: BaseException | None) -> str:
    """Describe an error for a log line: its class and place, not its text, which may hold a body."""
    if error is None:
        return "no error"
    if isinstance(error, EventflowsError):
        return f"{type(error).__name__}: {error}" if not isinstance(error, Reject) else "Reject"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def reason_of(error: BaseException | None) -> str:
    """Name an error in a few words, without its text."""
    return str(error.problem) if isinstance(error, CodecError) else type(error).__name__


class LoggingObserver(Observer):
    """Logs what is out of the ordinary to the logger `eventflows`; never a body, never a secret."""

    def __init__(self) -> None:
        self._lost: weakref.WeakSet[Lane] = weakref.WeakSet()

    def retried(self, *, flow: str, delivery: Delivery, attempt: int, delay: float, error: BaseException) -> None:
        """Log at INFO."""
        _log.info(
            "flow %s: %s at %s failed attempt %d (%s); again in %.3g s.",
            flow, delivery.source, delivery.position, attempt, shown(error), delay,
        )  # fmt: skip

    def dead_lettered(
        self,
        *,
        flow: str,
        delivery: Delivery,
        reason: str,
        attempts: int,
        error: BaseException | None,
        to: str,
    ) -> None:
        """Log at WARNING; at ERROR when it is dropped."""
        _log.log(
            logging.ERROR if to == "drop" else logging.WARNING,
            "flow %s: %s at %s %s after attempt %d: %s (%s).",
            flow, delivery.source, delivery.position,
            "dropped" if to == "drop" else f"dead-lettered to {to}", attempts, reason, shown(error),
        )  # fmt: skip

    def discarded(self, *, flow: str, delivery: Delivery, count: int, reason: str) -> None:
        """Log at WARNING; of a lane that was lost only the first, for the others share its fate."""
        lane = delivery.lane
        if lane is None or not lane.lost:
            _log.warning("flow %s: %d outputs of %s not published: %s.", flow, count, delivery.position, reason)
        elif lane not in self._lost:
            self._lost.add(lane)
            _log.warning(
                "flow %s: outputs of %s, and of what follows it in lane %s, not published: %s.",
                flow, delivery.position, lane.name, reason,
            )  # fmt: skip

    def lease_lost(self, *, flow: str, deliveries: Sequence[Delivery]) -> None:
        """Log at WARNING, in one line."""
        first, more = deliveries[0], len(deliveries) - 1
        if more:
            _log.warning(
                "flow %s: the leases of %d messages of %s were lost, that at %s the first; they come again.",
                flow, more + 1, first.source, first.position,
            )  # fmt: skip
        else:
            _log.warning("flow %s: the lease of %s at %s was lost; it comes again.", flow, first.source, first.position)

    def lane_lost(self, *, flow: str, lane: Lane) -> None:
        """Log at INFO."""
        _log.info("flow %s: lane %s was lost; what was held of it comes again.", flow, lane.name)

    def gap(self, *, flow: str, lane: Lane, first: str, last: str) -> None:
        """Log at ERROR."""
        _log.error("flow %s: lane %s: %s to %s are gone from the source, never seen.", flow, lane.name, first, last)

    def reconnecting(self, *, flow: str, place: str, error: BaseException, delay: float) -> None:
        """Log at WARNING."""
        _log.warning("flow %s: %s failed (%s); again in %.3g s.", flow, place, shown(error), delay)

    def halted(self, *, flow: str, position: str | None, reason: str) -> None:
        """Log at ERROR."""
        _log.error("flow %s halts at %s: %s", flow, position or "no position", reason)
