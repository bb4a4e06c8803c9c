"""What goes wrong on the way: calls that never return, claims that are lost, links that are dropped, events refused."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eventflows import HaltedError, Message, open_publisher, open_subscriber, publisher, subscriber
from eventflows.adapters._eventhubs_claims import AHEAD, Claim
from eventflows.adapters._eventhubs_member import Member
from eventflows.adapters._eventhubs_place import Place
from eventflows.adapters._eventhubs_positions import SAVE_SECONDS, Positions
from eventflows.adapters._eventhubs_store import SqliteStore
from eventflows.errors import BrokerError, ConnectionFailedError, InvalidMessageError, LeaseLostError, NotFoundError
from eventflows.policy import RetryPolicy, Settlement, Verdict
from eventflows.testing.cases import PLENTY, numbered
from eventflows.testing.conditions import wait_until
from eventhubs_harness import EventHubsHarness
from eventhubs_use import UP_TO, ack, bodies, hub, publish, reading, take, to

# The vendor's client leaves sockets for the collector when a connection was cut under it.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

KEY = {"fully_qualified_namespace": "shop", "eventhub_name": "telemetry", "consumer_group": "g", "partition_id": "0"}


def failure(made: Any, within: float = UP_TO) -> BrokerError:
    """Receive until it raises."""
    found: list[BrokerError] = []

    def raised() -> bool:
        try:
            made.receive(0, max_bytes=PLENTY, timeout=0.2)
        except BrokerError as error:
            found.append(error)
        return bool(found)

    wait_until(raised, within, what="an error")
    return found[0]


# Calls that never return.


@pytest.mark.parametrize("side", ["source", "destination"])
def test_opening_comes_back_when_the_service_never_answers(broker: EventHubsHarness, side: str) -> None:
    """Neither half of the client has a bound of its own for a token that is never acknowledged."""
    name = hub(broker)
    broker._server.freeze("open", "$cbs")
    url = broker.source_url(name)
    made = open_subscriber(url, **broker.source_options) if side == "source" else open_publisher(url)
    begun = time.monotonic()
    with pytest.raises(ConnectionFailedError):
        made.open(timeout=1.0)
    assert time.monotonic() - begun < 5.0
    broker._server.thaw("open")
    made.open()
    made.close()


@pytest.mark.parametrize("side", ["source", "destination"])
def test_opening_comes_back_when_its_session_ends_meanwhile(broker: EventHubsHarness, side: str) -> None:
    """The client hears of it, and waits on; the next time it opens."""
    url, server = broker.source_url(hub(broker)), broker._server
    made = open_subscriber(url, **broker.source_options) if side == "source" else open_publisher(url)
    server.call(lambda: setattr(server.broker.faults, "endings", 1))
    begun = time.monotonic()
    with contextlib.suppress(ConnectionFailedError):  # a client that notices, and tries again in time, is no worse
        made.open(timeout=1.0)
    assert time.monotonic() - begun < 5.0
    server.call(lambda: setattr(server.broker.faults, "endings", 0))
    made.open()
    made.close()


def test_publishing_comes_back_when_a_refusal_cannot_be_read(broker: EventHubsHarness) -> None:
    """The client fails inside its own callback, and waits for ever; the publisher goes on without it."""
    name, server = hub(broker), broker._server
    with open_publisher(broker.source_url(name)) as made:
        server.call(lambda: setattr(server.broker.faults, "terse", True))
        server.plan("publish", "com.microsoft:argument-error", entity=name)
        begun = time.monotonic()
        [result] = made.publish([Message(b"x")], timeout=1.0)
        assert (result.error is not None, time.monotonic() - begun < 5.0) == (True, True)
        [result] = made.publish([Message(b"y")], timeout=UP_TO)
        assert result.error is None


@pytest.mark.trial  # an answer is waited for that never comes
def test_reader_whose_link_never_opens_is_noticed(broker: EventHubsHarness) -> None:
    """It is owned and renewed and gives nothing: the watch says so, and once opened again everything comes."""
    name = hub(broker)
    publish(broker, name, *numbered(6))
    broker._server.freeze("open", f"{name}/ConsumerGroups")
    with reading(broker, name, watch=0.5) as made:
        assert isinstance(failure(made), ConnectionFailedError)
        broker._server.thaw("open")
        made.open()
        assert len(take(made, 6)) == 6


def test_group_that_is_missing_is_said(broker: EventHubsHarness) -> None:
    """The client's readers would try for ever without a word."""
    broker._server.hub("closed", partitions=2, groups=())
    with reading(broker, "closed", group="nobody") as made:
        assert isinstance(failure(made), NotFoundError)


def test_watch_is_silent_while_partitions_are_empty_or_read(broker: EventHubsHarness) -> None:
    """Silence is no fault where there is nothing to give, and neither is an event that nobody takes."""
    name = hub(broker)
    publish(broker, name, *to(0, *[b"x"] * 3))
    with reading(broker, name, watch=0.2) as made:
        for _ in range(10):
            made.receive(0, max_bytes=PLENTY, timeout=0.2)
        assert len(take(made, 3)) == 3


# What the client calls.


