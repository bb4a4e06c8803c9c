"""Splitting a batch to what a service takes in one call: by count and by bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def split(sizes: Sequence[int], *, most: int, most_bytes: int | None = None) -> Iterator[slice]:
    """Cut a batch into stretches, in order, each within both limits and as long as they allow.

    Every item is in exactly one stretch. One that alone passes `most_bytes` comes alone: whether it can be sent is
    for the caller, or the service, to say.

    Args:
        sizes: Bytes of each item, with everything that the service counts.
        most: Items of one call, at least 1.
        most_bytes: Bytes of one call; None: no limit.
    """
    start = held = 0
    for index, size in enumerate(sizes):
        full = index - start >= most or (most_bytes is not None and held + size > most_bytes)
        if full and index > start:
            yield slice(start, index)
            start, held = index, 0
        held += size
    if len(sizes) > start:
        yield slice(start, len(sizes))
