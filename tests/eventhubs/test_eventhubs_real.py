"""What Event Hubs itself must do, asked of a hub of the service where one is in the environment; else of the stand-in.

A hub cannot be made with a connection string, so it takes one that is there, with two partitions or more, and nothing
of it is deleted. Each test begins at its own time, keeps its positions in a file of its own, and looks only at events
that carry its mark. The group $Default must have no other reader meanwhile.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from amqp import AzureServer
from eventflows import Message, Secret, open_publisher, open_subscriber
from eventflows.errors import AuthenticationError, NotFoundError, TooLargeError
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Subscriber
from eventflows.testing import wait_until
from eventflows.testing.cases import PLENTY, Taken, spread

VARIABLE = "EVENTFLOWS_TEST_EVENTHUBS_CONNECTION_STRING"
STRING = os.environ.get(VARIABLE, "")
PATIENCE = 60.0
SKEW = 60  # seconds by which our clock and the service's may differ

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Place:
    """A hub, by its connection string, for one test.

    Args:
        text: With `EntityPath`.
        folder: For positions.
    """

    def __init__(self, text: str, folder: pathlib.Path) -> None:
        self.text = text
        self.hub = dict(part.split("=", 1) for part in text.strip().rstrip(";").split(";"))["EntityPath"]
        self.mark = uuid.uuid4().hex
        since = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=SKEW)
        self.options: dict[str, Any] = {
            "connection_string": Secret(text), "group": "$Default", "checkpoints": folder / "positions.db",
            "balance": 1, "from": since,
        }  # fmt: skip

    def publish(self, *messages: Message) -> None:
        """Publish, marked, every message confirmed."""
        marked = [Message(self.mark.encode() + one.body, **_rest(one)) for one in messages if one.body is not None]
        with open_publisher(f"eventhubs:///{self.hub}", connection_string=Secret(self.text)) as made:
            assert [one.error for one in made.publish(marked, timeout=PATIENCE)] == [None] * len(messages)

    def subscriber(self) -> Subscriber:
        """Make a subscriber, not opened."""
        return open_subscriber(f"eventhubs:///{self.hub}", **self.options)

    def body(self, taken: Taken) -> bytes:
        """The body, without the mark."""
        return (taken.body or b"").removeprefix(self.mark.encode())

    def take(self, subscriber: Subscriber, count: int) -> list[Taken]:
        """Receive until so many of this test's events are there; others' are passed over, acknowledged."""
        ours: list[Taken] = []

        def enough() -> bool:
            came = spread(subscriber.receive(count - len(ours), max_bytes=PLENTY, timeout=1.0))
            mine = [(one.body or b"").startswith(self.mark.encode()) for one in came]
            ack(subscriber, [one for one, is_mine in zip(came, mine, strict=True) if not is_mine])
            ours.extend(one for one, is_mine in zip(came, mine, strict=True) if is_mine)
            return len(ours) >= count

        wait_until(enough, PATIENCE, what=f"{count} events")
        return ours


def _rest(message: Message) -> dict[str, Any]:
    names = ("key", "headers", "id", "content_type", "options")
    return {name: getattr(message, name) for name in names}


def ack(subscriber: Subscriber, taken: list[Taken]) -> None:
    """Acknowledge, confirmed."""
    said = Settlement(verdict=Verdict.ACK, spans=[one.span for one in taken])
    assert list(subscriber.settle([said], durable=True, timeout=PATIENCE)) == []


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param(
            "service",
            marks=[
                pytest.mark.trial,
                pytest.mark.skipif(not STRING, reason=f"needs a hub: {VARIABLE} is not set, with its EntityPath"),
            ],
        ),
    ]
)
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Place]:
    """The hub: of the stand-in, and of the service."""
    if request.param == "service":
        yield Place(STRING, tmp_path)
        return
    with AzureServer() as server:
        server.hub("telemetry", partitions=2)
        yield Place(f"{server.connection_string};EntityPath=telemetry", tmp_path)


def test_event_arrives_as_it_was_sent(place: Place) -> None:
    """Body, headers, key, id and content type; the service's number and time are beside them."""
    place.publish(Message(b"\x00\xff body", headers={"mine": "kept"}, key="k", id="id-1", content_type="text/x"))
    with place.subscriber() as made:
        [taken] = place.take(made, 1)
    message = taken.delivery.message
    assert (place.body(taken), dict(message.headers)) == (b"\x00\xff body", {"mine": "kept"})
    assert (message.key, message.id, message.content_type) == ("k", "id-1", "text/x")
    assert taken.delivery.enqueued_at is not None
    assert abs(taken.delivery.enqueued_at.timestamp() - time.time()) < SKEW
    assert re.fullmatch(r"\d+:\d+", taken.delivery.position)


