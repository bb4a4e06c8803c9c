"""When a membership commits its positions, and what the answers mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import kafka.errors as native
from kafka.future import Future

from eventflows.adapters._kafka_chunks import Claim, Committed
from eventflows.adapters._kafka_errors import translate
from eventflows.errors import BrokerError, LeaseLostError
from kafka import KafkaConsumer, OffsetAndMetadata

COMMIT_SECONDS: Final = 1.0
COMMIT_MESSAGES: Final = 2000
PROBE_SECONDS: Final = 5.0
"""Without work the position is committed this often: a group's lost permission shows in nothing else."""


def native_offset(committed: Committed) -> OffsetAndMetadata:
    """Give what the client commits."""
    return OffsetAndMetadata(committed.position, committed.metadata, -1)


def settling(error: BaseException | None) -> bool:
    """Say whether a commit failed because the group settles: nothing is lost, the same may be said again."""
    while error is not None and not isinstance(error, native.RebalanceInProgressError):
        inner = error.args[0] if isinstance(error, native.CommitFailedError) and error.args else None
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return error is not None


class Commits:
    """The commits of one membership. Its owner's thread calls it.

    Args:
        consumer: The client.
        claims: By partition, as they are now.
        fence: Ends the claims of partitions.
        where: The source's URL, shown.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        claims: Mapping[Any, Claim],
        fence: Callable[[Iterable[Any]], object],
        where: str,
    ) -> None:
        self._consumer = consumer
        self._claims = claims
        self._fence = fence
        self._where = where
        self._pending: tuple[Future, dict[Claim, Committed]] | None = None
        self._settled = 0
        self._soon = False
        self._at = time.monotonic()

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
            future, said = self._pending
            if not future.is_done:
                return
            self._pending = None
            error = self._answered(future.exception if future.failed() else None, said)
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
            self._pending = (self._consumer.commit_async(_native(said)), said)

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
            self._consumer.commit(_native(said), timeout_ms=max(timeout, 0.05) * 1000)
        except native.KafkaError as error:
            return self._answered(error, said)
        return self._answered(None, said)

    def _answered(self, error: BaseException | None, said: dict[Claim, Committed]) -> BrokerError | None:
        for claim, state in said.items():
            claim.unsure = error is not None
            if error is None:
                claim.committed = state
        if error is None:
            return None
        ours = translate(error, self._where)
        if isinstance(ours, LeaseLostError) and not settling(error):
            self._fence(list(self._claims))
        elif isinstance(ours, LeaseLostError):  # the group is settling: the same may be said again afterwards
            ours = BrokerError(str(ours), retryable=True)
            ours.__cause__ = error
        self._settled += 1
        return ours


def _native(said: dict[Claim, Committed]) -> dict[Any, OffsetAndMetadata]:
    return {claim.partition: native_offset(state) for claim, state in said.items()}
