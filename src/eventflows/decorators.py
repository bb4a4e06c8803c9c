"""`@subscriber` and `@publisher`: they make a `Flow` of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, ParamSpec, TypeVar, cast

from eventflows.binding import Destination, Source
from eventflows.errors import ConfigError
from eventflows.flow import Flow
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy
from eventflows.signature import (
    check_function,
    check_timeout,
    in_class_body,
    name_of,
)

P = ParamSpec("P")
R = TypeVar("R")


class Decorator:
    """What `@subscriber(...)` and `@publisher(...)` return: makes a `Flow` of a function, or of a `Flow`."""

    def __init__(self, binding: Source | Destination) -> None:
        self._binding = binding

    def __call__(self, function: Callable[P, R]) -> Flow[P, R]:
        """Decorate.

        Raises:
            ConfigError: It cannot be an `apply`, or the flow has a source or destination already.
        """
        where = "@subscriber" if isinstance(self._binding, Source) else "@publisher"
        if in_class_body(1):
            raise ConfigError(
                f"{where} inside a class body: there is no instance yet. "
                "Decorate the bound method: subscriber(url)(scorer.apply)."
            )
        former = function if isinstance(function, Flow) else None
        plain = former.__wrapped__ if former is not None else function
        source, destination = (former._source, former._destination) if former is not None else (None, None)
        if isinstance(self._binding, Source):
            if source is not None:
                raise ConfigError(f"{where}: flow {name_of(plain)} has a source already: {source.url}.")
            source = self._binding
        else:
            if destination is not None:
                raise ConfigError(f"{where}: flow {name_of(plain)} has a destination already: {destination.url}.")
            destination = self._binding
        loads = source is not None and source.load is not None
        # The other decorator may still bring load=, so one that only publishes may take a state.
        check_function(plain, where=where, loads=loads or source is None)
        if source is not None and source.timeout is not None:
            check_timeout(plain, source.executor)
        return Flow(cast("Callable[P, R]", plain), source, destination)


def subscriber(
    source: str,
    *,
    name: str | None = None,
    load: Callable[..., object] | None = None,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen, and shown so in the signature
    dead_letter: str | None = None,
    order: Literal["key", "lane", "none"] | None = None,
    guarantee: Literal["at-least-once", "at-most-once", "exactly-once"] = "at-least-once",
    workers: int = 1,
    executor: Literal["thread", "process"] = "thread",
    timeout: float | None = None,
    batch: int | None = None,
    batch_wait: float = 0.0,
    max_in_flight: int | None = None,
    max_in_flight_bytes: int | None = None,
    drain_timeout: float = 30.0,
    observers: Sequence[Observer] = (),
    algorithm: str | None = None,
    version: str | None = None,
    **options: object,
) -> Decorator:
    """Make `apply` run once for each message of a topic or queue. Nothing is connected until it runs.

    Args:
        source: The URL to read from, such as `local://orders`.
        name: Of the flow; None: `<file stem or module>:<qualname>`.
        load: Called once per process before the first message; what it returns is the second argument of `apply`.
        retry: How often, and how soon, a failed message is tried again.
        dead_letter: Where a message goes that has no next attempt: a URL, "halt" or "drop". None: the broker's own
            dead-letter place, and where it has none, the flow halts.
        order: What runs one at a time, in order: messages of one "key", of one "lane", or nothing ("none"). None: by
            key where the source has keys.
        guarantee: "at-least-once"; "at-most-once" acknowledges before `apply` is called, which is called once, whatever
            comes of it; "exactly-once" needs a source and a destination that share transactions.
        workers: How many calls run at once: threads, processes, or coroutines where `apply` is a coroutine function.
        executor: "thread", or "process": `load()` and `apply` run in worker processes, which import the flow; a crash
            costs only the message that the process was on, and the process is replaced.
        timeout: Seconds that one call may take; then it fails with `CallTimeoutError`. None: as long as it likes. A
            call on a thread cannot be ended, so this needs worker processes or a coroutine function.
        batch: Most inputs of one call, which gets a list and returns as many results, None in the place of one that
            publishes nothing; an element that is an exception fails its own message. None: one input, no list.
        batch_wait: Seconds that a batch waits to become full, from its first message on; 0: not at all.
        max_in_flight: Messages held at once, at most. None: about 0.25 s of work for each worker.
        max_in_flight_bytes: Bytes of bodies and of unconfirmed outputs held at once, at most; one message that is
            larger may pass alone. None: 64 MiB.
        drain_timeout: Seconds that a stop waits for what runs.
        observers: Told what happens.
        algorithm: For the catalogue: "owner/name".
        version: For the catalogue: "1.2.0".
        options: The adapter's own, as in the URL.

    Raises:
        ConfigError: Something is wrong; the text says what, and the nearest valid name.
    """
    return Decorator(
        Source(
            url=source, options=options, name=name, load=load, retry=retry, dead_letter=dead_letter, order=order,
            guarantee=guarantee, workers=workers, executor=executor, timeout=timeout, batch=batch,
            batch_wait=batch_wait, max_in_flight=max_in_flight, max_in_flight_bytes=max_in_flight_bytes,
            drain_timeout=drain_timeout, observers=observers, algorithm=algorithm, version=version,
        )
    )  # fmt: skip


def publisher(
    destination: str,
    *,
    key: str | Callable[[Any], str | None] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    algorithm: str | None = None,
    version: str | None = None,
    **options: object,
) -> Decorator:
    """Make the return value of `apply` go to a topic or queue. Nothing is connected until it is called or runs.

    Args:
        destination: The URL to write to, such as `local://scores`.
        key: The key of every output, or a function from the result to its key. None: the input's key.
        headers: Of every output.
        timeout: Seconds to wait for the broker's confirmation.
        algorithm: For the catalogue: "owner/name".
        version: For the catalogue: "1.2.0".
        options: The adapter's own, as in the URL.

    Raises:
        ConfigError: Something is wrong; the text says what, and the nearest valid name.
    """
    return Decorator(
        Destination(
            url=destination, options=options, key=key, headers=headers, timeout=timeout,
            algorithm=algorithm, version=version,
        )
    )  # fmt: skip
