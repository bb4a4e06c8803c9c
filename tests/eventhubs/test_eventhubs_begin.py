"""Where a new group begins, what is to be seen without reading, and how much waits."""

from __future__ import annotations

import datetime

import pytest
from azure.eventhub import EventData

from eventflows import open_publisher, open_subscriber
from eventflows.errors import BrokerError, ConfigError
from eventflows.protocols import Browsable
from eventflows.testing.cases import PLENTY
from eventflows.testing.conditions import wait_until
from eventhubs_harness import EventHubsHarness
from eventhubs_use import UP_TO, ack, bodies, hub, publish, reading, take, to

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def name(broker: EventHubsHarness) -> str:
    """A hub with five events in its first partition."""
    made = hub(broker)
    publish(broker, made, *to(0, b"0", b"1", b"2", b"3", b"4"))
    return made


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        ("oldest", [b"0", b"1", b"2", b"3", b"4"]),
        ("sequence:0", [b"0", b"1", b"2", b"3", b"4"]),
        ("sequence:3", [b"3", b"4"]),
        ({"0": "sequence:4", "1": "newest"}, [b"4"]),
    ],
)
def test_new_group_begins_where_it_is_told(
    broker: EventHubsHarness, name: str, start: object, wanted: list[bytes]
) -> None:
    """A number is that of the first event; partitions can have one each."""
    with reading(broker, name, from_=start) as made:
        assert bodies(take(made, len(wanted))) == wanted
        assert list(made.receive(10, max_bytes=PLENTY, timeout=0.3)) == []


def test_new_group_begins_behind_an_offset(broker: EventHubsHarness, name: str) -> None:
    """An offset is that of the event before, as checkpoints have it."""
    with reading(broker, name) as made:
        offset = take(made, 5)[1].delivery.native.offset  # type: ignore[attr-defined]
    with reading(broker, name, group="other", from_=f"offset:{offset}") as made:
        assert bodies(take(made, 3)) == [b"2", b"3", b"4"]


def test_new_group_begins_at_a_time(broker: EventHubsHarness, name: str) -> None:
    """The first event is the one that was published at that moment or later."""
    with reading(broker, name) as made:
        last = take(made, 5)[4].delivery.enqueued_at
    assert last is not None
    wait_until(lambda: datetime.datetime.now(datetime.UTC) > last + datetime.timedelta(milliseconds=5), 5, what="5 ms")
    publish(broker, name, *to(0, b"later"))
    with reading(broker, name) as made:
        moment = take(made, 6)[5].delivery.enqueued_at
    with reading(broker, name, group="other", from_=moment) as made:
        assert bodies(take(made, 1)) == [b"later"]


def test_new_group_at_the_end_gets_what_comes_later(broker: EventHubsHarness, name: str) -> None:
    """Nothing of before comes."""
    with reading(broker, name, from_="newest") as made:
        readers = broker._server.broker.hubs[name].partitions[0].readers
        wait_until(lambda: len(readers) == 1, UP_TO, what="a reader")
        publish(broker, name, *to(0, b"later"))
        assert bodies(take(made, 1)) == [b"later"]


def test_member_is_ready_when_its_links_are_open(broker: EventHubsHarness, name: str) -> None:
    """What is published from then on comes, though the group begins at the end."""
    with open_publisher(broker.source_url(name)) as source, reading(broker, name, from_="newest") as made:
        wait_until(lambda: made.ready, UP_TO, what="the member ready")
        source.publish([*to(0, b"0"), *to(1, b"1")])
        assert bodies(take(made, 2)) == [b"0", b"1"]


def test_member_is_not_ready_while_its_links_do_not_open(broker: EventHubsHarness, name: str) -> None:
    """That its partitions are assigned is not enough."""
    broker._server.freeze("open", f"{name}/ConsumerGroups")
    with reading(broker, name) as made:
        wait_until(lambda: made._member.claims, UP_TO, what="a claim")  # type: ignore[attr-defined]
        assert not made.ready
        broker._server.thaw("open")
        made.open()
        wait_until(lambda: made.ready, UP_TO, what="the member ready")


def test_group_with_a_position_goes_on_there_whatever_it_is_told(broker: EventHubsHarness, name: str) -> None:
    """And the event at the position does not come again."""
    with reading(broker, name) as made:
        assert ack(made, take(made, 3)) == []
    with reading(broker, name, from_="sequence:1") as made:
        assert bodies(take(made, 2)) == [b"3", b"4"]


# Looking.


def test_peek_looks_through_the_default_group_while_a_member_reads(broker: EventHubsHarness, name: str) -> None:
    """The service lets nobody read beside a member; the member keeps its partitions."""
    with reading(broker, name, group="readers") as made:
        taken = take(made, 5)
        url = broker.source_url(name)
        looking = open_subscriber(url, **{**broker.source_options, "group": "readers"})
        assert isinstance(looking, Browsable)
        assert [one.message.body for one in looking.peek(3, timeout=UP_TO)] == [b"0", b"1", b"2"]
        assert ack(made, taken) == []


def test_peek_says_what_to_do_when_every_group_is_read(broker: EventHubsHarness, name: str) -> None:
    """It takes no partition from anybody."""
    with reading(broker, name) as made:
        taken = take(made, 5)
        looking = open_subscriber(broker.source_url(name), **broker.source_options)
        assert isinstance(looking, Browsable)
        with pytest.raises(BrokerError, match="consumer group"):
            looking.peek(1, timeout=UP_TO)
        assert ack(made, taken) == []


@pytest.mark.parametrize("start", ["7", "9:0", "0:99", "0:x"])
def test_peek_refuses_a_start_that_is_none(broker: EventHubsHarness, name: str, start: str) -> None:
    """A position is a partition and a number that it has."""
    looking = open_subscriber(broker.source_url(name), **broker.source_options)
    assert isinstance(looking, Browsable)
    with pytest.raises(ConfigError):
        looking.peek(1, start=start, timeout=UP_TO)


def test_lag_counts_what_no_member_has_read(broker: EventHubsHarness, name: str) -> None:
    """By partition, those without events included; what is held here does not count."""
    with reading(broker, name) as made:
        assert ack(made, take(made, 2)) == []
    with reading(broker, name) as made:
        publish(broker, name, *to(2, b"x"))
        take(made, 1)
        found = made.backlog(timeout=UP_TO)
    assert found is not None
    assert found.waiting == 3
    assert set(found.by_lane) == {f"{name}/0", f"{name}/1", f"{name}/2"}


# What is made of events.


def test_events_that_nobody_looks_at_are_not_made(broker: EventHubsHarness, name: str) -> None:
    """What came waits as the client's AMQP layer has read it."""
    with reading(broker, name) as made:
        waiting = [event for one in take(made, 5) for event in one.span[0].events]  # type: ignore[attr-defined]
    assert [event for event in waiting if isinstance(event, EventData)] == []


def test_events_arrive_when_the_version_of_the_client_is_unknown(
    broker: EventHubsHarness, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read its own way."""
    monkeypatch.setattr("azure.eventhub.__version__", "6.0.0")
    with reading(broker, name) as made:
        taken = take(made, 5)
        assert ack(made, taken) == []
    assert bodies(taken) == [b"0", b"1", b"2", b"3", b"4"]
    assert broker.committed(name) == {f"{name}/0": 5}
