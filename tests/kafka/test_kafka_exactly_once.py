"""Exactly once from Kafka to Kafka: outputs, dead-letter copies and positions are committed as one."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.admin import TransactionState
from kafka.errors import UnknownError

import servers.kafka
from eventflows import Reject, publisher, subscriber
from eventflows.errors import BrokerError, CapabilityError, InvalidMessageError, LeaseLostError, TooLargeError
from eventflows.flow import Flow
from eventflows.message import Chunk, Message
from eventflows.policy import Settlement, Verdict
from eventflows.testing.cases import PLENTY, spread
from eventflows.testing.conditions import pass_time, wait_until
from kafka_harness import KafkaHarness, RdHarness
from kafka_members import SESSION, Members, Place, storm
from kafka_use import administrator, fresh_topic, positions
from servers.kafka import gate, shared
from servers.kafka_gate import END_TRANSACTION, OFFSET_FETCH, Request

pytestmark = pytest.mark.broker
COUNT = 40


@pytest.fixture(params=[KafkaHarness, RdHarness], ids=["kafka-python", "librdkafka"])
def broker(request: pytest.FixtureRequest) -> Iterator[KafkaHarness]:
    """The broker that all share, through each client."""
    harness: KafkaHarness = request.param()
    yield harness
    harness.close()


@pytest.fixture
def topics(broker: KafkaHarness) -> tuple[str, str, str]:
    """A source with messages of four keys, a destination, and a place for dead letters."""
    names = (broker.fresh(), broker.fresh(), broker.fresh())
    for name in names:
        broker.create(name)
    with broker.publisher(names[0]) as source:
        batch = [Message(b"%d" % number, key=f"k{number % 4}") for number in range(COUNT)]
        assert not any(one.error for one in source.publish(batch))
    return names


def committed(broker: KafkaHarness, topic: str) -> list[bytes | None]:
    """Read what a reader of committed messages sees, without joining anything."""
    with broker.subscriber(topic, "reader") as reader:
        seen = []
        while chunks := reader.receive(1000, max_bytes=10_000_000, timeout=2):
            seen += [one.body for one in spread(chunks)]
        return seen


def flow(broker: KafkaHarness, topics: tuple[str, str, str], **options: object) -> Flow[..., object]:
    """A flow that doubles numbers, and refuses 7."""
    source, destination, dead = topics

    def double(input: int) -> int | None:
        if input == 7:
            raise Reject("seven")
        return None if input == 8 else 2 * input

    url, given = broker.source(source)
    place, more = broker.destination(destination)
    return subscriber(
        url, guarantee="exactly-once", dead_letter=broker.destination_url(dead), **given, **options
    )(publisher(place, **more)(double))  # fmt: skip


def test_every_output_is_there_once(broker: KafkaHarness, topics: tuple[str, str, str]) -> None:
    """Outputs, an input without one, and a dead letter."""
    result = flow(broker, topics).run(limit=COUNT, signals=False)
    outputs = sorted(int(body or b"") for body in committed(broker, topics[1]))
    assert outputs == [2 * number for number in range(COUNT) if number not in (7, 8)]
    assert committed(broker, topics[2]) == [b"7"]
    assert (result.acked, result.dead_lettered, result.published) == (COUNT - 1, 1, COUNT - 2)


def test_the_position_is_committed_with_the_outputs(broker: KafkaHarness, topics: tuple[str, str, str]) -> None:
    """Afterwards nothing waits, and a second run finds nothing to do."""
    flow(broker, topics).run(limit=COUNT, signals=False)
    assert sum(broker.committed(topics[0]).values()) == COUNT
    assert flow(broker, topics).run(until_idle=1, signals=False).received == 0


def test_claims_that_end_well_leave_no_producer_to_fence(broker: KafkaHarness, topics: tuple[str, str, str]) -> None:
    """The last transaction of a member says that it left in good order."""
    flow(broker, topics).run(limit=COUNT, signals=False)
    found = positions(shared(), broker.group_of(None))
    assert {place.metadata.rstrip("\0") for place in found.values()} == {""}


def test_outputs_are_there_once_when_the_broker_has_no_word_for_why_it_did_not_commit(
    broker: KafkaHarness, topics: tuple[str, str, str]
) -> None:
    """A broker that begins anew may say so of any transaction; the flow looks at its positions, and goes on."""
    times = [0]

    def once(request: Request) -> int:
        times[0] += request.api == END_TRANSACTION
        return UnknownError.errno if request.api == END_TRANSACTION and times[0] == 1 else 0

    gate().refusals.append(once)
    flow(broker, topics).run(limit=COUNT, signals=False)
    outputs = sorted(int(body or b"") for body in committed(broker, topics[1]))
    assert (times[0] > 1, outputs) == (True, [2 * number for number in range(COUNT) if number not in (7, 8)])


def test_another_cluster_is_refused(broker: KafkaHarness, topics: tuple[str, str, str]) -> None:
    """A destination that is no Kafka shares no transaction."""
    url, given = broker.source(topics[0])
    wrapped = publisher("local://exactly-once-elsewhere")(lambda input: input)
    with pytest.raises(CapabilityError, match="share transactions"):
        subscriber(url, guarantee="exactly-once", **given)(wrapped).run(limit=1, signals=False)


@pytest.mark.trial
@pytest.mark.parametrize("part", ["outputs", "dead letters"])
def test_another_kafka_is_refused(
    broker: KafkaHarness, topics: tuple[str, str, str], part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clusters share no transaction, though both are Kafka."""
    monkeypatch.setattr(servers.kafka, "_CLUSTER_ID", "BBBBBBBBBBBBBBBBBBBBBQ")
    other = servers.kafka.KafkaServer()
    try:
        other.start()
        elsewhere = f"kafka://{other.address()}/{fresh_topic(other)}"
        url, given = broker.source(topics[0])
        place, more = broker.destination(topics[1])
        outputs, dead = (elsewhere, place) if part == "outputs" else (place, elsewhere)
        flow = subscriber(url, guarantee="exactly-once", dead_letter=dead, **given)(
            publisher(outputs, **more)(lambda input: input)
        )
        with pytest.raises(CapabilityError, match="same Kafka cluster"):
            flow.run(limit=1, signals=False)
    finally:
        other.remove()


