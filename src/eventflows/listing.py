"""Listings: sequences of values that a terminal and a notebook show as a table."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, overload

import attrs

from eventflows.errors import ConfigError, MissingExtraError

T = TypeVar("T")
_WIDEST = 60


class Listing(Sequence[T], Generic[T]):
    """A sequence of values with the same attributes: shown as a table, filtered and sorted by attribute.

    `where` and `sorted_by` give new listings. Secrets are shown as stars, here and in a data frame.

    Args:
        rows: In order.
        columns: The attributes that a table shows.
    """

    __slots__ = ("_columns", "_rows")

    def __init__(self, rows: Iterable[T], columns: Sequence[str]) -> None:
        self._rows = tuple(rows)
        self._columns = tuple(columns)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Listing[T]: ...
    def __getitem__(self, index: int | slice) -> T | Listing[T]:
        """Give a row, or several."""
        return self._like(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __iter__(self) -> Iterator[T]:
        """Give row after row."""
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        """Compare row by row, with a list, too."""
        if isinstance(other, (Listing, list, tuple)):
            return self._rows == tuple(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _like(self, rows: Iterable[T]) -> Listing[T]:
        return Listing(rows, self._columns)

    def _names(self) -> list[str]:
        first = type(self._rows[0]) if self._rows else None
        return [field.name for field in attrs.fields(first)] if first is not None and attrs.has(first) else []

    def where(self, test: Callable[[T], bool] | None = None, /, **equal: object) -> Listing[T]:
        """Keep the rows for which a function says yes, and whose attributes are what is given.

        Args:
            test: Takes a row; None: none is asked.
            equal: Attributes, and what they are to be.

        Raises:
            ConfigError: The rows have no such attribute; the text lists those they have.
        """
        for name in equal:
            self._check(name)
        return self._like(
            row
            for row in self._rows
            if (test is None or test(row)) and all(getattr(row, name) == value for name, value in equal.items())
        )

    def sorted_by(self, *names: str, reverse: bool = False) -> Listing[T]:
        """Sort by attributes, the first one first; None comes last.

        Args:
            names: Of attributes.
            reverse: The largest first.

        Raises:
            ConfigError: The rows have no such attribute; the text lists those they have.
        """
        for name in names:
            self._check(name)

        def rank(row: T) -> list[tuple[bool, tuple[bool, float, str]]]:
            values = [getattr(row, name) for name in names]
            return [((value is None) != reverse, _rank(value)) for value in values]

        return self._like(sorted(self._rows, key=rank, reverse=reverse))

    def _check(self, name: str) -> None:
        if self._rows and not hasattr(self._rows[0], name):
            raise ConfigError(f"There is no attribute {name!r}; the rows have: {', '.join(self._names())}.")

    def to_pandas(self) -> Any:  # noqa: ANN401 - pandas is not a dependency
        """Make a data frame, one column for each attribute.

        Raises:
            MissingExtraError: pandas is not installed. Install it.
        """
        try:
            import pandas
        except ImportError:
            raise MissingExtraError("to_pandas() needs pandas. Install it: pip install pandas.") from None
        names = self._names() or list(self._columns)
        return pandas.DataFrame([[_plain(getattr(row, name)) for name in names] for row in self._rows], columns=names)

    def __repr__(self) -> str:
        """Show a text table."""
        if not self._rows:
            return "(nothing)"
        lines = [list(self._columns), *([_short(getattr(row, name)) for name in self._columns] for row in self._rows)]
        widths = [max(len(line[at]) for line in lines) for at in range(len(self._columns))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self._columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_text(getattr(row, name)))}</td>" for name in self._columns) + "</tr>"
            for row in self._rows
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def _rank(value: object) -> tuple[bool, float, str]:
    """Rank numbers among each other, and texts behind them: ids may be either."""
    number = isinstance(value, (int, float))
    return not number, float(value) if isinstance(value, (int, float)) else 0.0, str(value).casefold()


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, (str, int, float, bool, dict)) else str(value)


def _text(value: object) -> str:
    return "" if value is None else " ".join(str(value).split())


def _short(value: object) -> str:
    text = _text(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
