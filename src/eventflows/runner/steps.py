"""The steps of a run, for every way to call `apply`: which inputs are called next, and what an outcome means.

A generator yields what to call `apply` with and is sent the outcome. So threads, coroutines and worker processes
share one idea of skipping, batches and splitting, and differ only in how they call.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from eventflows.errors import BatchResultError, DecodeError, RunError
from eventflows.message import Delivery
from eventflows.runner.calling import Input
from eventflows.runner.runs import Unit

Outcome = tuple[Any, BaseException | None]
"""What `apply` returned, and None; or None, and what it raised."""
Steps = Generator[Input, Outcome, None]
Where = TypeVar("Where")
"""What holds a message, such as its chunk."""
_Where = TypeVar("_Where", contravariant=True)
Place = tuple[Where, int, Unit]
Item = tuple[Where, int, Unit, Any, Delivery | None]


class Book(Protocol[_Where]):
    """Where inputs come from, and outcomes are written down."""

    def unpack(self, where: _Where, index: int, /) -> tuple[Any, Delivery | None]:
        """Give the input, and its delivery if anybody wants it; raises DecodeError."""

    def put(self, where: _Where, index: int, result: object, /) -> None:
        """Take a result; raises EncodeError, with nothing taken."""

    def nothing(self, places: Sequence[tuple[_Where, int, Any, Any, Any]], /) -> None:
        """Take that these have no result."""

    def failed(self, where: _Where, index: int, error: BaseException, undecodable: bool, unit: Unit, /) -> None:
        """Take a failure."""

    def skipped(self, where: _Where, index: int, unit: Unit, /) -> None:
        """Take a message that must wait behind a failed one."""

    def broken(self, error: RunError, /) -> None:
        """Take what ends the flow."""

    def tick(self) -> None:
        """Report now and then."""


def singly(places: Iterable[Place[Where]], book: Book[Where], stopped: set[Unit] | None = None) -> Steps:
    """Call `apply` with one input after another.

    Args:
        places: Of the inputs.
        book: Where it is written down.
        stopped: Units to be skipped from the beginning.
    """
    stopped = set() if stopped is None else stopped
    for where, index, unit in places:
        if unit in stopped:
            book.skipped(where, index, unit)
            continue
        try:
            value, delivery = book.unpack(where, index)
        except BaseException as error:  # noqa: BLE001 - whatever a type's own hooks raise, there is no input
            _fail(book, (where, index, unit), error, isinstance(error, DecodeError), stopped)
            continue
        result, failure = yield Input(value, () if delivery is None else (delivery,), (index,))
        if failure is None:
            failure = _taken(book, where, index, result)
        if failure is not None:
            _fail(book, (where, index, unit), failure, False, stopped)
        book.tick()


def together(
    places: Iterable[Place[Where]], book: Book[Where], name: str, size: int, stopped: set[Unit] | None = None
) -> Steps:
    """Call `apply` with one batch of inputs after another; where it raises, with each half, until the poison is alone.

    Args:
        places: Of all batches.
        book: Where it is written down.
        name: The flow's, for errors.
        size: Inputs of a batch.
        stopped: Units to be skipped from the beginning.
    """
    stopped = set() if stopped is None else stopped
    waiting = iter(places)
    while batch := list(itertools.islice(waiting, size)):
        parts = [_unpacked(batch, book, stopped)]
        while parts:
            part = _not_stopped(parts.pop(), book, stopped)
            if not part:
                continue
            deliveries = [] if part[0][4] is None else [item[4] for item in part if item[4] is not None]
            result, failure = yield Input([item[3] for item in part], deliveries, [item[1] for item in part])
            if failure is None:
                if result is None and not stopped:
                    book.nothing(part)  # as for one input: nothing to publish
                    book.tick()
                    continue
                results = _rows(result, len(part))
                if results is None:
                    book.broken(_wrong_length(name, result, len(part)))
                    return
                _share_out(book, part, results, stopped)
            elif len(part) == 1:
                _fail(book, part[0][:3], failure, False, stopped)
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            book.tick()


def _unpacked(batch: list[Place[Where]], book: Book[Where], stopped: set[Unit]) -> list[Item[Where]]:
    """Give the inputs of a batch, without those that cannot be decoded and those behind them."""
    items: list[Item[Where]] = []
    unpack = book.unpack
    for where, index, unit in batch:
        if stopped and unit in stopped:
            book.skipped(where, index, unit)
            continue
        try:
            value, delivery = unpack(where, index)
        except BaseException as error:  # noqa: BLE001 - whatever a type's own hooks raise, there is no input
            _fail(book, (where, index, unit), error, isinstance(error, DecodeError), stopped)
        else:
            items.append((where, index, unit, value, delivery))
    return items


def _not_stopped(items: list[Item[Where]], book: Book[Where], stopped: set[Unit]) -> list[Item[Where]]:
    if not stopped:
        return items
    for item in items:
        if item[2] in stopped:
            book.skipped(*item[:3])
    return [item for item in items if item[2] not in stopped]


def _share_out(book: Book[Where], part: list[Item[Where]], results: Sequence[object], stopped: set[Unit]) -> None:
    for (where, index, unit, _, _), result in zip(part, results, strict=True):
        if unit in stopped:
            book.skipped(where, index, unit)  # in order, it runs again behind the one that failed
            continue
        failure = result if isinstance(result, BaseException) else _taken(book, where, index, result)
        if failure is not None:
            _fail(book, (where, index, unit), failure, False, stopped)


def _taken(book: Book[Where], where: Where, index: int, result: object) -> BaseException | None:
    try:
        book.put(where, index, result)
    except BaseException as error:  # noqa: BLE001 - a result's own hooks may raise anything while it is written
        return error
    return None


def _fail(book: Book[Where], place: Place[Where], error: BaseException, undecodable: bool, stopped: set[Unit]) -> None:
    where, index, unit = place
    book.failed(where, index, error, undecodable, unit)
    if unit is not None:
        stopped.add(unit)


def _rows(result: Any, count: int) -> Sequence[object] | None:  # noqa: ANN401 - whatever `apply` returned
    """Give the results one by one; None when there are not as many as inputs."""
    if result is None:
        return [None] * count  # as for one input: nothing to publish
    if isinstance(result, (str, bytes, bytearray, dict)) or not hasattr(result, "__len__"):
        return None
    return list(result) if len(result) == count else None


def _wrong_length(name: str, result: Any, count: int) -> BatchResultError:  # noqa: ANN401 - whatever it is
    sized = hasattr(result, "__len__") and not isinstance(result, (str, bytes, bytearray, dict))
    what = f"{len(result)} results" if sized else f"a {type(result).__name__}"
    return BatchResultError(
        f"flow {name}: apply returned {what} for a batch of {count}; it must return a sequence of {count}, "
        "one for each input in order (None in the place of one that publishes nothing). "
        "Nothing of the batch was acknowledged."
    )
