"""`eventhubs://` URLs and options: what is refused before anything is opened."""

from __future__ import annotations

import datetime

import pytest

from eventflows.adapters._eventhubs_place import place_of
from eventflows.errors import ConfigError
from eventflows.locate import parse, resolve

JUST_BEFORE = datetime.datetime(2025, 12, 31, 23, 59, 59, 999_000, tzinfo=datetime.UTC)
"""The client begins behind what it is told."""
URL = "eventhubs://shop/telemetry?group=g&checkpoints=memory"


def test_a_namespace_may_be_written_short() -> None:
    """A name without dots is one of the public cloud."""
    assert place_of(parse("eventhubs://shop/telemetry")).host == "shop.servicebus.windows.net"


@pytest.mark.parametrize(
    "url",
    [
        "eventhubs://shop?group=g&checkpoints=memory",
        "eventhubs:///telemetry?group=g&checkpoints=memory",
        "eventhubs://shop/telemetry?checkpoints=memory",
        "eventhubs://shop/telemetry?group=g",
        f"{URL}&from=yesterday",
        f"{URL}&from=2026-01-01T00:00:00",
        f"{URL}&balance=0",
    ],
)
def test_a_source_that_cannot_be_right_is_refused(url: str) -> None:
    """No hub, no namespace, no group, no place for positions, no such beginning."""
    with pytest.raises(ConfigError):
        resolve(url, {}, "source")


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("oldest", "-1"),
        ("newest", "@latest"),
        ("2026-01-01T00:00:00%2B00:00", JUST_BEFORE),
        ("2026-01-01T00:00:00+00:00", JUST_BEFORE),
    ],
)
def test_a_beginning_is_a_word_or_a_time(text: str, position: object) -> None:
    """Both forms of a time's plus sign work."""
    assert resolve(f"{URL}&from={text}", {}, "source")[2]["from"] == position


def test_a_destination_needs_no_group() -> None:
    """Groups and positions are of readers."""
    resolve("eventhubs://shop/telemetry", {}, "destination")
