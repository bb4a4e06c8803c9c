"""Which places live in the memory of one process, where a command finds nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from eventflows.flow import Flow
from eventflows.locate import Side, resolve


def file_of(url: str, options: Mapping[str, object], side: Side) -> str | None:
    """Give the file of an embedded broker; empty where it lives in memory, None where it is another broker."""
    _, location, values = resolve(url, options, side, environment=os.environ)
    return str(values.get("file") or "") if location.scheme == "local" else None


def memory_of(flow: Flow[..., Any], side: Side) -> str | None:
    """Name what a flow reads, or writes, in the memory of this process; None where that outlives it."""
    end = flow._source if side == "source" else flow._destination
    if end is None or file_of(end.url, end.options, side) != "":
        return None
    return resolve(end.url, end.options, side, environment=os.environ)[1].authority
