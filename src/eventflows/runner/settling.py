"""What is to be settled: gathered over a turn, said to the broker in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from eventflows.errors import BrokerError, LeaseLostError
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import SettleFailure, Subscriber
from eventflows.runner.held import GONE, SETTLING, Held, Span, join

_Said = tuple[Settlement, list[Span]]
"""A verdict without its spans, and what it is on."""
_ACK: Final = Settlement(verdict=Verdict.ACK, spans=())


class Settling:
    """Gathers verdicts in order and says them in batches. Only the pump uses it.

    Args:
        gone: Told of each stretch that left our hands, with its verdict.
        lost: Told of each delivery that the broker had taken back.
        failed: Told of each delivery that could not be settled for good.
    """

    def __init__(
        self,
        *,
        gone: Callable[[Verdict, Span], None],
        lost: Callable[[Held, int], None],
        failed: Callable[[Held, int, BrokerError], None],
    ) -> None:
        self._gone = gone
        self._lost = lost
        self._failed = failed
        self._acks: list[Span] = []
        self._others: list[_Said] = []

    def __len__(self) -> int:
        """Count what waits to be said."""
        return len(self._acks) + len(self._others)

    def ack(self, span: Span) -> None:
        """Say that a stretch is done."""
        for held, start, stop in ours(span):
            if held.acked:
                self._gone(Verdict.ACK, (held, start, stop))
                continue
            held.mark(start, stop, SETTLING)
            join(self._acks, held, start, stop)

    def confirmed(self, span: Span) -> None:
        """Say that a stretch is done, its outputs and copies being where they belong."""
        self.ack(span)

    def say(
        self,
        verdict: Verdict,
        spans: list[Span],
        *,
        delay: float = 0.0,
        reason: str = "",
        detail: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say another verdict; those said first are carried out first."""
        said = [part for span in spans for part in ours(span)]
        for held, start, stop in said:
            held.mark(start, stop, SETTLING)
        if said:
            word = Settlement(
                verdict=verdict, spans=(), delay=delay, reason=reason, detail=detail, headers=headers or {}
            )
            self._others.append((word, said))

    def forget(self) -> None:
        """Forget all of it: the broker has taken everything back."""
        self._acks, self._others = [], []

    def settle(self, subscriber: Subscriber, *, durable: bool = False) -> None:
        """Say all of it.

        Raises:
            BrokerError: Nothing was attempted; all of it waits to be said again.
        """
        if not self._acks and not self._others:
            return
        said = self._gather()
        if not said:
            return
        settlements = [
            attrs.evolve(word, spans=[(held.chunk, slice(start, stop)) for held, start, stop in spans])
            for word, spans in said
        ]
        try:
            failures = subscriber.settle(settlements, durable=durable)
        except BrokerError:
            self._others = said + self._others
            raise
        if failures:
            said = self._without(said, failures)
        for word, spans in said:
            for span in spans:
                self._gone(word.verdict, span)

    def _gather(self) -> list[_Said]:
        said = self._others
        if self._acks:
            said = [(_ACK, self._acks), *said]
        self._acks, self._others = [], []
        alive = []
        for word, spans in said:
            kept = [part for span in spans for part in ours(span)]
            if kept:
                alive.append((word, kept))
        return alive

    def _without(self, said: list[_Said], failures: Sequence[SettleFailure]) -> list[_Said]:
        where = {
            id(held.chunk[index]): (held, index, what)
            for what in said
            for held, start, stop in what[1]
            for index in range(start, stop)
        }
        bad: set[tuple[Held, int]] = set()
        for failure in failures:
            held, index, what = where[id(failure.delivery)]
            bad.add((held, index))
            if isinstance(failure.error, LeaseLostError):
                self._lost(held, index)
            elif failure.error.retryable:
                self._others.append((what[0], [(held, index, index + 1)]))
            else:
                self._failed(held, index, failure.error)
        kept = []
        for word, spans in said:
            good: list[Span] = []
            for held, start, stop in spans:
                for index in range(start, stop):
                    if (held, index) not in bad:
                        join(good, held, index, index + 1)
            kept.append((word, good))
        return kept


def ours(span: Span) -> list[Span]:
    """Give what of a stretch is not settled and not lost."""
    held, start, stop = span
    if not held.lost and GONE not in held.state[start:stop]:
        return [span]
    parts: list[Span] = []
    if not held.lost:
        for index in range(start, stop):
            if held.state[index] != GONE:
                join(parts, held, index, index + 1)
    return parts