def member(store: Any) -> Member:
    """A membership of a hub that nobody has connected."""
    place = Place(host="shop.servicebus.windows.net", hub="telemetry", text="eventhubs://shop/telemetry")
    return Member(place, {"group": "g"}, Positions(store, place.text), lambda _: None)


class Unreadable:
    """An event whose body cannot be decoded."""

    @property
    def data(self) -> object:
        """Fail, as the client does when it meets a type that it does not know."""
        raise TypeError("no such body")


def test_event_that_cannot_be_read_raises_nothing_at_the_client() -> None:
    """The claim ends, so that nothing behind it is taken for done, and the flow hears of it."""
    made = member(SqliteStore(None))
    made.begin(dict(KEY), None, None, 1)
    claim = made.claims["0"]
    asyncio.run(made._on_events(SimpleNamespace(partition_id="0"), [Unreadable()]))
    assert (claim.lane.lost, made.claims, [type(error) for error in made.errors]) == (True, {}, [BrokerError])


def test_store_that_cannot_be_read_raises_nothing_at_the_client(tmp_path: Path) -> None:
    """The client reads on from where it was told; the flow hears of the store."""
    made = member(SqliteStore(str(tmp_path / "missing" / "checkpoints.db")))
    asyncio.run(made._on_claim(SimpleNamespace(**KEY)))
    assert list(made.claims) == ["0"]
    assert len(made.errors) == 1


# Claims.


def steal(broker: EventHubsHarness, name: str) -> None:
    """Write into the store that another member owns the first partition, as one that takes it by force does."""
    with contextlib.closing(sqlite3.connect(f"{broker._folder}/checkpoints.db")) as store, store:
        store.execute(
            "update ownership set owner_id = 'another', etag = 'its', last_modified_time = ? "
            "where partition_id = '0' and eventhub_name = ?",
            (time.time() + 60, name),
        )


def test_member_that_lost_its_claim_writes_no_position(broker: EventHubsHarness) -> None:
    """Its settlement fails, and what its successor has written stays."""
    name = hub(broker)
    publish(broker, name, *to(0, b"1", b"2", b"3"))
    with reading(broker, name, balance=5) as made:
        taken = take(made, 3)
        assert ack(made, taken[:1]) == []
        steal(broker, name)
        assert ack(made, taken[1:]) == [LeaseLostError] * 2
    assert broker.committed(name) == {f"{name}/0": 1}


def test_lanes_are_lost_when_another_member_takes_them(broker: EventHubsHarness) -> None:
    """At its next balancing the member learns it, and nothing can be settled any more."""
    name = hub(broker)
    publish(broker, name, *to(0, b"1"))
    with reading(broker, name) as made:
        [taken] = take(made, 1)
        steal(broker, name)
        lane = taken.chunk.lane
        assert lane is not None
        wait_until(lambda: lane.lost, UP_TO, what="the end of the claim")
        assert ack(made, [taken]) == [LeaseLostError]


def test_position_never_passes_an_unfinished_event(broker: EventHubsHarness) -> None:
    """Of five events the third is not done: whatever finishes behind it, the position stays before it."""
    name = hub(broker)
    publish(broker, name, *to(1, *[b"%d" % number for number in range(5)]))
    with reading(broker, name) as made:
        taken = take(made, 5)
        ack(made, [taken[0], taken[1], taken[3], taken[4]])
        made.flush(timeout=UP_TO)
    assert broker.committed(name) == {f"{name}/1": 2}


def test_position_is_written_in_time_while_the_member_reads_on(broker: EventHubsHarness) -> None:
    """Nobody flushes and nothing closes: a position is written when its time has come."""
    name = hub(broker)
    publish(broker, name, *to(0, b"0", b"1", b"2"))
    with reading(broker, name) as made:
        taken = take(made, 3)
        made.settle([Settlement(verdict=Verdict.ACK, spans=[one.span for one in taken[:2]])])
        assert broker.committed(name) == {}

        def is_written() -> bool:
            made.receive(0, max_bytes=0, timeout=0.1)
            return broker.committed(name) == {f"{name}/0": 2}

        wait_until(is_written, SAVE_SECONDS * 2, what="the position")


@pytest.mark.parametrize(
    ("done", "seconds", "due"),
    [(500, 1.1, True), (499, 1.1, False), (500, 0.5, False), (1, 5.1, True), (1, 4.5, False), (0, 60.0, False)],
)
def test_position_is_due_by_count_and_by_time(done: int, seconds: float, due: bool) -> None:
    """After 500 events, at most once a second; or after 5 seconds; where something is done at all."""
    claim = Claim("here", KEY, None, None)
    claim.finished, claim.saved_at = done, time.monotonic() - seconds
    assert Positions(SqliteStore(None), "here").is_due(claim) is due


