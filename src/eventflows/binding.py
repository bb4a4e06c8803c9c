"""What the two decorators were given, checked: a source, a destination."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

import attrs

from eventflows.errors import ConfigError
from eventflows.locate import resolve
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy

ORDERS: Final = ("key", "lane", "none")


def _demand(holds: bool, what: str, value: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{what}={value!r}: expected {expected}.")


def _whole(what: str, value: object, *, none: bool) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    expected = "a whole number of at least 1" + (", or None" if none else "")
    _demand(whole or (none and value is None), what, value, expected)


def _seconds(what: str, value: object) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    _demand(number, what, value, "a finite number of seconds, 0 or more")


def _text(what: str, value: object) -> None:
    _demand(value is None or (isinstance(value, str) and value != ""), what, value, "text, or None")


@attrs.frozen(kw_only=True)
class Source:
    """What `@subscriber` was given."""

    url: str
    options: Mapping[str, object]
    name: str | None
    load: Callable[..., object] | None
    retry: RetryPolicy
    dead_letter: str | None
    order: Literal["key", "lane", "none"] | None
    guarantee: Literal["at-least-once", "at-most-once", "exactly-once"]
    workers: int
    executor: Literal["thread", "process"]
    timeout: float | None
    batch: int | None
    batch_wait: float
    max_in_flight: int | None
    max_in_flight_bytes: int | None
    drain_timeout: float
    observers: Sequence[Observer]
    algorithm: str | None
    version: str | None

    def __attrs_post_init__(self) -> None:
        """Check every value; connects to nothing.

        Raises:
            ConfigError: A value is wrong; the text names it and what was expected.
        """
        self._check_calls()
        for what in ("name", "algorithm", "version", "dead_letter"):
            _text(what, getattr(self, what))
        if self.load is not None:
            check_load(self.load)
        _demand(isinstance(self.retry, RetryPolicy), "retry", self.retry, "a RetryPolicy(...)")
        _demand(self.order in (None, *ORDERS), "order", self.order, '"key", "lane", "none" or None')
        _whole("workers", self.workers, none=False)
        _whole("max_in_flight", self.max_in_flight, none=True)
        _whole("max_in_flight_bytes", self.max_in_flight_bytes, none=True)
        _seconds("drain_timeout", self.drain_timeout)
        observers: object = self.observers
        several = isinstance(observers, Sequence) and not isinstance(observers, str)
        _demand(several, "observers", type(observers).__name__, "a sequence of observers, such as [MyObserver()]")
        try:
            resolve(self.url, self.options, "source")
        except ConfigError as error:
            raise _with_flow_option(error, self.options) from None
        if self.dead_letter is not None and self.dead_letter not in ("halt", "drop"):
            _demand("://" in self.dead_letter, "dead_letter", self.dead_letter, 'a URL, "halt" or "drop"')
            resolve(self.dead_letter, {}, "destination")

    def _check_calls(self) -> None:
        guarantees = ("at-least-once", "at-most-once", "exactly-once")
        _demand(self.guarantee in guarantees, "guarantee", self.guarantee, f"one of {', '.join(guarantees)}")
        _demand(self.executor in ("thread", "process"), "executor", self.executor, '"thread" or "process"')
        if self.timeout is not None:
            _seconds("timeout", self.timeout)
            _demand(self.timeout > 0, "timeout", self.timeout, "more than 0 seconds, or None")
        _whole("batch", self.batch, none=True)
        _seconds("batch_wait", self.batch_wait)
        if self.batch is None and self.batch_wait:
            raise ConfigError(f"batch_wait={self.batch_wait!r}: there is no batch to wait for; give batch= too.")
        if self.batch is not None and self.max_in_flight is not None and self.max_in_flight < self.batch:
            raise ConfigError(
                f"max_in_flight={self.max_in_flight}: a batch of {self.batch} would never be full; "
                "give at least as many as batch=."
            )


@attrs.frozen(kw_only=True)
class Destination:
    """What `@publisher` was given."""

    url: str
    options: Mapping[str, object]
    key: str | Callable[[Any], str | None] | None
    headers: Mapping[str, str] | None
    timeout: float
    algorithm: str | None
    version: str | None

    def __attrs_post_init__(self) -> None:
        """Check every value; connects to nothing.

        Raises:
            ConfigError: A value is wrong; the text names it and what was expected.
        """
        for what in ("algorithm", "version"):
            _text(what, getattr(self, what))
        key: object = self.key
        textual = key is None or isinstance(key, str) or callable(key)
        _demand(textual, "key", key, "text, a function from result to text, or None")
        _demand(_texts(self.headers), "headers", type(self.headers).__name__, "a mapping of text to text")
        _seconds("timeout", self.timeout)
        resolve(self.url, self.options, "destination")


def _texts(headers: object) -> bool:
    if headers is None:
        return True
    return isinstance(headers, Mapping) and all(
        isinstance(name, str) and isinstance(value, str) for name, value in headers.items()
    )


def check_load(load: object) -> int:
    """Give how many arguments `load` takes: 0, or 1 for the platform's manifest.

    Raises:
        ConfigError: It is no function, or takes more.
    """
    plain = callable(load) and not inspect.iscoroutinefunction(load)
    _demand(plain, "load", type(load).__name__, "a plain function load() or load(manifest)")
    try:
        parameters = inspect.signature(cast("Callable[..., object]", load)).parameters.values()
    except ValueError:  # a builtin that does not say
        return 0
    required = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(required) > 1 or any(p.kind is p.KEYWORD_ONLY for p in required):
        raise ConfigError(f"load={getattr(load, '__qualname__', load)}: expected load() or load(manifest).")
    return len(required)


def _with_flow_option(error: ConfigError, options: Mapping[str, object]) -> ConfigError:
    flow_options = [field.name for field in attrs.fields(Source) if field.name not in ("url", "options")]
    for name in options:
        near = difflib.get_close_matches(name, flow_options, n=1, cutoff=0.7)
        if near and name in str(error):
            return ConfigError(f"{error} Of a flow's own options, {near[0]!r} is the nearest.")
    return error


def check_bounds(limit: object, until_idle: object) -> None:
    """Check what a run is bounded by.

    Raises:
        ConfigError: A value is wrong; the text names it and what was expected.
    """
    _whole("limit", limit, none=True)
    if until_idle is not None:
        _seconds("until_idle", until_idle)
