"""What librdkafka answers for each record of a call, and the callbacks that take it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, Final, Protocol

from eventflows.errors import BrokerError
from eventflows.protocols import PublishResult

SLICE: Final = 0.05
"""Seconds of one wait for answers; another thread may get them meanwhile."""
SPARE: Final = 8
"""Sets of callbacks that are kept to be used again."""
BITS: Final = 31
PARTITION: Final = 2**BITS - 1
"""Where a message is, as one number: its offset, then so many bits of its partition."""

_RESULT: Final = partial(tuple.__new__, PublishResult)
"""Makes a result of a pair, in half the time of the class."""

Teller = Callable[[Any, Any], None]
"""Called with the client's error, or None, and its message."""


class Asked(Protocol):
    """A producer, as those see it who wait for its answers."""

    def serve(self, timeout: float) -> None:
        """Let answers come."""

    def late(self) -> BrokerError:
        """Say why there is none."""

    def refused(self, error: Any, size: int, *, alone: bool) -> BrokerError:  # noqa: ANN401 - a KafkaError
        """Say why a message of so many bytes was not published."""


class Tellers:
    """A callback for each place of a call, used again and again.

    New ones for each call would be looked at whenever memory is cleared, and cost more than what they do.
    """

    __slots__ = ("answers", "each")

    def __init__(self) -> None:
        self.answers: list[Any] = []
        """None: not there yet."""
        self.each: list[Teller] = []

    def begin(self, count: int) -> None:
        """Be ready for so many answers."""
        self.answers = [None] * count
        self.each += [_teller(self, index) for index in range(len(self.each), count)]


def _teller(tellers: Tellers, index: int) -> Teller:
    def told(error: Any, message: Any) -> None:  # noqa: ANN401 - the client's own
        # One number: thousands of anything larger on their way would be looked at whenever memory is cleared.
        tellers.answers[index] = (
            message.offset() << BITS | message.partition() if error is None else (error, len(message))
        )

    return told


def _id(answer: int) -> str:
    return f"{answer & PARTITION}:{answer >> BITS}"


class Sent:
    """Records on their way, one answer for each: None, where it is, the client's error, or an error of ours.

    Args:
        producer: Asked for answers.
        tellers: Ready; given to `spare` when every answer is there.
        spare: Takes tellers that nobody will call any more.
        alone: Whether each record goes in a batch of its own.
    """

    def __init__(self, producer: Asked, tellers: Tellers, spare: list[Tellers], *, alone: bool) -> None:
        self._producer = producer
        self._owned = [tellers]
        self._done = False
        self._answers = tellers.answers
        self._first = 0
        """Below it, every answer is there."""
        self._spare = spare
        self._alone = alone

    def fault(self, index: int, error: BrokerError) -> None:
        """Note that one cannot be sent; called by who sends them."""
        self._answers[index] = error

    def _waits(self) -> bool:
        """Say whether an answer is still to come; the callbacks are given back as soon as none is."""
        if self._done:
            return False
        with contextlib.suppress(ValueError):
            self._first = self._answers.index(None, self._first)
            return True
        self._done = True
        with contextlib.suppress(IndexError):  # another thread was quicker
            self._spare.append(self._owned.pop())
        del self._spare[SPARE:]
        return False

    @property
    def done(self) -> bool:
        """Whether every answer is there."""
        if self._waits():
            self._producer.serve(0.0)
        return not self._waits()

    def confirmed(self, timeout: float) -> bool:
        """Wait for the answers, and say whether the broker has every message."""
        deadline = time.monotonic() + timeout
        while self._waits() and (left := deadline - time.monotonic()) > 0:
            self._producer.serve(min(left, SLICE))
        return not self._waits() and set(map(type, self._answers)) <= {int}

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the broker's answers."""
        if self.confirmed(timeout):
            return list(map(_RESULT, zip(map(_id, self._answers), repeat(None), strict=False)))
        return [
            PublishResult(_id(answer)) if isinstance(answer, int) else PublishResult(None, self._error(answer))
            for answer in self._answers
        ]

    def _error(self, answer: Any) -> BrokerError:  # noqa: ANN401 - the client's own
        if answer is None:
            return self._producer.late()
        return answer if isinstance(answer, BrokerError) else self._producer.refused(*answer, alone=self._alone)
