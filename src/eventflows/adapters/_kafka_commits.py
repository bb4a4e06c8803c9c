"""When a membership commits its positions, and what the answers mean."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from eventflows.adapters._kafka_chunks import Claim, Committed
from eventflows.adapters._kafka_clients import Answer, Member, Partition
from eventflows.adapters._kafka_errors import SettlingError
from eventflows.errors import BrokerError, LeaseLostError

COMMIT_SECONDS: Final = 1.0
COMMIT_MESSAGES: Final = 2000
PROBE_SECONDS: Final = 5.0
"""Without work the position is committed this often: a group's lost permission shows in nothing else."""
_log: Final = logging.getLogger("eventflows")


class Commits:
    """The commits of one membership. Its owner's thread calls it.

    Args:
        member: Commits them.
        claims: By partition, as they are now.
        fence: Ends the claims of partitions.
    """

    def __init__(
        self,
        member: Member,
        claims: Mapping[Partition, Claim],
        fence: Callable[[Iterable[Partition]], object],
    ) -> None:
        self._member = member
        self._claims = claims
        self._fence = fence
        self._pending: tuple[Answer, dict[Claim, Committed]] | None = None
        self._settled = 0
        self._soon = False
        self._at = time.monotonic()
        self._failing = False

    @property
    def unsaved(self) -> bool:
        """Whether more is done than the group has committed."""
        return any(claim.mark.position != claim.committed.position for claim in self._claims.values())

    def note(self, count: int) -> None:
        """Count what was settled since the last commit."""
        self._settled += count

    def soon(self) -> None:
        """Commit at the next occasion, now when it can be: claims have begun, and are to be counted."""
        self._soon = True
        if self._pending is None:
            self._send(time.monotonic(), everything=False)

    def service(self, now: float, *, ready: bool) -> None:
        """Look at the last commit's answer, and send the next when it is due.

        Args:
            now: In `time.monotonic()` seconds.
            ready: Whether the group has come to rest.

        Raises:
            BrokerError: The group may not be used any more.
        """
        if self._pending is not None:
            answer, said = self._pending
            if not answer.done:
                return
            self._pending = None
            error = self._answered(answer.error, said)
            if error is not None and not error.retryable and not isinstance(error, LeaseLostError):
                raise error
        late = self._settled and now - self._at >= COMMIT_SECONDS
        due = self._soon or late or self._settled >= COMMIT_MESSAGES
        if ready and (due or now - self._at >= PROBE_SECONDS):
            self._send(now, everything=not due)

    def _send(self, now: float, *, everything: bool) -> None:
        self._at, self._settled, self._soon = now, 0, False
        said = self._states(everything=everything)
        if said:
            self._pending = (self._member.begin_commit(_by_partition(said)), said)

    def _states(self, *, everything: bool = False, last: bool = False) -> dict[Claim, Committed]:
        said = {}
        for claim in self._claims.values():
            with claim.lane.lock:
                state = claim.last if last else claim.state
                if not claim.lane.lost and (everything or state != claim.committed):
                    said[claim] = state
        return said

    def now(self, timeout: float, *, last: bool = False) -> BrokerError | None:
        """Commit, and wait for the answer; gives what went wrong.

        Args:
            timeout: Seconds, at most.
            last: Whether the claims end with this one, and so do not count.
        """
        self._pending = None  # whatever it said, this one says more
        self._settled, self._soon, self._at = 0, False, time.monotonic()
        said = self._states(everything=last, last=last)  # what the last commit did may not be known yet
        if not said:
            return None
        try:
            self._member.commit(_by_partition(said), timeout)
        except BrokerError as error:
            return self._answered(error, said)
        return self._answered(None, said)

    def _answered(self, error: BrokerError | None, said: dict[Claim, Committed]) -> BrokerError | None:
        for claim, state in said.items():
            claim.unsure = error is not None
            if error is None:
                claim.committed = state
        if isinstance(error, LeaseLostError):
            self._fence(list(self._claims))
        if error is not None:
            self._settled += 1
        self._tell(error)
        return error

    def _tell(self, error: BrokerError | None) -> None:
        """Say once that positions cannot be committed; the client itself is silent."""
        failing = error is not None and error.retryable and not isinstance(error, SettlingError)
        if failing and not self._failing:
            _log.warning("%s Positions cannot be committed; it is tried again until it works.", error)
        self._failing = failing

    def moving(self, claims: Iterable[Claim], tell: Callable[[], None]) -> Mapping[Partition, Committed] | None:
        """Give what is to be committed of claims before they move; None: `tell` is called when they may."""
        return {claim.partition: claim.last for claim in claims}


def _by_partition(said: dict[Claim, Committed]) -> dict[Partition, Committed]:
    return {claim.partition: state for claim, state in said.items()}
