"""Workers that are tasks of one event loop: each awaits `apply` over one run of messages after another."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable

from eventflows.errors import CallTimeoutError
from eventflows.runner.calling import Caller, Input
from eventflows.runner.loop import background_loop
from eventflows.runner.outputs import Packer
from eventflows.runner.runs import Report, Run
from eventflows.runner.steps import Outcome, Steps, singly, together
from eventflows.runner.workers import HeldBook, places


class CoroutineWorker:
    """One task that awaits `apply`; a run crosses to the loop in one hop.

    Args:
        caller: Calls it.
        packer: Makes messages of results; None: results go nowhere.
        post: Takes a report; from the loop's thread.
        flow: The flow's name.
    """

    sifts = True

    def __init__(self, caller: Caller, *, packer: Packer | None, post: Callable[[Report], None], flow: str) -> None:
        self._caller = caller
        self._packer = packer
        self._post = post
        self._flow = flow
        self._loop = background_loop()
        self._inbox: asyncio.Queue[Run | None] = asyncio.Queue()
        self.runs: list[Run] = []
        self._task: concurrent.futures.Future[None] = asyncio.run_coroutine_threadsafe(self._work(), self._loop)

    def give(self, run: Run) -> None:
        """Hand it a run."""
        self.runs.append(run)
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, run)

    def stop(self) -> None:
        """Let the task end when it is idle."""
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, None)

    def kill(self) -> None:
        """Cancel what it awaits."""
        self._task.cancel()

    def join(self, timeout: float) -> None:
        """Wait for the task's end, at most `timeout` seconds."""
        concurrent.futures.wait([self._task], timeout)

    async def _work(self) -> None:
        while (run := await self._inbox.get()) is not None:
            book = HeldBook(self, run, self._packer, self._post, self._caller)
            if self._caller.apply.batch is None:
                await self._drive(singly(places(run), book, set(run.behind)))
            else:
                await self._drive(together(places(run), book, self._flow, self._caller.apply.batch, set(run.behind)))
            book.send(last=True)

    async def _drive(self, steps: Steps) -> None:
        try:
            given = next(steps)
            while True:
                given = steps.send(await self._outcome(given))
        except StopIteration:
            return

    async def _outcome(self, given: Input) -> Outcome:
        limit = asyncio.timeout(self._caller.apply.timeout)
        try:
            async with limit:
                return await self._caller.await_call(given), None
        except TimeoutError as error:
            if not limit.expired():
                return None, error  # one of apply's own
            return None, CallTimeoutError(
                f"apply of flow {self._flow} took longer than timeout={self._caller.apply.timeout:g} s "
                "and was cancelled. Give it more time, or find out what it waits for."
            )
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the run ends, whatever apply is on
            return None, error
        except BaseException as error:  # noqa: BLE001 - nothing that apply raises ends the flow
            return None, error
