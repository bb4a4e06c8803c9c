"""What a run brings, written down while it goes on, and reported."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from eventflows.codec import encode
from eventflows.errors import RunError
from eventflows.message import Message, Messages
from eventflows.runner.held import Held, join
from eventflows.runner.outputs import Packer
from eventflows.runner.runs import Parcel, Report, Run, Unit, Worker

REPORT_EVERY: Final = 0.05
"""Seconds after which outcomes are reported though the run goes on."""


class Ledger:
    """Takes what became of each message of a run, and posts reports of it.

    Results of neighbours are put together in columns, and made into a parcel when the row ends.

    Args:
        worker: Whose run it is.
        run: The run.
        packer: Makes parcels of results; None: results go nowhere.
        post: Takes a report.
    """

    __slots__ = (
        "_bodies",
        "_held",
        "_keys",
        "_next",
        "_packer",
        "_post",
        "_run",
        "_start",
        "_types",
        "_worker",
        "began",
        "report",
    )

    def __init__(self, worker: Worker, run: Run, packer: Packer | None, post: Callable[[Report], None]) -> None:
        self._worker = worker
        self._run = run
        self._packer = packer
        self._post = post
        self._held: Held | None = None
        self._start = self._next = 0
        self._bodies: list[bytes | None] = []
        self._types: list[str | None] = []
        self._keys: list[str | None] = []
        self.report = Report(worker, run)
        self.began = time.perf_counter()

    def put(self, held: Held, index: int, result: object) -> None:
        """Take what `apply` returned for one message.

        Raises:
            EncodeError: It cannot be written; nothing was taken.
        """
        packer = self._packer
        if packer is None or result is None:
            join(self.report.done, held, index, index + 1)
            return
        if type(result) is not dict and isinstance(result, (Message, Messages)):
            self._put_several(packer, held, index, result)
            return
        body, content_type = encode(result)
        key = packer.key_of(result) if packer.computes_keys else None
        if index != self._next or held is not self._held:
            self.flush()
            self._held, self._start = held, index
        self._next = index + 1
        self._bodies.append(body)
        self._types.append(content_type)
        if packer.computes_keys:
            self._keys.append(key)

    def _put_several(self, packer: Packer, held: Held, index: int, result: Message | Messages) -> None:
        messages = packer.several(result, held, index)
        if messages:
            self.flush()
            self.report.parcels.append(Parcel(held, index, index + 1, messages))
        else:
            join(self.report.done, held, index, index + 1)

    def nothing(self, places: Sequence[tuple[Held, int, object, object, object]]) -> None:
        """Take that these have no result."""
        held, first = places[0][:2]
        last = first + len(places)
        if all(place[0] is held for place in places) and [place[1] for place in places] == list(range(first, last)):
            join(self.report.done, held, first, last)
            return
        for where, index, *_ in places:
            join(self.report.done, where, index, index + 1)

    def put_parcel(self, parcel: Parcel) -> None:
        """Take outputs that were made elsewhere."""
        self.report.parcels.append(parcel)

    def flush(self) -> None:
        """End the row of neighbours."""
        if self._held is not None and self._packer is not None:
            self.report.parcels.append(
                self._packer.row(self._held, self._start, self._bodies, self._types, self._keys or None)
            )
            self._held = None
            self._bodies, self._types, self._keys = [], [], []

    def failed(self, held: Held, index: int, error: BaseException, undecodable: bool, unit: Unit) -> None:
        """Take a failure."""
        if unit is not None:
            self._run.stopped.add(unit)
        self.report.failed.append((held, index, error, undecodable, unit))

    def skipped(self, held: Held, index: int, unit: Unit) -> None:
        """Take a message that must wait behind a failed one."""
        self.report.skipped.append(((held, index, index + 1), unit))

    def broken(self, error: RunError) -> None:
        """Take what ends the flow."""
        self.report.fatal = error

    def tick(self) -> None:
        """Report, when the last time is long enough ago."""
        if time.perf_counter() - self.began > REPORT_EVERY:
            self.send()

    def send(self, *, last: bool = False) -> None:
        """Report what there is, and begin anew."""
        self.flush()
        report, now = self.report, time.perf_counter()
        report.seconds = now - self.began
        report.last = last
        self._post(report)
        self.report, self.began = Report(self._worker, self._run), now
