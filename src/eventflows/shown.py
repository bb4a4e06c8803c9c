"""Flows and previews as values that a terminal and a notebook can show."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import overload

import attrs


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


@attrs.frozen(kw_only=True)
class Description:
    """What a flow is; secrets are hidden."""

    name: str
    source: str | None
    source_options: Mapping[str, object]
    destination: str | None
    destination_options: Mapping[str, object]
    settings: Mapping[str, object]
    """The flow's own options: retry, dead_letter, order, workers and so on."""

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("flow", self.name)]
        for what, url, options in (
            ("source", self.source, self.source_options),
            ("destination", self.destination, self.destination_options),
        ):
            if url is not None:
                rows.append((what, url))
                rows.extend((f"  {name}", repr(value)) for name, value in options.items())
        rows.extend((name, str(value)) for name, value in self.settings.items())
        return rows

    def __str__(self) -> str:
        """Show one line for each thing."""
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _repr_html_(self) -> str:
        return _table(self._rows())


@attrs.frozen
class PreviewRow:
    """One input and what `apply` made of it."""

    input: object
    """The decoded input; None when it could not be decoded."""
    output: object
    error: BaseException | None
    seconds: float
    """How long `apply` took."""


class Preview(Sequence[PreviewRow]):
    """What `apply` would do with the messages that wait; none was taken.

    Args:
        rows: In the order of the source.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[PreviewRow]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> PreviewRow: ...
    @overload
    def __getitem__(self, index: slice) -> Preview: ...
    def __getitem__(self, index: int | slice) -> PreviewRow | Preview:
        """Give a row, or several."""
        return Preview(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def _cells(self) -> list[list[str]]:
        return [
            [
                _short(row.input),
                _short(row.output) if row.error is None else f"{type(row.error).__name__}: {row.error}"[:200],
                f"{row.seconds * 1000:.3g} ms",
            ]
            for row in self._rows
        ]

    def __repr__(self) -> str:
        """Show a line for each row; the person who asked for a preview wants to see the values."""
        if not self._rows:
            return "nothing waits"
        return "\n".join(f"{given}  ->  {made}  ({seconds})" for given, made, seconds in self._cells())

    def _repr_html_(self) -> str:
        return _table(self._cells(), ("input", "output", "seconds"))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
