"""Rows for a person at a terminal, for a pipe, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence

import click


def show(rows: Sequence[Mapping[str, object]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print rows: a table on a terminal, fields with tabs between them in a pipe, or one JSON list.

    Args:
        rows: Each has the columns; a missing or None one is shown empty.
        columns: Their names, in order.
        as_json: Print JSON instead, with whatever else the rows have.
        empty: Said on standard error when there are no rows.
    """
    if as_json:
        click.echo(json.dumps([dict(row) for row in rows], indent=2, default=str))
        return
    if not rows:
        click.echo(empty, err=True)
        return
    cells = [[_cell(row.get(name)) for name in columns] for row in rows]
    if not sys.stdout.isatty():
        for line in cells:
            click.echo("\t".join(line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for line in cells:
        table.add_row(*map(Text, line))
    Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).replace("\x1b", "?").split())