def test_reading_what_is_not_committed_is_refused(broker: KafkaHarness, topics: tuple[str, str, str]) -> None:
    """Outputs of an input that its own writer took back would be committed."""
    with pytest.raises(CapabilityError, match="read_committed"):
        flow(broker, topics, isolation="read_uncommitted").run(limit=1, signals=False)


@pytest.fixture
def lanes(broker: KafkaHarness) -> tuple[str, str]:
    """A source with ten messages on each of its four partitions, and a destination."""
    names = (broker.fresh(), broker.fresh())
    for name in names:
        broker.create(name)
    with broker.publisher(names[0]) as source:
        batch = [Message(b"%d" % number, options={"partition": number % 4}) for number in range(40)]
        assert not any(one.error for one in source.publish(batch))
    return names


def taken(subscriber: Any, lanes: int) -> list[Chunk]:
    """Receive until there is a chunk of so many lanes; gives the first of each."""
    chunks: dict[str, Chunk] = {}

    def enough() -> bool:
        for chunk in subscriber.receive(1000, max_bytes=PLENTY, timeout=0.2):
            assert chunk.lane is not None
            chunks.setdefault(chunk.lane.name, chunk)
        return len(chunks) >= lanes

    wait_until(enough, 30, what=f"messages of {lanes} lanes")
    return list(chunks.values())


def test_looking_whether_the_group_may_be_used_drops_no_message(broker: KafkaHarness) -> None:
    """Its answer may be late, and messages may have come meanwhile."""
    name = broker.fresh()
    broker.create(name)
    with broker.publisher(name) as publisher, broker.subscriber(name) as source:

        def joined() -> bool:
            source.receive(0, max_bytes=0, timeout=0.1)
            return source.ready

        wait_until(joined, 30, what="a place in the group")
        assert not any(one.error for one in publisher.publish([Message(b"x", key=f"k{n}") for n in range(40)]))
        pass_time(1.0)  # they are fetched, and nobody takes them
        gate().answer_rules.append(lambda request: request.api == OFFSET_FETCH and pass_time(0.5) is not None)
        for _ in range(3):
            with contextlib.suppress(BrokerError):
                source._group.member.probe(0.1)  # type: ignore[attr-defined]
        gate().answer_rules.clear()
        seen: set[str] = set()

        def complete() -> bool:
            seen.update(one.delivery.position for one in spread(source.receive(100, max_bytes=PLENTY, timeout=0.5)))
            return len(seen) == 40

        wait_until(complete, 20, what="every message")


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        ({"max.message.bytes": "2000"}, Message(b"x" * 3000, key="k")),
        ({"cleanup.policy": "compact"}, Message(b"without a key")),
    ],
    ids=["too large for the topic", "without the key that it needs"],
)
def test_an_output_that_the_broker_refuses_fails_alone(
    broker: KafkaHarness, lanes: tuple[str, str], config: dict[str, str], bad: Message
) -> None:
    """Those sent beside it are not blamed; nothing is committed until it is left out."""
    place = fresh_topic(shared(), 1, **config)
    good = [Message(b"%d" % number, key="k") for number in range(20)]
    with broker.publisher(place) as destination, broker.subscriber(lanes[0]) as source:
        source.share_transactions([destination])
        [chunk, *_] = taken(source, 1)
        position = source.claim_position([done(chunk)])
        results = destination.transact([(destination, [*good[:10], bad, *good[10:]])], position)
        assert [index for index, one in enumerate(results) if one.error] == [10]
        assert isinstance(results[10].error, (InvalidMessageError, TooLargeError))
        assert broker.committed(lanes[0])[chunk.lane.name] == 0
        results = destination.transact([(destination, good)], position)
        assert not any(one.error for one in results)
    assert committed(broker, place) == [one.body for one in good]


