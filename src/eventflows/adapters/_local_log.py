"""A log, as Kafka and Event Hubs are one: partitions, offsets, groups of members, committed positions; in memory."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import attrs

from eventflows.message import Message

PARTITIONS: Final = 4


class Record(NamedTuple):
    """One message where it lies."""

    offset: int
    message: Message
    published: float
    """Seconds since 1970."""


class Claimed(NamedTuple):
    """A partition that has become a member's."""

    position: int
    """The committed one: where to read on."""
    claims: int
    """How many claims began here and did not end well, this one included."""


class LogStore(Protocol):
    """One topic and its groups. Every method may be called from any thread.

    A partition has a *target*, the member that is to have it, and an *owner*, the one that has it. Members come and
    go; then targets change, and an owner that is not the target any more fences its lane, commits and yields. The
    next owner claims only after that, so that no two have a partition at once.
    """

    clock: Callable[[], float]
    version: int
    """Grows whenever something may have become available, as far as this process knows."""

    @property
    def partitions(self) -> int:
        """How many there are."""

    def append(self, batch: Sequence[Message]) -> list[str]:
        """Keep messages; returns their positions. When it returns, they are kept."""

    def read(self, partition: int, offset: int, limit: int, max_bytes: int) -> tuple[list[Record], int]:
        """Give what lies at an offset and behind it, and the offset that the next message gets.

        One message larger than `max_bytes` is given alone.
        """

    def ends(self) -> list[int]:
        """Give, for each partition, the offset that the next message gets."""

    def join(self, group: str, moved: Callable[[], None]) -> int:
        """Make a member; `moved` is called, from any thread of this process, when the targets have changed."""

    def leave(self, group: str, member: int) -> None:
        """End a member that has yielded all it had; what it did not yield counts as a claim that ended badly."""

    def expel(self, group: str) -> None:
        """End all members, as if they had not been heard of for too long."""

    def revoke(self, group: str) -> None:
        """Take every partition from the members of this process, in good order; they claim again at their next call."""

    def targets(self, group: str, member: int) -> frozenset[int] | None:
        """Give the partitions that the member is to have; None when it is no member any more."""

    def claim(self, group: str, member: int, partition: int) -> Claimed | None:
        """Become the owner of a partition; None while another has it, or it is another's."""

    def commit(self, group: str, member: int, positions: Mapping[int, int]) -> frozenset[int]:
        """Commit; returns the partitions that are not the member's, of which nothing was committed."""

    def give_up(self, group: str, member: int, partitions: Collection[int]) -> None:
        """Yield partitions in good order: their claims do not count."""

    def committed(self, group: str) -> dict[int, int]:
        """Give the position of each partition that was ever claimed; makes no group."""

    def generation(self, group: str) -> int:
        """Count how often the group's targets have changed."""

    def skip(self, count: int) -> None:
        """Leave out offsets in every partition, as compaction and transaction markers do."""

    def recreate(self) -> None:
        """Delete the topic, with what its groups committed, and make it anew, empty."""

    def wait(self, timeout: float, woken: Callable[[], bool], seen: int) -> None:
        """Block until something may have come since `version` was `seen`, `woken` says so, or the time is over."""

    def wake(self) -> None:
        """Let every waiting thread look again."""


def partition_of(key: str | None, turn: int, partitions: int) -> int:
    """Give the partition of a key, always the same; without a key, they take turns."""
    return turn % partitions if key is None else zlib.crc32(key.encode()) % partitions


def balance(partitions: int, members: Sequence[int], targets: Mapping[int, int]) -> dict[int, int]:
    """Share partitions out: evenly, and moving as few as that allows.

    Args:
        partitions: How many there are.
        members: In the order in which they came.
        targets: Whose each was until now; of members that are gone, too.
    """
    shares: dict[int, list[int]] = {member: [] for member in members}
    for partition in range(partitions):
        if targets.get(partition) in shares:
            shares[targets[partition]].append(partition)
    least, more = divmod(partitions, len(members)) if members else (0, 0)
    # Those that have most already may keep one more.
    ranked = sorted(members, key=lambda member: -len(shares[member]))
    quota = {member: least + (rank < more) for rank, member in enumerate(ranked)}
    new = {p: member for member, share in shares.items() for p in share[: quota[member]]}
    loose = [partition for partition in range(partitions) if partition not in new]
    for member in members:
        for _ in range(quota[member] - min(quota[member], len(shares[member]))):
            new[loose.pop(0)] = member
    return new


@attrs.define
class Share:
    """What a group has of one partition."""

    position: int = 0
    claims: int = 0
    """Claims that began at the position and have not ended well."""
    owner: int | None = None


class _Group:
    def __init__(self, partitions: int) -> None:
        self.shares = [Share() for _ in range(partitions)]
        self.members: dict[int, Callable[[], None]] = {}
        self.targets: dict[int, int] = {}
        self.generation = 0


