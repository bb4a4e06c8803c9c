"""The embedded broker in memory."""

from __future__ import annotations

import bisect
import heapq
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

import attrs

from eventflows.adapters._local_memory_log import Group, Log
from eventflows.adapters._local_store import Grant, Waiting, Word
from eventflows.message import Batch, Message, sizes_of
from eventflows.policy import Verdict

SCAN: Final = 10_000
"""Keyed messages that may wait behind others before newer ones are left in the log."""
TRIM: Final = 1_024
"""Messages that are removed from the log together, at least."""


class MemoryStore:
    """One named place in the memory of this process.

    Args:
        clock: Seconds.
        seed: Of the shuffle of messages without a key.
        exclusive: Whether a key of which something is held is handed out to nobody, its holder included.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, seed: int | None = None, exclusive: bool = False
    ) -> None:
        self.clock = clock
        self._exclusive = exclusive
        self._busy: set[str] = set()
        self.changed = threading.Condition()
        self._random = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
        self._log = Log()
        self._first = 1
        self._groups: dict[str, Group] = {}
        self._retain = 0.0
        self._dead: dict[str, MemoryStore] = {}
        self._settled = 0
        self._waiters = 0
        self.version = 0
        """Grows whenever something may have become available."""

    def _notify(self) -> None:
        self.version += 1
        if self._waiters:
            self.changed.notify_all()

    def publish(self, batch: Sequence[Message]) -> list[str]:
        """Keep messages."""
        with self.changed:
            number = self._first + len(self._log)
            columns = Batch.of(batch)
            self._log.extend(columns)
            self._notify()
            if None not in columns.ids:
                return list(cast("Sequence[str]", columns.ids))
            return [given or f"{number + index}" for index, given in enumerate(columns.ids)]

    def join(self, group: str, retain: float) -> None:
        """Make a group unless it is there."""
        with self.changed:
            self._retain = max(self._retain, retain)
            self._group(group)

    def _group(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(self._first)
        return group

    def take(self, group: str, owner: object, limit: int, max_bytes: int, lease: float) -> Grant | None:
        """Hand out what waits."""
        with self.changed:
            state = self._group(group)
            now = self.clock()
            self._ripen(state, now)
            self._busy = set(state.keys) if self._exclusive else set()
            numbers: Sequence[int] = self._again(state, owner, limit, max_bytes) if state.pending else ()
            left = max_bytes - sum(self._log.size(n - self._first) for n in numbers)
            if not numbers:
                numbers = self._fresh_run(state, owner, limit, max_bytes, alone=True)
            elif len(numbers) < limit and left > 0:
                numbers = [*numbers, *self._fresh_run(state, owner, limit - len(numbers), left, alone=False)]
            return self._grant(state, owner, numbers, now + lease) if numbers else None

    def _fresh_run(self, state: Group, owner: object, limit: int, room: int, *, alone: bool) -> Sequence[int]:
        """Take from the cursor on; a first message larger than the room only when it goes alone."""
        start = state.next - self._first
        keys = self._log.keys[start : start + limit]
        if keys.count(None) < len(keys):
            return self._fresh_keyed(state, owner, limit, room, alone=alone)
        size = len(keys)
        sizes = sizes_of(self._log.bodies[start : start + limit])
        if sum(sizes) > room:
            size = _fitting(sizes, room, alone=alone)
        numbers = range(state.next, state.next + size)
        state.next += size
        return self._shuffled(numbers) if size > 1 else numbers

    def _shuffled(self, numbers: range) -> Sequence[int]:
        # The order of messages without a key is no promise; a cut and a turn show who relies on it, at no cost.
        cut = self._random.randrange(len(numbers))
        turned = [*numbers[cut:], *numbers[:cut]]
        return turned[::-1] if self._random.random() < 0.5 else turned

    def _fresh_keyed(self, state: Group, owner: object, limit: int, room: int, *, alone: bool) -> list[int]:
        """Take, passing over those whose key is held by others, or waits."""
        taken: list[int] = []
        blocked = {self._log.keys[number - self._first] for number in state.keyed}
        blocked.update(state.later.values(), self._busy)
        end = self._first + len(self._log)
        while state.next < end and len(taken) < limit:
            number = state.next
            key, size = self._log.keys[number - self._first], self._log.size(number - self._first)
            if key is None or (key not in blocked and state.keys.get(key, (owner, 0))[0] is owner):
                if size > room and (taken or not alone):
                    break
                taken.append(number)
                room -= size
                self._hold_key(state, key, owner)
            elif len(state.keyed) >= SCAN:
                break
            else:
                state.pending[number] = 1
                state.keyed.append(number)
                blocked.add(key)
            state.next += 1
        return taken

    @staticmethod
    def _hold_key(state: Group, key: str | None, owner: object) -> None:
        if key is not None:
            state.keys[key] = (owner, state.keys.get(key, (owner, 0))[1] + 1)

    def _again(self, state: Group, owner: object, limit: int, max_bytes: int) -> list[int]:
        """Take what waits again, oldest first."""
        taken: list[int] = []
        room = max_bytes
        if state.keyed:
            waiting_for: dict[str | None, int] = {}
            for number, name in state.later.items():
                waiting_for[name] = min(number, waiting_for.get(name, number))
            kept: list[int] = []
            blocked: set[str | None] = {*self._busy}
            for number in state.keyed:
                key, size = self._log.keys[number - self._first], self._log.size(number - self._first)
                free = (
                    key not in blocked
                    and waiting_for.get(key, number + 1) > number
                    and state.keys.get(key or "", (owner, 0))[0] is owner
                )
                if free and len(taken) < limit and (not taken or room >= size):
                    taken.append(number)
                    room -= size
                    self._hold_key(state, key, owner)
                else:
                    blocked.add(key)
                    kept.append(number)
            state.keyed = kept
        while state.returned and len(taken) < limit:
            size = self._log.size(state.returned[0] - self._first)
            if taken and size > room:
                break
            taken.append(heapq.heappop(state.returned))
            room -= size
        return taken

    def _ripen(self, state: Group, now: float) -> None:
        """Make available what was delayed until now, and what was held longer than its lease."""
        while state.delayed and state.delayed[0][0] <= now:
            _, number = heapq.heappop(state.delayed)
            state.later.pop(number, None)
            self._available(state, number)
        for name, grant in [(name, grant) for name, grant in state.grants.items() if grant.until <= now]:
            for index in grant.held():
                if grant.lease(index) <= now:
                    self._drop(state, grant, index)
                    self._return(state, grant, index, grant.attempt(index) + 1, 0.0)
            if grant.left:
                grant.until = min(grant.lease(index) for index in grant.held())
            else:
                state.grants.pop(name, None)

    def _available(self, state: Group, number: int) -> None:
        if self._log.keys[number - self._first] is None:
            heapq.heappush(state.returned, number)
        else:
            bisect.insort(state.keyed, number)

    def _grant(self, state: Group, owner: object, numbers: Sequence[int], until: float) -> Grant:
        messages, moments = self._log.pick([number - self._first for number in numbers])
        keys, types, headers = messages.keys, messages.content_types, messages.headers
        attempts = {}
        if state.pending:
            for index, number in enumerate(numbers):
                attempt = state.pending.pop(number, 1)
                if attempt > 1:
                    attempts[index] = attempt
        grant = Grant(
            owner,
            numbers,
            list(messages.bodies),
            keys=keys if keys.count(None) < len(keys) else None,
            content_types=types if types.count(None) < len(types) else None,
            headers=headers if any(headers) else None,
            attempts=attempts,
            until=until,
            message=messages.__getitem__,
            published=moments.__getitem__,
        )
        state.grants[id(grant)] = grant
        return grant

    def settle(self, group: str, words: Sequence[Word]) -> list[tuple[Grant, int]]:
        """Carry out verdicts."""
        lost: list[tuple[Grant, int]] = []
        with self.changed:
            state = self._group(group)
            now = self.clock()
            self._ripen(state, now)
            for word in words:
                grant, start, stop = word.grant, word.start, word.stop
                simple = word.verdict is Verdict.ACK and grant.keys is None
                if simple and grant.open.find(0, start, stop) < 0:
                    grant.open[start:stop] = bytes(stop - start)
                    grant.left -= stop - start
                else:
                    for index in range(start, stop):
                        if grant.open[index]:
                            self._carry_out(state, group, word, index, now)
                        else:
                            lost.append((grant, index))
                if not grant.left:
                    state.grants.pop(id(grant), None)
            self._settled += sum(word.stop - word.start for word in words)
            if self._settled >= TRIM:
                self._settled = 0
                self._trim(now)
            if state.pending or any(word.grant.keys is not None for word in words):
                self._notify()
        return lost

    def _carry_out(self, state: Group, group: str, word: Word, index: int, now: float) -> None:
        grant = word.grant
        self._drop(state, grant, index)
        match word.verdict:
            case Verdict.RETRY:
                self._return(state, grant, index, grant.attempt(index) + 1, now + word.delay if word.delay else 0.0)
            case Verdict.RELEASE:
                self._return(state, grant, index, grant.attempt(index), 0.0)
            case Verdict.DEAD_LETTER:
                copy = dead_letter(grant.message(index), grant.numbers[index], word.reason, word.detail)
                self.dead(group).publish([copy])
            case Verdict.ACK:
                pass

    @staticmethod
    def _drop(state: Group, grant: Grant, index: int) -> None:
        grant.close(index)
        key = None if grant.keys is None else grant.keys[index]
        if key is not None:
            owner, count = state.keys[key]
            if count == 1:
                del state.keys[key]
            else:
                state.keys[key] = (owner, count - 1)

    def _return(self, state: Group, grant: Grant, index: int, attempt: int, due: float) -> None:
        number, key = grant.numbers[index], None if grant.keys is None else grant.keys[index]
        state.pending[number] = attempt
        if due:
            heapq.heappush(state.delayed, (due, number))
            if key is not None:
                state.later[number] = key
        else:
            self._available(state, number)

    def _trim(self, now: float) -> None:
        """Remove what every group is done with, once it was kept for as long as asked."""
        low = min(self._low(state) for state in self._groups.values())
        if self._retain:
            lows = next(iter(self._groups.values())).lows
            lows.append((now, low))
            low = self._first
            while lows and lows[0][0] <= now - self._retain:
                low = lows.popleft()[1]
        count = low - self._first
        if count >= TRIM and count * 2 >= len(self._log):
            self._log.cut(count)
            self._first = low

    @staticmethod
    def _low(state: Group) -> int:
        low = state.next
        for grant in state.grants.values():
            low = min(low, grant.low)
        return min(low, min(state.pending, default=low))

    def extend(self, group: str, held: Sequence[tuple[Grant, int]], seconds: float) -> list[float | None]:
        """Prolong leases."""
        with self.changed:
            state = self._group(group)
            now = self.clock()
            self._ripen(state, now)
            until: list[float | None] = []
            for grant, index in held:
                if grant.open[index]:
                    grant.later[index] = now + seconds
                until.append(now + seconds if grant.open[index] else None)
            for grant in {id(grant): grant for grant, _ in held}.values():
                if grant.left:
                    grant.until = min(grant.lease(index) for index in grant.held())
            return until

    def release(self, group: str, owner: object) -> None:
        """Take back what an owner holds."""
        with self.changed:
            state = self._group(group)
            self._ripen(state, self.clock())
            for name, grant in list(state.grants.items()):
                if grant.owner is owner:
                    for index in grant.held():
                        self._drop(state, grant, index)
                        self._return(state, grant, index, grant.attempt(index), 0.0)
                    del state.grants[name]
            self._notify()

    def wait(self, group: str, timeout: float, woken: Callable[[], bool], seen: int) -> None:
        """Block until something may have come."""
        with self.changed:
            if woken() or self.version != seen:
                return
            state = self._group(group)
            now = self.clock()
            due = min((grant.until for grant in state.grants.values()), default=now + timeout)
            if state.delayed:
                due = min(due, state.delayed[0][0])
            self._waiters += 1
            try:
                self.changed.wait(max(min(timeout, due - now), 0.0))
            finally:
                self._waiters -= 1

    def wake(self) -> None:
        """Let every waiting thread look again."""
        with self.changed:
            self._notify()
            for store in self._dead.values():
                store.wake()

    def peek(self, group: str, limit: int, after: int | None) -> list[Waiting]:
        """Look at what waits."""
        with self.changed:
            state = self._groups.get(group) or Group(self._first)
            self._ripen(state, self.clock())
            after = -1 if after is None else after
            end = self._first + len(self._log)
            numbers = sorted(number for number in state.pending if number > after)[:limit]
            start = max(state.next, after + 1)
            numbers += range(start, min(end, start + limit - len(numbers)))
            return [
                Waiting(n, *self._log.at(n - self._first), attempt=state.pending.get(n, 1))
                for n in numbers
                if n >= self._first
            ]

    def backlog(self, group: str) -> tuple[int, float | None]:
        """Count what waits."""
        with self.changed:
            state = self._groups.get(group) or Group(self._first)
            self._ripen(state, self.clock())
            fresh = self._first + len(self._log) - state.next
            oldest = min(state.pending, default=state.next)
            waiting = len(state.pending) + fresh
            return waiting, self._log.times[oldest - self._first] if waiting else None

    def expire(self, group: str | None = None) -> None:
        """End all leases now."""
        with self.changed:
            for state in self._groups.values() if group is None else [self._group(group)]:
                for grant in state.grants.values():
                    grant.until = float("-inf")
                    grant.later.clear()
                self._ripen(state, self.clock())
            self._notify()

    def dead(self, group: str) -> MemoryStore:
        """Give the store of a group's dead letters."""
        with self.changed:
            if group not in self._dead:
                self._dead[group] = MemoryStore(clock=self.clock, seed=0)
            return self._dead[group]

    def close(self) -> None:
        """Keep everything: a memory broker lives as long as the process."""


def dead_letter(message: Message, number: int, reason: str, detail: str) -> Message:
    """Add to a message why it is dead; the rest is as it was, the id that it was delivered with included."""
    added = {"ef-reason": reason, "ef-error": detail} if detail else {"ef-reason": reason}
    return attrs.evolve(message, id=message.id or str(number), headers={**message.headers, **added})


def _fitting(sizes: Sequence[int], max_bytes: int, *, alone: bool) -> int:
    """Count how many fit; one that goes alone does always."""
    total = 0
    for index, size in enumerate(sizes):
        total += size
        if total > max_bytes and (index or not alone):
            return index
    return len(sizes)
