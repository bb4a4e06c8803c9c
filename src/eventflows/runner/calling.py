"""How `apply` is called: its input decoded, its delivery beside it, observers told."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from eventflows.codec import Decoder
from eventflows.errors import DecodeError
from eventflows.message import Chunk, Delivery
from eventflows.observe import Observers


def spare_the_loaded() -> None:
    """Tell the garbage collector to leave alone what is there; for a process that is ours.

    It goes through everything again and again while messages come and go: 30 ms for 50,000 objects, each time.
    """
    gc.collect()
    gc.freeze()


@attrs.frozen(kw_only=True)
class Apply:
    """A loaded `apply`, and what it wants."""

    call: Callable[..., Any]
    """Called with an input, or with a list of inputs when it takes batches."""
    decoder: Decoder
    wants_delivery: str | None = None
    """The keyword of the delivery; None: it does not take one."""
    batch: int | None = None
    """Most inputs of one call; None: it takes one, not a list."""
    timeout: float | None = None
    """Seconds that a call may take; None: as long as it likes."""


@attrs.frozen
class Input:
    """What one call is given."""

    value: Any
    """The input, or the list of inputs."""
    deliveries: Sequence[Delivery]
    """Of each input; empty when nobody wants them."""
    at: Sequence[int] = ()
    """The place of each input in its run, where somebody asks."""


class Caller:
    """Calls `apply`.

    Args:
        apply: What is called.
        observers: Told when a call starts and ends, if they listen.
    """

    def __init__(self, apply: Apply, observers: Observers) -> None:
        self.apply = apply
        self._observers = observers
        self.watched = observers.listens("started") or observers.listens("finished")
        self.plain = apply.wants_delivery is None and not self.watched
        """Whether a call needs nothing but the input."""

    def decode(self, chunk: Chunk, index: int) -> Any:  # noqa: ANN401 - as the annotation of `apply` says
        """Make the input of a body.

        Raises:
            DecodeError: The body is not what the annotation says.
        """
        types = chunk.content_types
        if types is None:
            return self.apply.decoder.plain(chunk.bodies[index])
        return self.apply.decoder.by_type(chunk.bodies[index], types[index])

    def undecodable(self, chunk: Chunk, index: int, error: BaseException) -> bool:
        """Say whether an error came from decoding; `apply` may raise a DecodeError of its own."""
        if not isinstance(error, DecodeError):
            return False
        try:
            self.decode(chunk, index)  # deterministic, so asking again tells them apart
        except DecodeError:
            return True
        return False

    def one(self, chunk: Chunk, index: int) -> Any:  # noqa: ANN401 - whatever `apply` returns
        """Decode one message and call `apply` with it."""
        value = self.decode(chunk, index)
        return self.call(Input(value, () if self.plain else (chunk[index],)))

    def call(self, given: Input) -> Any:  # noqa: ANN401 - whatever `apply` returns
        """Call `apply`."""
        if self.plain:
            return self.apply.call(given.value)
        with self._watching(given):
            return self.apply.call(given.value, **self._extra(given))

    async def await_call(self, given: Input) -> Any:  # noqa: ANN401 - whatever `apply` returns
        """Call an `apply` that is a coroutine function."""
        pending: Awaitable[Any]
        if self.plain:
            return await self.apply.call(given.value)
        with self._watching(given):
            pending = self.apply.call(given.value, **self._extra(given))
            return await pending

    def _extra(self, given: Input) -> dict[str, object]:
        name = self.apply.wants_delivery
        if name is None:
            return {}
        return {name: list(given.deliveries) if self.apply.batch else given.deliveries[0]}

    @contextmanager
    def _watching(self, given: Input) -> Iterator[None]:
        if not self.watched:
            yield
            return
        for delivery in given.deliveries:
            self._observers.tell("started", delivery=delivery)
        began, failure = time.perf_counter(), None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = time.perf_counter() - began
            for delivery in given.deliveries:
                self._observers.tell("finished", delivery=delivery, seconds=seconds, error=failure)
