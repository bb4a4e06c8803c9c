"""Listings in a terminal and in a notebook."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator

import pytest

from eventflows.errors import ConfigError
from eventflows.listeners import ClusterListing, EventListeners, Listener
from eventflows.listing import Listing
from servers.platform import Api, platform

ROWS = [
    Listener(id=2, source_type="AzureSB", algo_owner="ann", algo_name="b", algo_timeout_seconds=30),
    Listener(id="uuid", source_type="AmazonSQS", algo_owner="ann", algo_name="<b>", algo_version="1.0.0"),
    Listener(id=10, source_type="AmazonSQS", algo_timeout_seconds=5),
]


@pytest.fixture
def listing() -> Listing[Listener]:
    """Three rows."""
    return Listing(ROWS, ("id", "source_type", "algorithm"))


def test_listing_is_a_sequence(listing: Listing[Listener]) -> None:
    """Length, index, slice, iteration, comparison with a list."""
    assert (len(listing), listing[0], listing[1:], listing, ROWS[2] in listing) == (3, ROWS[0], ROWS[1:], ROWS, True)


def test_listing_shows_a_text_table(listing: Listing[Listener]) -> None:
    """One line for each row, under the names."""
    lines = repr(listing).splitlines()
    assert (lines[0].split(), lines[2].split()) == (
        ["id", "source_type", "algorithm"],
        ["uuid", "AmazonSQS", "ann/<b>/1.0.0"],
    )


def test_html_is_escaped(listing: Listing[Listener]) -> None:
    """A name may have anything in it."""
    assert "<td>ann/&lt;b&gt;/1.0.0</td>" in listing._repr_html_()


def test_empty_listing_says_so() -> None:
    """Nothing is not an empty line."""
    assert repr(Listing([], ("id",))) == "(nothing)"


def test_rows_are_kept_by_attribute(listing: Listing[Listener]) -> None:
    """And by a function."""
    kept = listing.where(lambda row: row.algo_timeout_seconds is not None, source_type="AmazonSQS")
    assert [row.id for row in kept] == [10]


def test_rows_are_sorted_by_attribute(listing: Listing[Listener]) -> None:
    """Numbers as numbers, before texts; None last."""
    assert [row.id for row in listing.sorted_by("id")] == [2, 10, "uuid"]
    assert [row.id for row in listing.sorted_by("algo_timeout_seconds")] == [10, 2, "uuid"]
    assert [row.id for row in listing.sorted_by("algo_timeout_seconds", reverse=True)] == [2, 10, "uuid"]


@pytest.mark.parametrize("use", [lambda listing: listing.where(owner="x"), lambda listing: listing.sorted_by("owner")])
def test_unknown_attribute_is_named(listing: Listing[Listener], use: object) -> None:
    """With those that there are."""
    with pytest.raises(ConfigError, match="'owner'; the rows have: id, "):
        use(listing)  # type: ignore[operator]


def test_data_frame_has_a_column_for_each_attribute(listing: Listing[Listener]) -> None:
    """Secrets stay stars."""
    frame = listing.to_pandas()
    assert (list(frame["id"]), "source_uri" in frame.columns, len(frame)) == ([2, "uuid", 10], True, 3)


def test_cluster_completes_its_accounts() -> None:
    """With the tab key."""
    listing = ClusterListing({"ann": Listing(ROWS, ("id",)), "bob": Listing([], ("id",))}, {"eve": "HTTP 403"})
    assert listing._ipython_key_completions_() == ["ann", "bob"]
    assert [row.account for row in listing] == ["ann"] * 3
    assert repr(listing).endswith("refused: eve: HTTP 403")


class Terminal(io.StringIO):
    """A standard error that somebody watches."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def slow() -> Iterator[Api]:
    """An API with three accounts, each of whose listings takes its time."""
    with platform() as server:
        wait = threading.Event()

        def rows(_: object) -> list[object]:
            wait.wait(0.6)
            return []

        users = {"results": [{"id": str(number)} for number in range(40)]}
        server.rule = lambda asked: users if asked[1] == "/v1/users" else rows(asked)
        yield server


def test_long_listing_says_how_far_it_is_when_somebody_watches(slow: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, after a second; and wipes it at the end."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    EventListeners(slow.url, api_key="k", admin_api_key="k").all_listeners()
    assert "of 40 accounts" in screen.getvalue()
    assert screen.getvalue().endswith("\r")
