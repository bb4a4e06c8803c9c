"""Splitting to a service's limits."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from eventflows.adapters._split import split

SIZES = st.lists(st.integers(0, 40), max_size=60)


def parts(sizes: list[int], most: int, most_bytes: int | None) -> list[list[int]]:
    """The stretches, as sizes."""
    return [sizes[part] for part in split(sizes, most=most, most_bytes=most_bytes)]


@given(SIZES, st.integers(1, 12), st.none() | st.integers(0, 60))
def test_split_keeps_every_item_once_and_in_order(sizes: list[int], most: int, most_bytes: int | None) -> None:
    """The stretches joined are the batch."""
    assert [size for part in parts(sizes, most, most_bytes) for size in part] == sizes


@given(SIZES, st.integers(1, 12), st.none() | st.integers(0, 60))
def test_split_passes_no_limit_but_for_a_single_item(sizes: list[int], most: int, most_bytes: int | None) -> None:
    """No stretch has too many items, and only one item alone may have too many bytes."""
    for part in parts(sizes, most, most_bytes):
        assert 1 <= len(part) <= most
        assert most_bytes is None or len(part) == 1 or sum(part) <= most_bytes


@given(SIZES, st.integers(1, 12), st.none() | st.integers(0, 60))
def test_split_makes_no_stretch_that_the_one_before_had_room_for(
    sizes: list[int], most: int, most_bytes: int | None
) -> None:
    """Each stretch begins with an item that did not fit into the one before."""
    made = parts(sizes, most, most_bytes)
    for before, after in itertools.pairwise(made):
        assert len(before) == most or (most_bytes is not None and sum(before) + after[0] > most_bytes)


def test_split_gives_nothing_when_there_is_nothing() -> None:
    """An empty batch needs no call."""
    assert parts([], 10, 100) == []


def test_split_fills_both_limits_exactly() -> None:
    """A stretch may be as large as the limits, not one byte less."""
    assert parts([50, 50, 1, 1, 1, 1], 3, 100) == [[50, 50], [1, 1, 1], [1]]
