"""`Flow`: an `apply` with a source, a destination or both; and `run` for several of them."""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, cast

import attrs

from eventflows.binding import Destination, Source, check_bounds, check_load
from eventflows.codec import decoder
from eventflows.errors import CapabilityError, ConfigError, DecodeError
from eventflows.granted import allow
from eventflows.locate import open_publisher, open_subscriber
from eventflows.message import Delivery
from eventflows.observe import Observer
from eventflows.outlet import Outlet
from eventflows.protocols import Browsable
from eventflows.runner import Plan, Runner, RunResult
from eventflows.runner.lifecycle import supervise
from eventflows.runner.loop import call_in_loop
from eventflows.runner.reference import reference_to
from eventflows.shown import Description, Preview, PreviewRow
from eventflows.signature import (
    check_function,
    is_coroutine,
    name_of,
    resolve,
)

P = ParamSpec("P")
R = TypeVar("R")

PREVIEW_TIMEOUT = 10.0


class Flow(Generic[P, R]):
    """An `apply` with a source, a destination or both. Made by the decorators.

    Called, one with a source is the plain function; one with only a destination computes,
    publishes the return value, waits for the broker's confirmation and returns the value.
    """

    def __init__(self, function: Callable[P, R], source: Source | None, destination: Destination | None) -> None:
        self.__wrapped__ = function
        self.__signature__ = inspect.signature(function)
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__module__ = getattr(function, "__module__", None) or "__main__"
        self.__doc__ = function.__doc__
        self._source = source
        self._destination = destination
        self._lock = threading.Lock()
        self._state: list[object] = []
        self._state_of: int | None = None
        alone = destination is not None and source is None
        self._outlet = Outlet(destination, name_of(function)) if alone and destination is not None else None
        self._runners: weakref.WeakSet[Runner] = weakref.WeakSet()

    @property
    def __annotations__(self) -> dict[str, Any]:  # type: ignore[override]
        """The function's own."""
        return getattr(self.__wrapped__, "__annotations__", {})

    @property
    def name(self) -> str:
        """The flow's name: `name=`, else `<file stem or module>:<qualname>`."""
        given = self._source.name if self._source is not None else None
        return given or name_of(self.__wrapped__)

    @property
    def source(self) -> str | None:
        """The source's URL; None without one."""
        return None if self._source is None else self._source.url

    @property
    def destination(self) -> str | None:
        """The destination's URL; None without one."""
        return None if self._destination is None else self._destination.url

    def __repr__(self) -> str:
        """Show name, source and destination."""
        return f"Flow({self.name!r}, source={self.source!r}, destination={self.destination!r})"

    def __reduce__(self) -> str:
        """Pickle by reference: module and qualified name."""
        return self.__qualname__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function; without a source, publish what it returns, too.

        Raises:
            EncodeError: The result cannot be written as a message; `error.result` holds it.
            BrokerError: It was not confirmed as published; `error.result` holds the result.
        """
        result = self.__wrapped__(*args, **kwargs)
        if self._outlet is None:
            return result
        if inspect.isawaitable(result):
            return cast("R", _published(result, self._outlet))
        self._outlet.publish(result)
        return result

    def close(self) -> None:
        """Close the connection that calls of this flow publish through; the next call opens another."""
        if self._outlet is not None:
            self._outlet.close()

    def run(self, *, limit: int | None = None, until_idle: float | None = None, signals: bool = True) -> RunResult:
        """Run until it is stopped, limited or idle; then drain.

        Args:
            limit: Inputs to settle finally (acknowledge or dead-letter); no more are taken. None: no limit.
            until_idle: Drain after so many seconds without a message, counted once the source can be received
                from and nothing is in flight or waits for a retry. None: never.
            signals: Drain on SIGINT and SIGTERM, stop waiting on the second; on the main thread only.

        Returns:
            What it did, in numbers.

        Raises:
            ConfigError: It has no source, or something about it is wrong. Nothing was received.
            BrokerError: A broker could not be reached, or refused, at the start. Nothing was received.
            HaltedError: A message could not be handled and there is no place for it; its position has not moved.
            LoadError: `load()` raised. Nothing was received.
            DrainTimeoutError: Work was still going on at the end of the drain time; it comes again.
        """
        return run(self, limit=limit, until_idle=until_idle, signals=signals)[0]

    def stop(self) -> None:
        """Drain every run of this flow and make it return; from any thread. Does not wait.

        A run that begins later is not stopped by it.
        """
        for runner in list(self._runners):
            runner.stop()

    @contextlib.contextmanager
    def running(self, *, limit: int | None = None, until_idle: float | None = None) -> Iterator[Flow[P, R]]:
        """Run in the background while the block lasts; drain at its end.

        Raises:
            EventflowsError: What `run` raises; at the end of the block.
        """
        check_bounds(limit, until_idle)
        done = threading.Event()
        runner = Runner(self.plan(), limit=limit, until_idle=until_idle, done=done)
        self._runners.add(runner)
        runner.start()
        runner.wait_ready(timeout=60.0)
        try:
            yield self
        finally:
            runner.stop()
            while not runner.ended:
                done.wait()
        if runner.error is not None:
            raise runner.error

    def describe(self) -> Description:
        """Describe the flow as a frozen value with text and HTML display; secrets are hidden."""
        source, destination = self._source, self._destination
        hidden = ("url", "options", "name", "key", "headers")
        settings: dict[str, object] = {}
        for fields, label in ((source, "{}"), (destination, "publish_{}")):
            values = {} if fields is None else attrs.asdict(fields, recurse=False)
            for name, value in values.items():
                if name not in hidden and value is not None and value != ():
                    settings[label.format(name)] = getattr(value, "__qualname__", value)
        return Description(
            name=self.name,
            source=self.source,
            source_options=dict(source.options) if source is not None else {},
            destination=self.destination,
            destination_options=dict(destination.options) if destination is not None else {},
            settings=settings,
        )

    def preview(self, n: int = 5) -> Preview:
        """Show what `apply` would do with messages that wait; nothing is taken, published or committed.

        Args:
            n: Most messages.

        Raises:
            ConfigError: It has no source.
            CapabilityError: The source cannot be looked at without taking.
            BrokerError: The source cannot be reached.
            LoadError: `load()` raised.
        """
        plan = self.plan()
        subscriber = plan.subscriber()
        if not isinstance(subscriber, Browsable):
            raise CapabilityError(f"{plan.source} cannot be looked at without taking messages from it.")
        try:
            deliveries = subscriber.peek(n, timeout=PREVIEW_TIMEOUT)
        finally:
            subscriber.close()
        call = plan.prepare() if deliveries else None
        if call is not None and plan.is_async:
            call = call_in_loop(call)
        return Preview([_try(plan, call, delivery) for delivery in deliveries])

    def plan(self) -> Plan:
        """Say what the runner is to do; resolves annotations, connects to nothing.

        Raises:
            ConfigError: It has no source, or an annotation cannot be resolved.
        """
        source, destination = self._source, self._destination
        if source is None:
            raise ConfigError(
                f"flow {self.name} has no source, so there is nothing to run: call it, or add @subscriber(url)."
            )
        check_function(self.__wrapped__, where="@subscriber", loads=source.load is not None)
        allow(self.name, source, destination)
        resolved = resolve(self.__wrapped__, self.__signature__, self.name)
        letters = source.dead_letter if source.dead_letter not in (None, "halt", "drop") else None
        return Plan(
            name=self.name,
            source=source.url,
            subscriber=lambda: open_subscriber(source.url, **source.options),
            prepare=lambda: self._prepared(resolved.takes_state),
            decoder=decoder(resolved.input, batch=source.batch is not None),
            is_async=is_coroutine(self.__wrapped__),
            wants_delivery=resolved.delivery,
            destination=None if destination is None else destination.url,
            publisher=None if destination is None else lambda: open_publisher(destination.url, **destination.options),
            key=None if destination is None else destination.key,
            headers=None if destination is None else destination.headers,
            publish_timeout=30.0 if destination is None else destination.timeout,
            dead_letter=source.dead_letter,
            dead_letter_publisher=None if letters is None else lambda: open_publisher(letters),
            retry=attrs.evolve(source.retry, attempts=1) if source.guarantee == "at-most-once" else source.retry,
            order=source.order,
            guarantee=source.guarantee,
            workers=source.workers,
            executor=source.executor,
            reference=reference_to(self, self.name) if source.executor == "process" else None,
            timeout=source.timeout,
            batch=source.batch,
            batch_wait=source.batch_wait,
            max_in_flight=source.max_in_flight,
            max_in_flight_bytes=source.max_in_flight_bytes,
            drain_timeout=source.drain_timeout,
            observers=source.observers,
        )

    def _prepared(self, takes_state: bool) -> Callable[..., Any]:
        """Load the state, once per process, and bind it."""
        function: Callable[..., Any] = self.__wrapped__
        load = self._source.load if self._source is not None else None
        if load is None:
            return function
        with self._lock:
            if self._state_of != os.getpid():
                self._state = [load(None) if check_load(load) else load()]
                self._state_of = os.getpid()
            state = self._state[0]
        if not takes_state:
            return function
        return lambda value, **delivery: function(value, state, **delivery)


async def _published(pending: Any, outlet: Outlet) -> object:  # noqa: ANN401 - any awaitable
    import asyncio

    result = await pending
    await asyncio.to_thread(outlet.publish, result)
    return result


def run(
    *flows: Flow[..., Any], limit: int | None = None, until_idle: float | None = None, signals: bool = True
) -> list[RunResult]:
    """Run several flows together until each is stopped, limited or idle; when one fails, the others drain.

    Args:
        flows: Each has a source.
        limit: Inputs that each settles finally, at most.
        until_idle: Drain each after so many seconds without anything to do.
        signals: Drain on SIGINT and SIGTERM, stop waiting on the second; on the main thread only.

    Returns:
        What each did, in the order given.

    Raises:
        EventflowsError: What `Flow.run` raises; the first failure.
    """
    return run_observed(flows, (), limit=limit, until_idle=until_idle, signals=signals)


def run_observed(
    flows: Sequence[Flow[..., Any]],
    observers: Sequence[Observer],
    *,
    limit: int | None = None,
    until_idle: float | None = None,
    signals: bool = True,
    exiting: bool = False,
) -> list[RunResult]:
    """Run several flows together as `run` does, with further observers for all of them.

    Args:
        flows: As in `run`.
        observers: Of all flows.
        limit: As in `run`.
        until_idle: As in `run`.
        signals: As in `run`.
        exiting: The process ends after this: when a signal has come, further ones change nothing any more, and what is
            loaded is spared the garbage collector.
    """
    if not flows:
        raise ConfigError("run(): give it at least one flow.")
    check_bounds(limit, until_idle)
    for flow in cast("tuple[object, ...]", flows):
        if not isinstance(flow, Flow):
            raise ConfigError(f"run(): {flow!r} is not a flow; decorate it with @subscriber(url).")
        if flow.__module__ == "__mp_main__":
            raise ConfigError(
                f"run() of flow {flow.name} was called while a worker process imports its script. "
                'Put the call under `if __name__ == "__main__":`, so that only the first process makes it.'
            )
    done = threading.Event()
    plans = [flow.plan() for flow in flows]
    plans = [attrs.evolve(plan, observers=[*plan.observers, *observers]) for plan in plans]
    runners = [Runner(plan, limit=limit, until_idle=until_idle, done=done, exiting=exiting) for plan in plans]
    for flow, runner in zip(flows, runners, strict=True):
        flow._runners.add(runner)
    supervise(runners, done, signals=signals, exiting=exiting)
    for runner in runners:
        if runner.error is not None:
            raise runner.error
    return [runner.result() for runner in runners]


def _try(plan: Plan, call: Callable[..., Any] | None, delivery: Delivery) -> PreviewRow:
    assert call is not None  # noqa: S101 - for the type checker: there is a delivery
    try:
        value = plan.decoder.by_type(delivery.message.body, delivery.message.content_type)
    except DecodeError as error:
        return PreviewRow(None, None, error, 0.0)
    extra = {} if plan.wants_delivery is None else {plan.wants_delivery: delivery}
    began = time.perf_counter()
    try:
        output, failure = call(value, **extra), None
    except Exception as error:  # noqa: BLE001 - what apply raises is what a preview shows
        output, failure = None, error
    return PreviewRow(value, output, failure, time.perf_counter() - began)