@contextlib.contextmanager
def second_member(broker: KafkaHarness, topic: str, first: Any) -> Iterator[None]:
    """Let another join the group of the first, and take its share of the lanes."""
    with broker.subscriber(topic) as second:

        def rests() -> bool:
            for member in (first, second):
                member.receive(0, max_bytes=0, timeout=0.1)
            return first.ready and second.ready and [len(one._group.claims) for one in (first, second)] == [2, 2]

        wait_until(rests, 30, what="each of the two members has two lanes")
        yield


def done(chunk: Chunk) -> Settlement:
    """Say that a chunk is done."""
    return Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, len(chunk)))])


def test_what_the_group_refused_is_not_committed_by_the_next_transaction(
    broker: KafkaHarness, lanes: tuple[str, str]
) -> None:
    """Positions of an older generation are refused with their outputs, and stay so."""
    with broker.publisher(lanes[1]) as destination, broker.subscriber(lanes[0]) as source:
        source.share_transactions([destination])
        chunks = taken(source, 4)
        old = {chunk.lane: source.claim_position([done(chunk)]) for chunk in chunks}
        with second_member(broker, lanes[0], source):
            refused, later = [chunk for chunk in chunks if not chunk.lane.lost]
            with pytest.raises(LeaseLostError):
                destination.transact([(destination, [Message(b"refused")])], old[refused.lane])
            position = source.claim_position([done(later)])
            [result] = destination.transact([(destination, [Message(b"later")])], position)
            assert result.error is None
            positions = broker.committed(lanes[0])
            assert (positions[refused.lane.name], positions[later.lane.name]) == (0, len(later))
    assert committed(broker, lanes[1]) == [b"later"]


def test_outputs_of_a_lane_that_moved_are_not_committed(broker: KafkaHarness, lanes: tuple[str, str]) -> None:
    """A transaction with one partition that is another member's by now commits nothing at all."""
    with broker.publisher(lanes[1]) as destination, broker.subscriber(lanes[0]) as source:
        source.share_transactions([destination])
        chunks = taken(source, 4)
        position = source.claim_position([done(chunk) for chunk in chunks])
        with second_member(broker, lanes[0], source):
            with pytest.raises(LeaseLostError):
                destination.transact([(destination, [Message(b"late")])], position)
            assert set(broker.committed(lanes[0]).values()) == {0}
    assert committed(broker, lanes[1]) == []


def test_a_zombie_is_fenced_by_whoever_takes_its_partitions_over(broker: KafkaHarness, lanes: tuple[str, str]) -> None:
    """A member that was taken for dead commits nothing with its old producer."""
    with broker.publisher(lanes[1]) as destination, broker.subscriber(lanes[0]) as zombie:
        zombie.share_transactions([destination])
        chunks = taken(zombie, 4)
        position = zombie.claim_position([done(chunk) for chunk in chunks])
        assert broker.revoke(zombie)
        with broker.publisher(lanes[1]) as own, broker.subscriber(lanes[0]) as successor:
            successor.share_transactions([own])
            again = successor.claim_position([done(chunk) for chunk in taken(successor, 4)])
            with pytest.raises(BrokerError, match="took its partitions over"):
                destination.transact([(destination, [Message(b"zombie")])], position)
            [result] = own.transact([(own, [Message(b"successor")])], again)
            assert result.error is None
    assert committed(broker, lanes[1]) == [b"successor"]


