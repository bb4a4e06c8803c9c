"""Time that passes when nothing else is to be done, and the parts of the runner that live in it, without threads."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from eventflows.errors import EventflowsError
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement
from eventflows.protocols import Backlog, ExtendResult, Publisher, SettleFailure, Subscriber
from eventflows.runner.calling import Apply, Caller
from eventflows.runner.clock import Clock
from eventflows.runner.inbox import Inbox
from eventflows.runner.lifecycle import Runner
from eventflows.runner.loop import call_in_loop
from eventflows.runner.outbox import Event, Outbox
from eventflows.runner.outputs import Packer, id_prefix
from eventflows.runner.plan import Plan
from eventflows.runner.runs import Parcel, Report, Run, Worker
from eventflows.runner.staff import loaded
from eventflows.runner.workers import ThreadWorker

STEP: Final = 0.25
"""Share of a receive's time-out after which the source is looked at again: leases and delays end in between."""


class SimulationError(EventflowsError):
    """A simulation has run for longer than allowed in its own time: something in it is repeated without end."""


class Killed(BaseException):
    """The process died: raised through the runner, caught by the simulation."""


class World(Clock):
    """What happens when, in seconds of its own.

    Args:
        limit: Seconds after which it ends with an error.
    """

    def __init__(self, limit: float) -> None:
        self._now = 0.0
        self._limit = limit
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self.spent = 0.0
        """Seconds that calls of `apply` have taken, all together."""
        self.dying = False
        """Whether the process is dead, and its runner is to be unwound."""

    def now(self) -> float:
        """Give the time."""
        return self._now

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Let something happen at a time."""
        heapq.heappush(self._due, (when, next(self._ticket), call))

    def forget(self) -> None:
        """Let nothing of what was to happen happen."""
        self._due.clear()

    def sleep(self, seconds: float) -> None:
        """Let time pass, whatever happens meanwhile."""
        self.pass_time(self._now + seconds, lambda: False)

    def pass_time(self, until: float, enough: Callable[[], bool]) -> None:
        """Let time pass until a moment, or until something has happened that is enough.

        Raises:
            Killed: The process has died meanwhile.
            SimulationError: The limit is passed.
        """
        while not enough():
            self.check()
            if not self._due or self._due[0][0] > until:
                self._now = max(until, self._now)
                return
            when, _, call = heapq.heappop(self._due)
            self._now = max(when, self._now)
            call()
        self.check()

    def check(self) -> None:
        """Raise when the process is dead, or the limit passed.

        Raises:
            Killed: The process has died.
            SimulationError: The limit is passed.
        """
        if self.dying:
            raise Killed
        if self._now > self._limit:
            raise SimulationError(
                f"the simulation did not end within {self._limit:g} s of its own time: something is repeated for ever, "
                "such as publishing what is always refused. Look at its faults, or give it more time with until=."
            )


class WorldInbox(Inbox):
    """An inbox that passes time instead of waiting."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float) -> None:
        """Let time pass until something is there."""
        self._world.pass_time(self._world.now() + timeout, lambda: bool(self))


