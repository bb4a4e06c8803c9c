"""When a failed delivery is tried again, and the last words that can be said on one."""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from eventflows.errors import ConfigError
from eventflows.message import Chunk


class Verdict(enum.Enum):
    """The last word on a delivery."""

    ACK = "ack"
    """Done: never again."""
    RETRY = "retry"
    """Not done: again, no sooner than the delay."""
    DEAD_LETTER = "dead_letter"
    """Never again; kept where a person can look."""
    RELEASE = "release"
    """Untouched: hand it back."""


@attrs.frozen(kw_only=True)
class Settlement:
    """One verdict on any number of deliveries."""

    verdict: Verdict
    spans: Sequence[tuple[Chunk, slice]]
    """Which deliveries: stretches of chunks, with step 1, never empty."""
    delay: float = 0.0
    """Seconds before a RETRY may come again."""
    reason: str = ""
    """Why a DEAD_LETTER, in a few words."""
    detail: str = ""
    """More on it; at most 1 KiB."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """What the dead letter carries besides, where the broker keeps it as a message: all `ef-` headers of a copy."""


def _seconds(least: float) -> Any:  # noqa: ANN401 - an attrs validator
    def check(_: object, field: attrs.Attribute[float], value: object) -> None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # The upper bound is where an int no longer fits a float; it refuses infinity and NaN, too.
        if not number or not least <= value <= sys.float_info.max:  # type: ignore[operator]
            raise ConfigError(f"RetryPolicy({field.name}={value!r}): expected a finite number of at least {least:g}.")

    return check


def _attempts(_: object, field: attrs.Attribute[int], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"RetryPolicy({field.name}={value!r}): expected a whole number of at least 1.")


def _share(_: object, field: attrs.Attribute[float], value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ConfigError(f"RetryPolicy({field.name}={value!r}): expected a number from 0 to 1.")


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, and how soon, a failed delivery is tried again; one meaning on every broker.

    Raises:
        ConfigError: A value has the wrong type or is out of range; the text names it.
    """

    attempts: int = attrs.field(default=5, validator=_attempts)
    """Attempts allowed in all, the first one counted. Each crash of a process may cost one too."""
    delay: float = attrs.field(default=1.0, validator=_seconds(0))
    """Seconds before the second attempt."""
    factor: float = attrs.field(default=2.0, validator=_seconds(1))
    """What the delay is multiplied with after each attempt."""
    max_delay: float = attrs.field(default=60.0, validator=_seconds(0))
    """Longest delay, in seconds, before jitter."""
    jitter: float = attrs.field(default=0.2, validator=_share)
    """Share of the delay by which it varies at random, up or down; 0 to 1."""
    hold: float = attrs.field(default=10.0, validator=_seconds(0))
    """Longest delay, in seconds, that is waited in this process; longer ones go to the broker where it can delay."""

    def wait(self, attempt: int, luck: float = 0.5) -> float:
        """Give the seconds between an attempt that failed and the next.

        A pure function: the same arguments give the same answer.

        Args:
            attempt: The attempt that failed; the first is 1.
            luck: Where in the range of the jitter, 0 to 1; 0.5 is the middle, no jitter.
        """
        exponent = max(attempt, 1) - 1
        try:
            raw = self.delay * float(self.factor) ** exponent  # an int would grow without bound
        except OverflowError:
            raw = self.max_delay if self.delay else 0.0
        return min(raw, self.max_delay) * (1 + self.jitter * (2 * luck - 1))
