"""What to do with a failed message: one pure decision."""

from __future__ import annotations

from typing import Final, Literal

import attrs

from eventflows.errors import (
    EncodeError,
    InvalidMessageError,
    Reject,
    Retry,
    TooLargeError,
)
from eventflows.policy import RetryPolicy
from eventflows.protocols import Capabilities

Action = Literal["hold", "redeliver", "native", "copy", "drop", "halt"]

LONGEST_DETAIL: Final = 1024
"""Bytes of an error's text that go with a dead letter."""


@attrs.frozen(kw_only=True)
class Decision:
    """What becomes of a failed message."""

    action: Action
    delay: float = 0.0
    """Seconds until the next attempt, for "hold" and "redeliver"."""
    capped: bool = False
    """Whether the delay is shorter than asked for, because nobody here can wait that long."""
    reason: str = ""
    """Why there is no next attempt."""


def dead_letter_action(dead_letter: str | None, capabilities: Capabilities, guarantee: str = "at-least-once") -> Action:
    """Say where messages go that have no next attempt: the flow's word, else the broker's own place, else halt.

    With at most once the broker has been told already, so that its own place is out of reach.
    """
    if dead_letter is None:
        return "native" if capabilities.dead_letter and guarantee != "at-most-once" else "halt"
    if dead_letter in ("halt", "drop"):
        return "halt" if dead_letter == "halt" else "drop"
    return "copy"


def decide(
    error: BaseException,
    *,
    undecodable: bool,
    attempt: int,
    policy: RetryPolicy,
    capabilities: Capabilities,
    last: Action,
    ordered: bool,
    luck: float,
) -> Decision:
    """Decide what becomes of a message whose attempt failed.

    Args:
        error: Why it failed.
        undecodable: Whether its body never became a value.
        attempt: Which attempt failed; the first is 1.
        policy: The flow's.
        capabilities: The source's.
        last: Where messages go that have no next attempt.
        ordered: Whether others wait behind it, in order.
        luck: Where in the range of the jitter the delay falls, 0 to 1.
    """
    reason = _final(error, undecodable, attempt, policy)
    if reason:
        return Decision(action=last, reason=reason)
    asked = error.delay if isinstance(error, Retry) else None
    delay = policy.wait(attempt, luck) if asked is None else asked
    if delay <= policy.hold:
        return Decision(action="hold", delay=delay)
    longest = capabilities.redeliver_delay
    # Others wait behind it in order: they must be handed back with it, and that must cost them nothing.
    if capabilities.redeliver and longest > policy.hold and (not ordered or capabilities.release == "free"):
        return Decision(action="redeliver", delay=min(delay, longest), capped=delay > longest)
    return Decision(action="hold", delay=policy.hold, capped=True)


def _final(error: BaseException, undecodable: bool, attempt: int, policy: RetryPolicy) -> str:
    if undecodable:
        return "undecodable"
    if isinstance(error, Reject):
        return error.reason or "rejected by apply"
    if isinstance(error, (EncodeError, TooLargeError, InvalidMessageError)):
        return "its output cannot be published"
    return "attempts used up" if attempt >= policy.attempts else ""


def detail_of(error: BaseException) -> str:
    """Give an error's text as it goes with a dead letter: at most 1 KiB of UTF-8."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an error whose text cannot be had is still an error
        text = ""
    return text.encode("utf-8", "replace")[:LONGEST_DETAIL].decode("utf-8", "ignore")