class MemoryLog:
    """A log in the memory of this process.

    Args:
        partitions: How many.
        clock: Seconds.
        turn: Where the first message without a key goes.
    """

    def __init__(
        self, partitions: int = PARTITIONS, *, clock: Callable[[], float] = time.monotonic, turn: int = 0
    ) -> None:
        self.clock = clock
        self.version = 0
        self.changed = threading.Condition()
        self._count = partitions
        self._logs: list[list[Record]] = [[] for _ in range(partitions)]
        self._ends = [0] * partitions
        self._turn = turn
        self._groups: dict[str, _Group] = {}
        self._members = 0

    @property
    def partitions(self) -> int:
        """How many there are."""
        return self._count

    def _notify(self) -> None:
        self.version += 1
        self.changed.notify_all()

    def append(self, batch: Sequence[Message]) -> list[str]:
        """Keep messages."""
        positions = []
        with self.changed:
            now = time.time()
            for message in batch:
                partition = partition_of(message.key, self._turn, self._count)
                self._turn += message.key is None
                offset = self._ends[partition]
                self._logs[partition].append(Record(offset, message, now))
                self._ends[partition] = offset + 1
                positions.append(f"{partition}:{offset}")
            self._notify()
        return positions

    def read(self, partition: int, offset: int, limit: int, max_bytes: int) -> tuple[list[Record], int]:
        """Give what lies there."""
        with self.changed:
            log, end = self._logs[partition], self._ends[partition]
            start = _place(log, offset)
            found = log[start : start + limit]
        return fitting(found, max_bytes), end

    def ends(self) -> list[int]:
        """Give the next offsets."""
        with self.changed:
            return list(self._ends)

    def join(self, group: str, moved: Callable[[], None]) -> int:
        """Make a member."""
        with self.changed:
            state = self._groups.setdefault(group, _Group(self._count))
            self._members += 1
            member = self._members
            state.members[member] = moved
        self._rebalance(state)
        return member

    def leave(self, group: str, member: int) -> None:
        """End a member."""
        with self.changed:
            state = self._groups[group]
            if state.members.pop(member, None) is None:
                return
            _disown(state, {member})
        self._rebalance(state)

    def expel(self, group: str) -> None:
        """End all members."""
        with self.changed:
            state = self._groups.get(group)
            if state is None:
                return
            told = list(state.members.values())
            _disown(state, set(state.members))
            state.members.clear()
        self._rebalance(state)
        for moved in told:
            moved()

    def revoke(self, group: str) -> None:
        """Take every partition."""
        with self.changed:
            state = self._groups.get(group)
            if state is None:
                return
            state.targets = {}
            told = list(state.members.values())
        for moved in told:
            moved()
        self._rebalance(state)

    def _rebalance(self, state: _Group) -> None:
        """Set new targets and tell the members; never with the lock held, since they take their lanes' locks."""
        with self.changed:
            state.targets = balance(self._count, list(state.members), state.targets)
            state.generation += 1
            told = list(state.members.values())
            self._notify()
        for moved in told:
            moved()

    def targets(self, group: str, member: int) -> frozenset[int] | None:
        """Give what a member is to have."""
        with self.changed:
            state = self._groups.get(group)
            if state is None or member not in state.members:
                return None
            return frozenset(p for p, owner in state.targets.items() if owner == member)

    def claim(self, group: str, member: int, partition: int) -> Claimed | None:
        """Become the owner."""
        with self.changed:
            state = self._groups.get(group)
            if state is None or state.targets.get(partition) != member or member not in state.members:
                return None
            share = state.shares[partition]
            if share.owner is not None:
                return None
            share.owner = member
            share.claims += 1
            return Claimed(share.position, share.claims)

    def commit(self, group: str, member: int, positions: Mapping[int, int]) -> frozenset[int]:
        """Commit."""
        refused = set()
        with self.changed:
            state = self._groups.get(group)
            for partition, position in positions.items():
                share = None if state is None else state.shares[partition]
                if share is None or share.owner != member:
                    refused.add(partition)
                elif position > share.position:
                    share.position, share.claims = position, 1
        return frozenset(refused)

    def give_up(self, group: str, member: int, partitions: Collection[int]) -> None:
        """Yield."""
        with self.changed:
            shares = self._groups[group].shares if group in self._groups else []
            for partition in partitions if shares else ():
                share = shares[partition]
                if share.owner == member:
                    share.owner = None
                    share.claims -= 1
            self._notify()

    def committed(self, group: str) -> dict[int, int]:
        """Give the positions."""
        with self.changed:
            state = self._groups.get(group)
            return {} if state is None else {p: share.position for p, share in enumerate(state.shares)}

    def generation(self, group: str) -> int:
        """Count the rebalances."""
        with self.changed:
            return self._groups[group].generation if group in self._groups else 0

    def skip(self, count: int) -> None:
        """Leave out offsets."""
        with self.changed:
            self._ends = [end + count for end in self._ends]

    def recreate(self) -> None:
        """Make the topic anew."""
        with self.changed:
            self._logs = [[] for _ in range(self._count)]
            self._ends = [0] * self._count
            old, self._groups = self._groups, {}
            told = [moved for state in old.values() for moved in state.members.values()]
            self._notify()
        for moved in told:
            moved()

    def wait(self, timeout: float, woken: Callable[[], bool], seen: int) -> None:
        """Block until something may have come."""
        with self.changed:
            if not woken() and self.version == seen:
                self.changed.wait(timeout)

    def wake(self) -> None:
        """Let every waiting thread look again."""
        with self.changed:
            self._notify()


def _disown(state: _Group, members: set[int]) -> None:
    for share in state.shares:
        if share.owner in members:
            share.owner = None


def _place(log: list[Record], offset: int) -> int:
    """Find the first record at an offset or behind it; most logs have few gaps, so the guess is close."""
    if not log or offset <= log[0].offset:
        return 0
    low, high = 0, min(offset - log[0].offset, len(log))
    while low < high:
        middle = (low + high) // 2
        if log[middle].offset < offset:
            low = middle + 1
        else:
            high = middle
    return low


def fitting(records: list[Record], max_bytes: int) -> list[Record]:
    """Cut records to a size; the first one fits always."""
    total = 0
    for index, record in enumerate(records):
        total += len(record.message.body or b"")
        if total > max_bytes and index:
            return records[:index]
    return records
