"""The embedded broker as a log: partitions, members, claims and committed positions, in memory and in a file."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventflows.adapters._local_faults import Faults
from eventflows.adapters._local_log import LogStore, MemoryLog, balance, partition_of
from eventflows.adapters._local_log_file import FileLog
from eventflows.adapters._local_member import LogChunk, Member, peek
from eventflows.errors import BrokerError, ConfigError, ConnectionFailedError, LeaseLostError
from eventflows.message import Message
from eventflows.policy import Settlement, Verdict

FAULTS = Faults()


@pytest.fixture(params=["memory", "file"])
def log(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> LogStore:
    """An empty log of four partitions."""
    return MemoryLog() if request.param == "memory" else FileLog(str(tmp_path / "flows.db"), "orders", sync="normal")


def join(log: LogStore, group: str = "g") -> Member:
    """A member that has what it can have."""
    member = Member(log, "orders", group, "local://orders")
    member.follow()
    return member


def read(member: Member, limit: int = 100) -> list[LogChunk]:
    """Read everything there is."""
    return member.read(limit, 1 << 20, ())


def bodies(chunks: list[LogChunk]) -> list[bytes | None]:
    """The bodies, in order."""
    return [body for chunk in chunks for body in chunk.bodies]


def ack(member: Member, chunk: LogChunk, start: int, stop: int) -> list[type[BrokerError]]:
    """Acknowledge a stretch; gives the classes of the failures."""
    settlement = Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(start, stop))])
    return [type(failure.error) for failure in member.settle([settlement], FAULTS)]


def publish(log: LogStore, count: int, key: str = "one") -> int:
    """Publish messages of one key; gives their partition."""
    positions = log.append([Message(b"%d" % number, key=key) for number in range(count)])
    return int(positions[0].partition(":")[0])


def test_key_is_always_in_one_partition(log: LogStore) -> None:
    """Messages of one key lie in one partition, in order."""
    positions = log.append([Message(b"", key="k")] * 3)
    place = partition_of("k", 0, 4)
    assert positions == [f"{place}:{offset}" for offset in range(3)]


def test_messages_without_a_key_take_turns(log: LogStore) -> None:
    """Messages without a key are spread over all partitions."""
    positions = log.append([Message(b"")] * 8)
    assert sorted(positions) == [f"{partition}:{offset}" for partition in range(4) for offset in range(2)]


def test_first_member_has_every_partition(log: LogStore) -> None:
    """Alone in its group, a member gets everything."""
    log.append([Message(b"%d" % number) for number in range(8)])
    assert sorted(bodies(read(join(log)))) == [b"%d" % number for number in range(8)]  # type: ignore[type-var]


def test_second_member_takes_half_at_once(log: LogStore) -> None:
    """Another member gets its share though the first one is busy and calls nothing."""
    first = join(log)
    second = join(log)
    log.append([Message(b"%d" % number) for number in range(8)])
    assert (len(bodies(read(first))), len(bodies(read(second)))) == (4, 4)


def test_lanes_that_move_are_lost_for_their_owner(log: LogStore) -> None:
    """The fence goes up before another member has the partition; what stays keeps its lane."""
    log.append([Message(b"%d" % number) for number in range(4)])
    chunks = read(join(log))
    join(log)
    assert sorted(chunk.lane is not None and chunk.lane.lost for chunk in chunks) == [False, False, True, True]


def test_late_ack_after_a_move_commits_nothing(log: LogStore) -> None:
    """An ack on a lane that has moved is a no-op, reported as a lost lease; the new owner sees the message."""
    log.append([Message(b"%d" % number) for number in range(4)])
    first = join(log)
    chunks = read(first)
    second = join(log)
    lost = [chunk for chunk in chunks if chunk.lane is not None and chunk.lane.lost]
    assert [ack(first, chunk, 0, 1) for chunk in lost] == [[LeaseLostError]] * 2
    assert sorted(bodies(read(second))) == sorted(bodies(lost))  # type: ignore[type-var]


def test_member_that_leaves_hands_its_partitions_over(log: LogStore) -> None:
    """What it had not finished comes to those that stay."""
    log.append([Message(b"%d" % number) for number in range(8)])
    first, second = join(log), join(log)
    seen = read(first)
    first.leave()
    second.follow()
    assert set(bodies(seen)) <= set(bodies(read(second)))


def test_committed_position_is_the_end_of_the_unbroken_prefix(log: LogStore) -> None:
    """Of five, with 0, 1 and 3 done, the next to read is 2."""
    partition = publish(log, 5)
    member = join(log)
    [chunk] = read(member)
    ack(member, chunk, 3, 4)
    ack(member, chunk, 0, 2)
    assert log.committed("g")[partition] == 2


def test_new_group_starts_at_the_oldest(log: LogStore) -> None:
    """A group of a new name gets what another has finished."""
    publish(log, 3)
    first = join(log)
    ack(first, read(first)[0], 0, 3)
    assert bodies(read(join(log, "other"))) == [b"0", b"1", b"2"]


def test_first_claim_is_the_first_attempt(log: LogStore) -> None:
    """Nothing has gone wrong yet."""
    publish(log, 2)
    [chunk] = read(join(log))
    assert [delivery.attempt for delivery in chunk] == [1, 1]


def test_claim_that_ended_badly_counts_for_the_head_alone(log: LogStore) -> None:
    """After two claims that were cut off, the message at the position is at its third attempt; the next is not."""
    publish(log, 2)
    member = join(log)
    for _ in range(2):
        read(member)
        log.expel("g")
        member.follow()
    [chunk] = read(member)
    assert [delivery.attempt for delivery in chunk] == [3, 1]


def test_progress_starts_the_count_again(log: LogStore) -> None:
    """Once the position has moved, a claim that is cut off is the first one there."""
    publish(log, 2)
    member = join(log)
    for _ in range(3):
        [chunk] = read(member)
        log.expel("g")
        member.follow()
    [chunk] = read(member)
    ack(member, chunk, 0, 1)
    log.expel("g")
    member.follow()
    [chunk] = read(member)
    assert [delivery.attempt for delivery in chunk] == [2]


def test_claim_given_up_in_good_order_costs_nothing(log: LogStore) -> None:
    """Restarts that hand back what they hold use no attempt up."""
    publish(log, 1)
    for _ in range(3):
        member = join(log)
        [chunk] = read(member)
        member.leave()
    assert chunk[0].attempt == 1


def test_expelled_member_joins_again_with_new_lanes(log: LogStore) -> None:
    """It reads on from what is committed, under lanes of its own."""
    publish(log, 2)
    member = join(log)
    [old] = read(member)
    log.expel("g")
    member.follow()
    [new] = read(member)
    assert (new.lane is old.lane, old.lane is not None and old.lane.lost, new.bodies) == (False, True, old.bodies)


def test_revocation_in_good_order_costs_nothing(log: LogStore) -> None:
    """A rebalance ends every claim; the next ones read on from what is committed, and no attempt is used up."""
    publish(log, 2)
    member = join(log)
    [old] = read(member)
    ack(member, old, 0, 1)
    log.revoke("g")
    member.follow()
    [new] = read(member)
    assert (old.lane is not None and old.lane.lost, new.bodies, new[0].attempt) == (True, [b"1"], 1)


def test_gaps_stall_nothing(log: LogStore) -> None:
    """Offsets that hold no message are passed, at the end of the log, too."""
    partition = publish(log, 1)
    log.skip(5)
    publish(log, 1)
    log.skip(2)
    member = join(log)
    [chunk] = read(member)
    ack(member, chunk, 0, 2)
    read(member)
    assert (log.committed("g")[partition], member.backlog().waiting) == (7, 0)


def test_topic_made_anew_ends_its_claims(log: LogStore) -> None:
    """What was held is lost; what is published then is seen from the first message on."""
    publish(log, 3)
    member = join(log)
    [old] = read(member)
    log.recreate()
    publish(log, 1)
    member.follow()
    assert (ack(member, old, 0, 1), bodies(read(member))) == ([LeaseLostError], [b"0"])


def test_second_settlement_is_reported(log: LogStore) -> None:
    """Of three, the one that was settled before is reported; the others are settled."""
    partition = publish(log, 3)
    member = join(log)
    [chunk] = read(member)
    ack(member, chunk, 1, 2)
    assert (ack(member, chunk, 0, 3), log.committed("g")[partition]) == ([LeaseLostError], 3)


def test_released_message_is_a_hole_until_the_claim_ends(log: LogStore) -> None:
    """RELEASE commits nothing and hands nothing out; after the claim the message is there again."""
    publish(log, 2)
    member = join(log)
    [chunk] = read(member)
    release = Settlement(verdict=Verdict.RELEASE, spans=[(chunk, slice(0, 1))])
    assert (member.settle([release], FAULTS), ack(member, chunk, 1, 2), bodies(read(member))) == ([], [], [])
    member.leave()
    assert bodies(read(join(log))) == [b"0", b"1"]


def test_refused_settlement_can_be_repeated(log: LogStore) -> None:
    """A settlement that failed for a while takes effect when it is said again."""
    partition = publish(log, 1)
    member = join(log)
    [chunk] = read(member)
    faults = Faults()
    faults.refuse_settlement(lambda _: True, ConnectionFailedError("injected"))
    settlement = Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, 1))])
    refused = [type(failure.error) for failure in member.settle([settlement], faults)]
    again = member.settle([settlement], faults)
    assert (refused, again, log.committed("g")[partition]) == ([ConnectionFailedError], [], 1)


def test_limit_and_bytes_are_kept_over_partitions(log: LogStore) -> None:
    """One read gives no more than asked for; one message larger than the room goes alone."""
    log.append([Message(bytes(10)) for _ in range(8)])
    member = join(log)
    assert len(bodies(member.read(3, 1 << 20, ()))) == 3
    assert len(bodies(member.read(8, 25, ()))) == 2
    assert len(bodies(member.read(8, 1, ()))) == 1


def test_skipped_lane_gives_nothing(log: LogStore) -> None:
    """A lane that is to be skipped is left alone; the others go on."""
    log.append([Message(b"%d" % number) for number in range(8)])
    member = join(log)
    first = member.read(1, 1 << 20, ())
    lane = first[0].lane
    assert lane is not None
    assert {chunk.lane is lane for chunk in member.read(100, 1 << 20, [lane])} == {False}


def test_peek_needs_no_membership(log: LogStore) -> None:
    """Looking shows what the group has not finished, partition by partition, and goes on after a position."""
    log.append([Message(b"%d" % number) for number in range(8)])
    everything = peek(log, "orders", "g", "local://orders", 8, None)
    after = peek(log, "orders", "g", "local://orders", 8, everything[2].position)
    assert ([one.identity for one in after], log.generation("g")) == ([one.identity for one in everything[3:]], 0)


def test_backlog_counts_by_partition(log: LogStore) -> None:
    """What was handed out is not counted; what another member has not finished is."""
    partition = publish(log, 5)
    member = join(log)
    read(member, 2)
    backlog = member.backlog()
    assert (backlog.waiting, backlog.by_lane, backlog.oldest_age is not None) == (3, {str(partition): 3}, True)


def test_name_that_is_a_queue_is_no_log(tmp_path: pathlib.Path) -> None:
    """One name in one file is one thing."""
    from eventflows import send

    path = str(tmp_path / "flows.db")
    send(f"local://orders?file={path}", 1)
    with pytest.raises(ConfigError, match="is a queue"):
        FileLog(path, "orders", sync="normal").append([Message(b"")])


def test_number_of_partitions_is_fixed_once(tmp_path: pathlib.Path) -> None:
    """A log keeps the partitions it was made with."""
    path = str(tmp_path / "flows.db")
    FileLog(path, "orders", sync="normal", partitions=2).append([Message(b"")])
    assert FileLog(path, "orders", sync="normal").partitions == 2
    with pytest.raises(ConfigError, match="has 2 partitions"):
        FileLog(path, "orders", sync="normal", partitions=3).append([Message(b"")])


@given(
    partitions=st.integers(1, 12),
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=12),
)
def test_shares_are_even_and_move_little(partitions: int, changes: list[tuple[bool, int]]) -> None:
    """However members come and go, every partition has one, shares differ by one at most, and little moves."""
    members: list[int] = []
    targets: dict[int, int] = {}
    for number, (come, which) in enumerate(changes):
        if come or not members:
            members.append(number)
        else:
            members.pop(which % len(members))
        before, targets = targets, balance(partitions, members, targets)
        sizes = [list(targets.values()).count(member) for member in members]
        assert not members or (sorted(targets) == list(range(partitions)) and max(sizes) - min(sizes) <= 1)
        stayed = [p for p in targets if before.get(p) in members]
        moved = [p for p in stayed if targets[p] != before[p]]
        assert len(moved) <= -(-partitions // max(len(members), 1))
