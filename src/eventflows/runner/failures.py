"""What is done with messages that failed: another attempt, a dead letter, or a halt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from eventflows.errors import BrokerError, HaltedError, RunError, WorkerLostError
from eventflows.message import Delivery, Message
from eventflows.observe import Observers
from eventflows.observe.logging import shown
from eventflows.policy import Verdict
from eventflows.protocols import Capabilities
from eventflows.runner.dispatch import Dispatch
from eventflows.runner.held import SENDING, WAITING, Held
from eventflows.runner.outbox import Place
from eventflows.runner.outcome import Decision, dead_letter_action, decide
from eventflows.runner.outputs import cut_down, dead_letter_copy, dead_letter_headers
from eventflows.runner.plan import Plan
from eventflows.runner.result import Tally
from eventflows.runner.runs import Parcel, Unit
from eventflows.runner.settling import Settling

_log: Final = logging.getLogger("eventflows")


class Failures:
    """Carries out what `decide` decides. Only the pump uses it.

    Args:
        plan: The flow.
        capabilities: The source's.
        dispatch: Parks what is tried again.
        settling: Says the last words.
        letters: Publishes dead-letter copies; None when they do not go to a URL.
        observers: Told of retries and dead letters.
        tally: Counts retries.
        halt: Ends the run.
    """

    def __init__(
        self,
        plan: Plan,
        capabilities: Capabilities,
        *,
        dispatch: Dispatch,
        settling: Settling,
        letters: Place | None,
        observers: Observers,
        tally: Tally,
        halt: Callable[[RunError], None],
    ) -> None:
        self._plan = plan
        self._capabilities = capabilities
        self._last = dead_letter_action(plan.dead_letter, capabilities, plan.guarantee)
        self._dispatch = dispatch
        self._settling = settling
        self._letters = letters
        self._observers = observers
        self._tally = tally
        self._halt = halt
        self._copies: dict[tuple[int, int], tuple[str, BaseException]] = {}

    def failed(self, held: Held, index: int, error: BaseException, *, undecodable: bool, unit: Unit) -> None:
        """Decide on a failed attempt, and do it."""
        attempt = held.attempt(index)
        held.failures[index] = held.failures.get(index, 0) + 1
        decision = decide(
            error,
            undecodable=undecodable,
            attempt=attempt,
            policy=self._plan.retry,
            capabilities=self._capabilities,
            last=self._last,
            ordered=unit is not None,
            luck=self._plan.luck(),
        )
        if decision.action in ("hold", "redeliver"):
            self._again(held, index, error, unit, attempt, decision)
        else:
            self._finish(held, index, error, decision.reason)

    def exhausted(self, held: Held, index: int, error: BaseException) -> None:
        """Finish a message whose attempts were used up before it came here."""
        self._finish(held, index, error, "attempts used up")

    def _again(
        self, held: Held, index: int, error: BaseException, unit: Unit, attempt: int, decision: Decision
    ) -> None:
        self._tally.retried += 1
        delivery = held.chunk[index]
        if decision.capped:
            _log.warning(
                "flow %s: %s asked for a longer delay than can be waited for; it comes again in %.3g s.",
                self._plan.name, delivery.position, decision.delay,
            )  # fmt: skip
        self._observers.tell("retried", delivery=delivery, attempt=attempt, delay=decision.delay, error=error)
        if decision.action == "hold":
            self._dispatch.park(
                held, index, unit, self._plan.clock.now() + decision.delay, alone=isinstance(error, WorkerLostError)
            )
            return
        self._settling.say(Verdict.RETRY, [(held, index, index + 1)], delay=decision.delay)
        if unit is not None:
            self._settling.say(Verdict.RELEASE, self._dispatch.pop_unit(unit))

    def _finish(self, held: Held, index: int, error: BaseException, reason: str) -> None:
        delivery = held.chunk[index]
        attempts = self._attempts(held, index)
        span = (held, index, index + 1)
        match self._last:
            case "native":
                why = dead_letter_headers(delivery, flow=self._plan.name, reason=reason, attempts=attempts, error=error)
                self._settling.say(Verdict.DEAD_LETTER, [span], reason=reason, detail=why["ef-error"], headers=why)
                to = "the broker's own place"
            case "drop":
                self._settling.ack(span)
                to = "drop"
            case "copy":
                copy = dead_letter_copy(delivery, flow=self._plan.name, reason=reason, attempts=attempts, error=error)
                self._copies[held.number, index] = (reason, error)
                self._send(held, index, copy)
                return
            case _:
                self._stop_at(held, index, reason, error)
                return
        self._observers.tell("dead_lettered", delivery=delivery, reason=reason, attempts=attempts, error=error, to=to)

    @staticmethod
    def _attempts(held: Held, index: int) -> int:
        return held.chunk[index].attempt - 1 + held.failures.get(index, 0)

    def _send(self, held: Held, index: int, copy: Message) -> None:
        assert self._letters is not None  # noqa: S101 - for the type checker: "copy" has an outbox
        held.state[index] = SENDING
        self._letters.put([Parcel(held, index, index + 1, [copy])])

    def _stop_at(self, held: Held, index: int, reason: str, error: BaseException | None) -> None:
        held.state[index] = WAITING
        position = held.chunk[index].position
        halted = HaltedError(
            f"flow {self._plan.name} halted at {self._plan.source} position {position}: {reason}"
            f" ({shown(error)}). {self._again_or_not()} "
            'Mend apply or the message, or give the flow dead_letter= (a URL, or "drop").',
            position=position,
        )
        halted.__cause__ = error
        self._halt(halted)

    def _again_or_not(self) -> str:
        if self._plan.guarantee == "at-most-once":
            return "It was acknowledged before apply was called, so it does not come again."
        return "The position has not moved: the next start meets the same message."

    def copy_refused(self, held: Held, index: int, copy: Message, error: BrokerError) -> None:
        """Send a smaller copy of a message that its dead-letter place does not take; halt when there is none."""
        smaller = cut_down(copy)
        if smaller is not None:
            self._send(held, index, smaller)
            return
        reason, _ = self._copies.pop((held.number, index), ("", error))
        self._stop_at(held, index, f"{reason}, and its dead-letter place does not take it", error)

    def copied(self, held: Held, index: int) -> None:
        """Note that the dead-letter place has a copy."""
        reason, error = self._copies[held.number, index]
        to = self._plan.dead_letter or ""
        self._observers.tell(
            "dead_lettered",
            delivery=held.chunk[index],
            reason=reason,
            attempts=self._attempts(held, index),
            error=error,
            to=to,
        )

    def forget_copies(self, held: Held, start: int, stop: int) -> int:
        """Count, and forget, the dead-letter copies among settled inputs."""
        if not self._copies:
            return 0
        return sum(self._copies.pop((held.number, index), None) is not None for index in range(start, stop))


def destination_refuses(flow: str, place: str, error: Exception) -> HaltedError:
    """Say that a destination has refused everything for too long."""
    halted = HaltedError(
        f"flow {flow}: {place} refuses everything ({type(error).__name__}: {error}). "
        "No input was acknowledged without its outputs; mend the destination and start again."
    )
    halted.__cause__ = error
    return halted


def last_word_refused(flow: str, delivery: Delivery, error: Exception) -> HaltedError:
    """Say that the source does not take a settlement, and never will."""
    halted = HaltedError(
        f"flow {flow}: {delivery.source} refused the last word on {delivery.position} "
        f"({type(error).__name__}: {error}). The message is not lost: it comes again.",
        position=delivery.position,
    )
    halted.__cause__ = error
    return halted