class WorldSource:
    """A subscriber that passes time instead of waiting.

    Args:
        world: Whose time it is.
        inner: The real one; asked without a time-out.
    """

    def __init__(self, world: World, inner: Subscriber) -> None:
        self._world, self._inner = world, inner
        self.capabilities = inner.capabilities
        self.ready = False
        self._woken = False
        if hasattr(inner, "now"):
            inner.now = world.now

    def open(self, *, timeout: float = 30.0) -> None:
        """Open it."""
        self._inner.open(timeout=timeout)
        self.ready = self._inner.ready

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages, or let time pass until there are some."""
        world = self._world
        world.check()
        deadline = world.now() + timeout
        while True:
            chunks = self._inner.receive(limit, max_bytes=max_bytes, timeout=0.0, skip=skip)
            self.ready = self._inner.ready
            if chunks or self._woken or world.now() >= deadline:
                self._woken = False
                return chunks
            world.pass_time(min(deadline, world.now() + max(timeout * STEP, 0.001)), lambda: self._woken)

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Settle."""
        return self._inner.settle(settlements, durable=durable, timeout=timeout)

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Extend leases."""
        return self._inner.extend(held, seconds, timeout=timeout)

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Flush."""
        return self._inner.flush(timeout=timeout)

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits."""
        return self._inner.backlog(timeout=timeout)

    def wake(self) -> None:
        """Let no more time pass in `receive`."""
        self._woken = True

    def close(self, *, timeout: float = 30.0) -> None:
        """Close it; a dead process closes nothing."""
        if not self._world.dying:
            self._inner.close(timeout=timeout)


class WorldWorker(ThreadWorker):
    """A worker that calls `apply` at once and is busy for as long as that takes in the world's time."""

    def __init__(
        self, world: World, caller: Caller, *, packer: Packer | None, post: Callable[[Report], None], flow: str
    ) -> None:
        self._world, self._tell = world, post
        self._waiting: deque[Run] = deque()
        self._reports: list[Report] = []
        self._busy = False
        super().__init__(caller, packer=packer, post=self._reports.append, flow=flow, name="")

    def start(self) -> None:
        """Use no thread."""

    def join(self, timeout: float) -> None:
        """There is nothing to wait for."""

    def give(self, run: Run) -> None:
        """Work on it now, or when what is before it is done."""
        self.runs.append(run)
        self._waiting.append(run)
        self._next()

    def _next(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        before = self._world.spent
        self.do(self._waiting.popleft())
        seconds = self._world.spent - before
        count = sum(report.count for report in self._reports)
        for report in self._reports:
            report.seconds = seconds * report.count / count if count else 0.0
        self._world.at(self._world.now() + seconds, self._finished)

    def _finished(self) -> None:
        reports, self._reports[:] = list(self._reports), []
        self._busy = False
        for report in reports:
            self._tell(report)
        self._next()


class WorldOutbox(Outbox):
    """An outbox that publishes at once, and again when its pause is over in the world's time."""

    def __init__(
        self, world: World, publisher: Publisher, *, place: str, timeout: float, post: Callable[[Event], None]
    ) -> None:
        self._world = world
        self._planned = False
        super().__init__(publisher, place=place, timeout=timeout, post=post, name="", clock=world)

    def start(self) -> None:
        """Use no thread."""

    def join(self, timeout: float) -> None:
        """There is nothing to wait for."""

    def put(self, parcels: Sequence[Parcel]) -> None:
        """Publish parcels, in their turn."""
        super().put(parcels)
        if not self._planned:
            self._plan(0.0)

    def _plan(self, delay: float) -> None:
        self._planned = True
        self._world.at(self._world.now() + delay, self._work_on)

    def _work_on(self) -> None:
        self._planned = False
        while (self._queue or self._again or self._in_flight) and not self._stopping:
            self._go_on(self._take())
            if self._wait:
                self._plan(self._wait)
                return


class WorldRunner(Runner):
    """The runner, in a world; `run_here` runs it on the caller's thread.

    Args:
        world: Whose time it goes by.
        plan: The flow.
        until_idle: Seconds without anything to do after which it drains.
    """

    def __init__(self, world: World, plan: Plan, *, until_idle: float) -> None:
        super().__init__(plan, until_idle=until_idle)
        self._world = world
        self._inbox: Inbox = WorldInbox(world)

    def run_here(self) -> None:
        """Run to the end; `error` says how it ended."""
        self._main()

    def _workers(self, publisher: Publisher | None) -> Sequence[Worker]:
        plan = self.plan
        packer = None
        if publisher is not None:
            packer = Packer(
                key=plan.key, headers=plan.headers, prefix=id_prefix(plan.source, plan.name, plan.destination)
            )
        call: Callable[..., Any] = loaded(plan)
        apply = Apply(
            call=call_in_loop(call) if plan.is_async else call, decoder=plan.decoder,
            wants_delivery=plan.wants_delivery, batch=plan.batch, timeout=None,
        )  # fmt: skip
        caller = Caller(apply, self._observers)
        return [
            WorldWorker(self._world, caller, packer=packer, post=self._inbox.post, flow=plan.name)
            for _ in range(plan.workers)
        ]

    def _outbox(self, publisher: Publisher | None, place: str | None, what: str) -> Outbox | None:
        if publisher is None:
            return None
        return WorldOutbox(
            self._world, publisher, place=place or "", timeout=self.plan.publish_timeout, post=self._inbox.post
        )
