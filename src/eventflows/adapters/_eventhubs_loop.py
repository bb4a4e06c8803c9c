"""A private event loop on a thread: the asyncio client lives there, and whoever calls waits no longer than told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from eventflows.errors import OutcomeUnknownError

T = TypeVar("T")


class _EventLoop(asyncio.SelectorEventLoop):
    """A loop that knows its connections: the client leaves those open that it was not let finish with."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    async def create_connection(self, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401 - as it is
        made = await super().create_connection(*arguments, **settings)
        self._connections.add(made[0])
        return made

    async def cut(self) -> None:
        """Close every connection that is still open, unsent bytes discarded."""
        for connection in list(self._connections):
            if isinstance(connection, asyncio.WriteTransport):
                connection.abort()
        await asyncio.sleep(0)  # their sockets are closed by the loop's next turn


class Loop:
    """A thread with a loop; a daemon, so that what hangs in it holds nothing up.

    Args:
        name: Of the thread.
        place: What errors name.
    """

    def __init__(self, name: str, place: str) -> None:
        self._place = place
        self._process = os.getpid()
        self._loop = _EventLoop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            with contextlib.suppress(Exception):  # it is thrown away, whatever state it is in
                self._loop.run_until_complete(asyncio.sleep(0.05))
                self._loop.run_until_complete(self._loop.cut())
                self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    @property
    def elsewhere(self) -> bool:
        """Whether it belongs to the process that this one was forked from, and its thread is not here."""
        return self._process != os.getpid()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine, without waiting."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, work: Coroutine[Any, Any, T], timeout: float, doing: str) -> T:
        """Run a coroutine and wait for it.

        Raises:
            OutcomeUnknownError: It was not done in time; it was cancelled.
        """
        future = self.start(work)
        try:
            return future.result(max(timeout, 0.0))
        except TimeoutError as error:
            if future.done() and not future.cancelled():  # it is the coroutine's own error
                raise
            future.cancel()
            raise OutcomeUnknownError(f"{self._place}: {doing} did not come back within {timeout:g} s.") from error

    def soon(self, call: Callable[[], object]) -> None:
        """Call something on the loop."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            self._loop.call_soon_threadsafe(call)

    def stop(self, timeout: float) -> None:
        """End the loop, what runs in it cancelled, its connections cut; a thread that hangs is left behind."""
        self.soon(self._loop.stop)
        self._thread.join(max(timeout, 0.0))