def test_stuck_partition_delays_neither_the_others_nor_the_renewal(broker: EventHubsHarness) -> None:
    """One partition's buffer is full and nobody takes from it; the next one's events come, and ownership is renewed."""
    name = hub(broker)
    publish(broker, name, *to(0, *[b"stuck"] * (3 * AHEAD)))
    with reading(broker, name) as made:
        stuck = take(made, 1)[0].chunk.lane
        assert stuck is not None
        claim = made._member.claims["0"]
        wait_until(lambda: len(claim.waiting) >= AHEAD, UP_TO, what="a full buffer")
        begun = renewed(broker, name)
        publish(broker, name, *to(1, b"free"))
        assert bodies(take(made, 1, skip=[stuck])) == [b"free"]
        wait_until(lambda: renewed(broker, name) > begun, UP_TO, what="a renewal of every partition")
        assert not stuck.lost


def renewed(broker: EventHubsHarness, name: str) -> float:
    """When the ownership that was renewed longest ago was renewed."""
    with contextlib.closing(sqlite3.connect(f"{broker._folder}/checkpoints.db")) as store:
        found = store.execute("select min(last_modified_time) from ownership where eventhub_name = ?", (name,))
        return float(found.fetchone()[0])


# Links.


def test_traffic_goes_on_when_idle_links_are_dropped(broker: EventHubsHarness) -> None:
    """The service detaches what is idle; the next publication and the flow meet it without a loss."""
    name = hub(broker)
    seen: set[bytes] = set()

    @subscriber(broker.source_url(name), **broker.source_options, retry=RetryPolicy(delay=0.1))  # type: ignore[arg-type]
    def apply(body: bytes) -> None:
        seen.add(body)

    @publisher(broker.source_url(name))
    def say(body: bytes) -> bytes:
        return body

    with apply.running():
        say(b"before")
        wait_until(lambda: seen == {b"before"}, UP_TO, what="the event before")
        assert broker._server.detach("amqp:link:detach-forced", match=lambda link: f"/{name}" in link.address) > 0
        say(b"after")
        wait_until(lambda: seen == {b"before", b"after"}, UP_TO, what="the event after")
    say.close()


def test_event_that_is_refused_fails_alone(broker: EventHubsHarness) -> None:
    """Of a batch of ten in one publication, the one at fault has its error; the others are in."""
    name = hub(broker)
    broker.faults(name).fail_message(lambda message: message.body == b"4", InvalidMessageError("no"), times=4)
    with open_publisher(broker.source_url(name)) as made:
        errors = [one.error for one in made.publish(numbered(10, key="k"))]
    assert [type(error) for error in errors if error is not None] == [InvalidMessageError]
    assert errors[4] is not None
    with reading(broker, name) as reader:
        assert bodies(take(reader, 9)) == [b"%d" % number for number in range(10) if number != 4]


# Failures of `apply`.


def test_event_that_fails_goes_to_the_dead_letters_of_the_flow(broker: EventHubsHarness) -> None:
    """The copy says why, and the position passes the event once the copy is confirmed."""
    name, dead = hub(broker), hub(broker)

    @subscriber(
        broker.source_url(name), **broker.source_options, retry=RetryPolicy(attempts=2, delay=0.1),  # type: ignore[arg-type]
        dead_letter=broker.source_url(dead),
    )  # fmt: skip
    def apply(body: bytes) -> None:
        if body == b"bad":
            raise ValueError("it is bad")

    publish(broker, name, *to(0, b"good", b"bad", b"good"))
    result = apply.run(limit=3, signals=False)
    assert (result.acked, result.dead_lettered) == (2, 1)
    assert broker.committed(name) == {f"{name}/0": 3}
    with reading(broker, dead) as reader:
        [copy] = take(reader, 1)
    assert copy.delivery.message.body == b"bad"
    assert copy.delivery.message.headers["ef-reason"] == "attempts used up"


def test_flow_without_dead_letters_halts_at_the_event(broker: EventHubsHarness) -> None:
    """Nothing is dropped: the position stays before it."""
    name = hub(broker)

    @subscriber(broker.source_url(name), **broker.source_options, retry=RetryPolicy(attempts=1))  # type: ignore[arg-type]
    def apply(body: bytes) -> None:
        if body == b"bad":
            raise ValueError("it is bad")

    publish(broker, name, *to(0, b"good", b"bad", b"good"))
    with pytest.raises(HaltedError):
        apply.run(limit=3, signals=False)
    assert broker.committed(name) == {f"{name}/0": 1}


def test_claims_are_counted_when_their_process_dies(broker: EventHubsHarness) -> None:
    """The first event of a position says how many claims began there and were never ended; a good end takes one off."""
    name = hub(broker)
    publish(broker, name, *to(0, b"1", b"2"))
    with reading(broker, name) as made:
        assert [one.delivery.attempt for one in take(made, 2)] == [1, 1]
    with reading(broker, name) as made:
        assert [one.delivery.attempt for one in take(made, 2)] == [1, 1]
    lost = Positions(SqliteStore(f"{broker._folder}/checkpoints.db"), "here")
    with reading(broker, name) as made:
        claim = made._member.claims["0"] if made.ready else take(made, 2)[0].chunk.claim  # type: ignore[attr-defined]
        key = dict(claim.key)
    asyncio.run(lost.count(key, -1))  # what a process writes that is killed before it ends the claim
    with reading(broker, name) as made:
        assert [one.delivery.attempt for one in take(made, 2)] == [2, 1]
