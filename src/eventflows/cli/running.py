"""How the commands run flows: progress, and what is said at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from eventflows.cli.progress import Counts, shown
from eventflows.errors import LoadError, RunError
from eventflows.flow import Flow, run_observed


def run_flows(found: Sequence[Flow[..., Any]], limit: int | None, until_idle: float | None) -> None:
    """Run flows until they are stopped, limited or idle, and say what each did.

    Raises:
        EventflowsError: What `eventflows.run` raises; what was done until then is said.
    """
    counts = Counts()
    try:
        with shown(counts.line, counts.counts):
            results = run_observed(found, [counts], limit=limit, until_idle=until_idle, exiting=True)
    except RunError as error:
        if not isinstance(error, LoadError) and error.result is not None:
            click.echo(f"{found[0].name}: {error.result}" if len(found) == 1 else str(error.result))
        raise
    for flow, result in zip(found, results, strict=True):
        click.echo(f"{flow.name}: {result}")
