"""Whether the catalogue lets a flow start."""

from __future__ import annotations

import os

from eventflows import catalog
from eventflows.binding import Destination, Source
from eventflows.locate import catalog_of, place_of


def allow(name: str, source: Source | None, destination: Destination | None) -> None:
    """Let a flow start, or say why not; without a catalogue every flow may that names no connection.

    A grant to subscribe covers the dead letters, which are copies of what was read.

    Args:
        name: The flow's.
        source: What it reads from; None: nothing.
        destination: What it writes to; None: nothing.

    Raises:
        GrantError: It may not; the text says the command that mends it.
        ConfigError: It names a connection and there is no catalogue, or the catalogue is broken.
    """
    ends = [end for end in (source, destination) if end is not None]
    uses: list[tuple[catalog.Role, str, bool]] = [
        ("subscriber" if end is source else "publisher", *place_of(end.url)) for end in ends
    ]
    rules = catalog_of(ends[0].url) if any(named for _, _, named in uses) else catalog.load()
    if rules is None:
        return
    given = next((end.algorithm for end in ends if end.algorithm is not None), None)
    algorithm = given or os.environ.get(catalog.ALGORITHM) or None
    if algorithm is not None:
        algorithm = "/".join(algorithm.split("/")[:2])  # a grant is for every version
    rules.allow(name, algorithm, uses)
