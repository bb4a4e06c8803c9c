"""The one background event loop on which coroutine functions run."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def background_loop() -> asyncio.AbstractEventLoop:
    """Give this process's loop, which runs on a thread of its own; started at the first call."""
    import asyncio

    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = asyncio.new_event_loop()
            _loops[os.getpid()] = loop
            threading.Thread(target=loop.run_forever, name="eventflows coroutines", daemon=True).start()
        return loop


def call_in_loop(function: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    """Make a coroutine function callable from any other thread; each call waits for its result."""
    import asyncio

    async def await_it(args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        return await function(*args, **kwargs)

    def call(*args: object, **kwargs: object) -> object:
        return asyncio.run_coroutine_threadsafe(await_it(args, kwargs), background_loop()).result()

    return call