def test_events_of_a_key_come_in_order_on_one_lane(place: Place) -> None:
    """Whatever the service's hash is, a key has one partition."""
    place.publish(*[Message(b"%d:%d" % (key, n), key=f"k{key}") for n in range(10) for key in range(3)])
    with place.subscriber() as made:
        taken = place.take(made, 30)
    for key in range(3):
        mine = [one for one in taken if place.body(one).startswith(b"%d:" % key)]
        assert [place.body(one) for one in mine] == [b"%d:%d" % (key, n) for n in range(10)]
        assert len({one.delivery.position.partition(":")[0] for one in mine}) == 1


def test_what_was_done_does_not_come_again_and_the_rest_does(place: Place) -> None:
    """A position is kept where the log is done without a gap, over the end of the member."""
    place.publish(*[Message(b"%d" % n, options={"partition": "0"}) for n in range(6)])
    with place.subscriber() as made:
        taken = place.take(made, 6)
        ack(made, [taken[0], taken[1], taken[4]])
    with place.subscriber() as made:
        again = place.take(made, 4)
        ack(made, again)
    assert [place.body(one) for one in again] == [b"2", b"3", b"4", b"5"]


def test_lag_counts_what_waits(place: Place) -> None:
    """What was taken waits no more, what was not does."""
    place.publish(*[Message(b"%d" % n, options={"partition": "1"}) for n in range(5)])
    with place.subscriber() as made:
        ack(made, place.take(made, 5))
        backlog = made.backlog(timeout=PATIENCE)
    assert backlog is not None
    assert backlog.by_lane[f"{place.hub}/1"] == 0


def test_body_over_the_limit_is_refused_as_too_large(place: Place) -> None:
    """By the link's own limit, whatever the tier is."""
    with open_publisher(f"eventhubs:///{place.hub}", connection_string=Secret(place.text)) as made:
        most = made.capabilities.max_publish_bytes
        assert most is not None
        [result] = made.publish([Message(bytes(most + 1))], timeout=PATIENCE)
    assert isinstance(result.error, TooLargeError)


def test_missing_hub_is_said(place: Place) -> None:
    """The namespace answers, and has no such hub."""
    text = re.sub(r";?EntityPath=[^;]*", "", place.text)
    made = open_subscriber("eventhubs:///nobody-made-this", **{**place.options, "connection_string": Secret(text)})
    with pytest.raises(NotFoundError):
        made.open(timeout=PATIENCE)


def test_wrong_key_is_said_without_it(place: Place) -> None:
    """The error names the credentials and shows none."""
    key = "YS1rZXktdGhhdC1pcy13cm9uZw=="
    text = re.sub(r"SharedAccessKey=[^;]*", f"SharedAccessKey={key}", place.text)
    made = open_subscriber(f"eventhubs:///{place.hub}", **{**place.options, "connection_string": Secret(text)})
    with pytest.raises(AuthenticationError) as caught:
        made.open(timeout=PATIENCE)
    assert key not in str(caught.value)


def test_check_finds_nothing_wrong(place: Place) -> None:
    """Namespace, hub, group and positions."""
    assert [one.level for one in place.subscriber().check()] == ["ok"] * 4  # type: ignore[attr-defined]