def test_a_zombie_is_told_so_when_its_outputs_are_refused(broker: KafkaHarness, lanes: tuple[str, str]) -> None:
    """What ends its producer comes with the answers to its messages here, not with that to its positions."""
    with broker.publisher(lanes[1]) as destination, broker.subscriber(lanes[0]) as zombie:
        zombie.share_transactions([destination])
        position: Any = zombie.claim_position([done(chunk) for chunk in taken(zombie, 4)])
        assert broker.revoke(zombie)
        with broker.publisher(lanes[1]) as own, broker.subscriber(lanes[0]) as successor:
            successor.share_transactions([own])
            assert taken(successor, 4)
            with pytest.raises(BrokerError, match="took its partitions over"):
                destination.transact([(destination, [Message(b"zombie")] * 100)], position._replace(said={}))
    assert committed(broker, lanes[1]) == []


@pytest.mark.trial
def test_a_frozen_worker_adds_nothing_when_it_wakes_up(broker: KafkaHarness) -> None:
    """Stopped for longer than its session, a worker finds its work done by others, and goes on with what is new."""
    place = Place(broker)
    place.fill(600)
    with place.reader() as reader, Members(place.url, place.destination_url, "exactly-once", count=2) as members:
        reader.until(60)
        frozen = members.processes[0]
        frozen.send_signal(signal.SIGSTOP)
        reader.until(600)
        frozen.send_signal(signal.SIGCONT)
        place.fill(100, start=600)
        reader.until(700)
        assert [members.leave(), members.leave()] == [0, 0]
        assert reader.rest() == 0
        assert set(reader.seen.values()) == {1}


@pytest.mark.trial
def test_a_killed_worker_holds_its_successor_up_for_seconds_only(broker: KafkaHarness) -> None:
    """What was open when it died is ended by whoever takes over, once the group has seen its death: nobody waits."""
    place = Place(broker)
    place.fill(3000)
    with (
        place.reader() as reader,
        Members(place.url, place.destination_url, "exactly-once", count=1, delay=0.001) as members,
    ):
        reader.until(100)
        kill_in_a_transaction(members, place.group)
        reader.rest()
        before = len(reader.seen)
        members.join()
        reader.until(before + 1, within=SESSION + 10)
        reader.until(3000)
        assert set(reader.seen.values()) == {1}


def kill_in_a_transaction(members: Members, group: str) -> None:
    """Kill the only one at a moment when a transaction of it is open."""
    [worker] = members.processes
    with administrator(shared()) as admin:

        def caught() -> bool:
            worker.send_signal(signal.SIGSTOP)
            listed = [
                one for some in admin.list_transactions().values() for one in some if group in one.transactional_id
            ]
            if any(one.state is TransactionState.ONGOING for one in listed):
                return True
            worker.send_signal(signal.SIGCONT)
            return False

        wait_until(caught, 30, what="an open transaction")
    members.kill()


@pytest.mark.trial
@pytest.mark.timeout(600)
def test_each_output_is_there_once_when_the_broker_is_killed(broker: KafkaHarness) -> None:
    """Killed with -9 inside transactions, and started again, it finds the same workers, which go on by themselves."""
    place, server = Place(broker), shared()
    place.fill(1500)
    with Members(place.url, place.destination_url, "exactly-once", count=2, delay=0.002) as members:
        with place.reader() as reader:
            reader.until(150)
        for _ in range(2):
            server.kill()
            server.start()
            with place.reader() as reader:  # it has committed nothing: all is read again
                reader.until(min(len(reader.seen) + 150, 1500))
        with place.reader() as reader:
            reader.until(1500)
            assert reader.rest(SESSION) == 0
        assert set(reader.seen.values()) == {1}
        assert [members.leave(), members.leave()] == [0, 0]


@pytest.mark.trial
@pytest.mark.timeout(600)
def test_each_output_is_there_once_when_workers_are_killed_at_random(broker: KafkaHarness) -> None:
    """Members join, leave and are killed with -9 inside transactions: nothing is missing, nothing comes twice."""
    count = 6000
    reader, what = storm(broker, count, "exactly-once", troubles=10, delay=0.003)
    more = {number: times for number, times in reader.seen.items() if times > 1}
    assert (count - len(reader.seen), more, reader.early) == (0, {}, []), what
