"""From start to end: open, check, load, pump, drain, close; and several flows as one."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

from eventflows.errors import (
    BrokerError,
    CapabilityError,
    DrainTimeoutError,
    EventflowsError,
    RunError,
)
from eventflows.observe import Observers
from eventflows.observe.logging import LoggingObserver
from eventflows.protocols import Capabilities, Publisher, Subscriber, TransactionalSource
from eventflows.runner.calling import spare_the_loaded
from eventflows.runner.inbox import Inbox
from eventflows.runner.outbox import Outbox, Place
from eventflows.runner.outcome import dead_letter_action
from eventflows.runner.outputs import Packer, id_prefix
from eventflows.runner.plan import Plan
from eventflows.runner.pump import Pump
from eventflows.runner.result import RunResult, Tally
from eventflows.runner.runs import Worker
from eventflows.runner.staff import start_workers
from eventflows.runner.transactions import Letters, Transactions

CLOSE_SECONDS: Final = 10.0
LATE_SECONDS: Final = 1.0  # of a publisher when the drain took too long: it waited for just that destination
LOOK_FOR_SIGNALS: Final = 0.25
_RANK: Final = {"none": 0, "key": 1, "lane": 2}
_log: Final = logging.getLogger("eventflows")


def check(plan: Plan, source: Capabilities, destination: Capabilities | None) -> None:
    """Refuse what the brokers cannot do.

    Raises:
        CapabilityError: The text says which, and what to write instead.
    """
    if plan.order is not None and _RANK[plan.order] > _RANK[source.ordering]:
        raise CapabilityError(
            f'flow {plan.name}: order="{plan.order}" asks more than {plan.source} keeps '
            f'(ordering: {source.ordering}). Leave order= out, or choose order="{source.ordering}".'
        )
    if plan.guarantee == "exactly-once":
        able = source.transactions and destination is not None and destination.transactions
        if not able:
            raise CapabilityError(
                f'flow {plan.name}: guarantee="exactly-once" needs a source and a destination that share transactions, '
                f"and {plan.source if not source.transactions else plan.destination or 'a missing destination'} has "
                "none. Leave it out: output ids are deterministic, so what reads them can drop repeats."
            )
    keyless = plan.key is None and source.ordering == "none"
    if destination is not None and destination.needs_key and keyless:
        raise CapabilityError(
            f"flow {plan.name}: {plan.destination} needs a key for every message, and neither key= nor the source "
            "gives one. Add key= to @publisher."
        )


class Runner:
    """Runs one plan once, on a thread of its own.

    Args:
        plan: The flow.
        limit: Inputs to settle finally, at most; None: no limit.
        until_idle: Seconds without anything to do after which it drains; None: never.
        done: Set when it has ended.
        exiting: The process ends after this: what is loaded is there to its end, and is spared the garbage collector.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        limit: int | None = None,
        until_idle: float | None = None,
        done: threading.Event | None = None,
        exiting: bool = False,
    ) -> None:
        self.plan = plan
        self._exiting = exiting
        self._limit = limit
        self._until_idle = until_idle
        self._done = done or threading.Event()
        self._tally = Tally()
        self._inbox = Inbox()
        self._observers = Observers(plan.name, [LoggingObserver(), *plan.observers])
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._ready = threading.Event()
        self.ended = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name=f"eventflows {plan.name}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Drain: take no more, finish what runs, settle, hand back the rest, close. From any thread."""
        self._stop.set()
        self._inbox.stop()

    def hurry(self) -> None:
        """Do not wait for what runs."""
        self._hurry.set()
        self.stop()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until it receives, or has ended."""
        return self._ready.wait(timeout)

    def result(self) -> RunResult:
        """Give the numbers so far."""
        return self._tally.result()

    def _main(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                self._run(stack)
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the end
            self.error = self.error or error
        if isinstance(self.error, RunError):
            self.error.result = self._tally.result()
        self.ended = True
        self._ready.set()
        self._done.set()

    def _run(self, stack: contextlib.ExitStack) -> None:
        plan = self.plan
        subscriber = plan.subscriber()
        subscriber.open()
        stack.callback(self._close_subscriber, subscriber)
        publisher = self._open(plan.publisher, stack)
        letters = self._open(plan.dead_letter_publisher, stack)
        check(plan, subscriber.capabilities, publisher.capabilities if publisher else None)
        self._warn(subscriber.capabilities)
        outbox, dead = self._boxes(subscriber, publisher, letters)
        workers = self._workers(publisher)
        stack.callback(self._end_workers, workers)
        pump = Pump(
            plan,
            subscriber,
            workers,
            outbox=outbox,
            letters=dead,
            observers=self._observers,
            tally=self._tally,
            inbox=self._inbox,
            limit=self._limit,
            until_idle=self._until_idle,
        )
        if self._exiting:
            spare_the_loaded()
        try:
            self._pump(pump, subscriber)
        finally:
            for box in filter(None, (outbox, dead)):
                box.stop(abandon=True)
            for box in filter(None, (outbox, dead)):
                box.join(1.0)

    def _warn(self, capabilities: Capabilities) -> None:
        """Say what will surprise someone later."""
        plan = self.plan
        action = dead_letter_action(plan.dead_letter, capabilities, plan.guarantee)
        if action == "halt" and plan.dead_letter is None:
            _log.warning(
                "flow %s: dead letters of %s have no place, so a message that cannot be handled halts the flow; "
                "give it dead_letter= to go on.", plan.name, plan.source,
            )  # fmt: skip
        most = capabilities.max_deliveries
        if most is not None and plan.retry.attempts > most:
            _log.warning(
                "flow %s: %s puts a message with its dead letters after %d deliveries, before its %d attempts are "
                "used up when they are spread over several processes; allow more there, or fewer here.",
                plan.name, plan.source, most, plan.retry.attempts,
            )  # fmt: skip

    def _pump(self, pump: Pump, subscriber: Subscriber) -> None:
        deadline: float | None = None
        while not pump.ended:
            if self._stop.is_set():
                pump.draining = True
            begins = pump.draining and deadline is None
            if begins:
                deadline = self.plan.clock.now() + self.plan.drain_timeout
            if deadline is not None and (self._hurry.is_set() or self.plan.clock.now() >= deadline):
                self.error = pump.error or DrainTimeoutError(
                    f"flow {self.plan.name}: work was still going on after "
                    f"{'a second signal' if self._hurry.is_set() else f'{self.plan.drain_timeout:g} s'}; "
                    "its messages were handed back and come again."
                )
                break
            pump.turn()
            if begins and self._stop.is_set() and not pump.ended:
                _log.info(
                    "flow %s drains: what runs may end, within %g s; a second signal skips the wait.",
                    self.plan.name, self.plan.drain_timeout,
                )  # fmt: skip
            if subscriber.ready:
                self._ready.set()
        self.error = self.error or pump.error
        try:
            pump.give_up()
        except BrokerError as error:
            self.error = self.error or error

    def _workers(self, publisher: Publisher | None) -> Sequence[Worker]:
        plan = self.plan
        packer = None
        if publisher is not None:
            prefix = id_prefix(plan.source, plan.name, plan.destination)
            packer = Packer(key=plan.key, headers=plan.headers, prefix=prefix)
        return start_workers(plan, packer, self._observers, self._inbox.post, self._stop.is_set)

    def _end_workers(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.stop()
        if self.error is not None:
            for worker in workers:
                worker.kill()
        for worker in workers:
            worker.join(0.2 if self.error is None else 0.0)

    def _open(self, make: object, stack: contextlib.ExitStack) -> Publisher | None:
        if make is None:
            return None
        publisher: Publisher = make()  # type: ignore[operator]
        publisher.open()
        stack.callback(self._close_publisher, publisher)
        return publisher

    def _boxes(
        self, subscriber: Subscriber, publisher: Publisher | None, letters: Publisher | None
    ) -> tuple[Place | None, Place | None]:
        """Say where outputs and dead-letter copies go: each its own way, or together with the position."""
        plan = self.plan
        if plan.guarantee != "exactly-once" or publisher is None:
            return self._outbox(publisher, plan.destination, "outputs"), self._outbox(
                letters, plan.dead_letter, "dead letters"
            )
        assert isinstance(subscriber, TransactionalSource)  # noqa: S101 - for the type checker: `check` has looked
        subscriber.share_transactions([publisher] if letters is None else [publisher, letters])
        box = Transactions(
            publisher,
            place=plan.destination or "",
            timeout=plan.publish_timeout,
            post=self._inbox.post,
            ring=self._inbox.ring,
            name=f"eventflows {plan.name} transactions",
            clock=plan.clock,
        )
        if letters is not None:
            box.letters = Letters(box, letters, plan.dead_letter or "")
        return box, box.letters

    def _outbox(self, publisher: Publisher | None, place: str | None, what: str) -> Outbox | None:
        if publisher is None:
            return None
        return Outbox(
            publisher,
            place=place or "",
            timeout=self.plan.publish_timeout,
            post=self._inbox.post,
            name=f"eventflows {self.plan.name} {what}",
            clock=self.plan.clock,
        )

    def _close_subscriber(self, subscriber: Subscriber) -> None:
        try:
            subscriber.close(timeout=CLOSE_SECONDS)
        except EventflowsError as error:
            self.error = self.error or error

    def _close_publisher(self, publisher: Publisher) -> None:
        late = isinstance(self.error, DrainTimeoutError)
        try:
            publisher.close(timeout=LATE_SECONDS if late else CLOSE_SECONDS)
        except EventflowsError as error:
            self.error = self.error or error


@contextlib.contextmanager
def _signals(runners: Sequence[Runner], wanted: bool, exiting: bool) -> Iterator[None]:
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        seen.append(number)
        for runner in runners:
            if len(seen) == 1:
                runner.stop()
            else:
                runner.hurry()

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            # One signal too many would replace the exit status; the interpreter's end resets all handlers but SIG_IGN.
            after = signal.SIG_IGN if exiting and seen else handler
            signal.signal(number, after if after is not None else signal.SIG_DFL)


def supervise(runners: Sequence[Runner], done: threading.Event, *, signals: bool, exiting: bool) -> None:
    """Start runners and wait for the end of all; an interruption drains them before it goes on."""
    with _signals(runners, signals, exiting):
        for runner in runners:
            runner.start()
        try:
            _wait(runners, done)
        except BaseException:
            for runner in runners:
                runner.stop()
            _wait(runners, done)
            raise


def _wait(runners: Sequence[Runner], done: threading.Event) -> None:
    while not all(runner.ended for runner in runners):
        # A signal that comes just before a wait blocks does not interrupt it; its handler runs when the wait ends.
        done.wait(LOOK_FOR_SIGNALS)
        done.clear()
        if any(runner.ended and runner.error is not None for runner in runners):
            for runner in runners:
                runner.stop()
