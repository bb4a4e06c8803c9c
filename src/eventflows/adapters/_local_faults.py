"""Faults of the embedded broker, for tests: what a real broker does at night, on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, TypeVar

from eventflows.errors import BrokerError, ConnectionFailedError, OutcomeUnknownError
from eventflows.message import Delivery, Message

_T = TypeVar("_T")

Operation = Literal["open", "publish", "receive", "settle", "extend", "peek"]


class FakeClock:
    """Seconds that pass when a test says so.

    Args:
        now: Where it begins.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self._told: list[Callable[[], None]] = []

    def __call__(self) -> float:
        """Give the time."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass; whoever waits looks again."""
        self._now += seconds
        for tell in self._told:
            tell()

    def tell(self, wake: Callable[[], None]) -> None:
        """Have `wake` called whenever time passes."""
        self._told.append(wake)


class Faults:
    """What goes wrong next, in this process. Nothing goes wrong unless asked for, and then it costs nothing."""

    def __init__(self) -> None:
        self._failures: dict[str, list[BrokerError]] = {}
        self._messages: list[tuple[Callable[[Message], bool], BrokerError]] = []
        self._settlements: list[tuple[Callable[[Delivery], bool], BrokerError]] = []
        self._extensions: list[BrokerError] = []
        self._frozen: dict[str, threading.Event] = {}
        self._expire: Callable[[], None] = lambda: None
        self.set = False
        """Whether anything is to go wrong; adapters look at the rest only then."""
        self.epoch = 0
        """Grows with every cut; an adapter that was opened before is cut off."""

    def fail(self, operation: Operation, error: BrokerError, *, times: int = 1) -> None:
        """Let the next calls of an operation raise."""
        self._failures.setdefault(operation, []).extend([error] * times)
        self.set = True

    def fail_message(self, match: Callable[[Message], bool], error: BrokerError, *, times: int = 1) -> None:
        """Let messages that match get this error as their result; the rest of their batch is published."""
        self._messages.extend([(match, error)] * times)
        self.set = True

    def refuse_settlement(self, match: Callable[[Delivery], bool], error: BrokerError, *, times: int = 1) -> None:
        """Let settlements of deliveries that match fail with this error."""
        self._settlements.extend([(match, error)] * times)
        self.set = True

    def refuse_extension(self, error: BrokerError, *, times: int = 1) -> None:
        """Let extensions of leases fail with this error, one delivery each."""
        self._extensions.extend([error] * times)
        self.set = True

    def freeze(self, operation: Operation) -> None:
        """Let calls of an operation block until their time is over, and then have an unknown outcome."""
        self._frozen.setdefault(operation, threading.Event())
        self.set = True

    def thaw(self, operation: Operation) -> None:
        """Let them go on."""
        event = self._frozen.pop(operation, None)
        if event is not None:
            event.set()

    def disconnect(self) -> None:
        """Cut every open adapter off until it is opened again; its leases end."""
        self.epoch += 1
        self._expire()

    def expire_leases(self) -> None:
        """End all leases now."""
        self._expire()

    def on_expire(self, expire: Callable[[], None]) -> None:
        """Say how leases are ended."""
        self._expire = expire

    def meet(self, operation: Operation, timeout: float) -> None:
        """Raise what is to go wrong with this call.

        Raises:
            BrokerError: As asked for by the test.
        """
        frozen = self._frozen.get(operation)
        if frozen is not None and not frozen.wait(timeout):
            raise OutcomeUnknownError(f"the embedded broker did not answer within {timeout:g} s; try again.")
        failures = self._failures.get(operation)
        if failures:
            raise failures.pop(0)

    def cut(self, since: int) -> None:
        """Raise when the adapter that was opened at `since` was cut off.

        Raises:
            ConnectionFailedError: It was; open it again.
        """
        if self.epoch != since:
            raise ConnectionFailedError("the connection to the embedded broker was cut; open it again.")

    def of_message(self, message: Message) -> BrokerError | None:
        """Give the error of one message; None when it is published."""
        return _first(self._messages, message)

    def of_settlement(self, delivery: Delivery) -> BrokerError | None:
        """Give the error of one settlement; None when it is carried out."""
        return _first(self._settlements, delivery)

    def of_extension(self) -> BrokerError | None:
        """Give the error of one extension; None when it is carried out."""
        return self._extensions.pop(0) if self._extensions else None

    def settlements(self) -> bool:
        """Say whether settlements are looked at one by one."""
        return bool(self._settlements)


def _first(rules: list[tuple[Callable[[_T], bool], BrokerError]], thing: _T) -> BrokerError | None:
    for index, (match, error) in enumerate(rules):
        if match(thing):
            del rules[index]
            return error
    return None
