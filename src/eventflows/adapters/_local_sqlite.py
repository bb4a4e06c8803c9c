"""Handing out, and settling, what is in a SQLite file that any number of processes share."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Final

from eventflows.adapters._local_memory import dead_letter
from eventflows.adapters._local_owners import Owners
from eventflows.adapters._local_sqlite_topic import COLUMNS, Row, SqliteTopic, message_of
from eventflows.adapters._local_store import Grant, Word
from eventflows.policy import Verdict

SCAN: Final = 5_000
"""Keyed messages that may wait behind others before newer ones are left in the log."""
TRIM: Final = 1_000
"""Settled messages after which the log is looked over for what nobody needs."""
LOOK_FOR_DEAD: Final = 0.2
"""Seconds between looks for owners whose process ended, while others hold something."""
POLL: Final = (0.004, 0.05)
"""Seconds between looks for what other processes wrote, from busy to idle."""


class SqliteStore(SqliteTopic):
    """One named place in a file.

    Args:
        path: Of the file, absolute.
        name: Of the place.
        sync: "normal" or "full".
        clock: Seconds; None: since the machine's start.
        seed: Of the shuffle of messages without a key.
        exclusive: Whether a key of which something is held is handed out to nobody, its holder included.
        dead_of: The group whose dead letters these are; empty: they are none.
    """

    def __init__(
        self,
        path: str,
        name: str,
        *,
        sync: str,
        clock: Callable[[], float] | None = None,
        seed: int | None = None,
        exclusive: bool = False,
        dead_of: str = "",
    ) -> None:
        super().__init__(path, name, sync=sync, clock=clock, dead_of=dead_of)
        self._owners = Owners(path)
        self._numbers: dict[object, int] = {}
        self._random = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
        self._exclusive = exclusive
        self._settled = TRIM  # the first settle of a process looks, too
        self._looked = float("-inf")
        self._alone = True
        self._dead: dict[str, SqliteStore] = {}

    def be_a_child(self) -> None:
        """Forget, in a forked child, what its parent holds and who waits there."""
        super().be_a_child()
        self._numbers.clear()

    def _number(self, owner: object) -> int:
        number = self._numbers.get(owner)
        if number is None:
            number = self._numbers[owner] = self._owners.enter()
        return number

    def take(self, group: str, owner: object, limit: int, max_bytes: int, lease: float) -> Grant | None:
        """Hand out what waits."""
        now = self.clock()
        self._free_the_dead(group, now)
        with self._file.reading() as connection:
            if not self._anything(connection, group, now):
                return None
        number = self._number(owner)
        room = _Room(limit, max_bytes)
        with self._file.writing() as connection:
            topic, grp, following = self._make(connection, group)
            connection.execute(
                "UPDATE pending SET owner=NULL, until=NULL, due=0, attempt=attempt+1 "
                "WHERE grp=? AND owner IS NOT NULL AND until<=?",
                (grp, now),
            )
            blocked = self._again(connection, grp, number, room, now)
            passed, after = self._fresh(connection, topic, grp, following, room, blocked)
            if room.rows or after != following:
                self._write_taken(connection, grp, number, room.rows, passed, after, now + lease)
        if not self._alone:
            time.sleep(self._random.random() * 0.001)  # contenders poll for the file's lock: let one have it
        if all(row[2] is None for row, _ in room.rows):
            self._shuffle(room.rows)
        return self._grant(owner, room.rows, now + lease) if room.rows else None

    def _anything(self, connection: sqlite3.Connection, group: str, now: float) -> bool:
        """Look, without a write lock, whether a take could bring something."""
        found = self._find(connection, group)
        if found is None:
            return self._topic(connection, make=False) is not None
        topic, grp, following = found
        for statement, values in (
            ("SELECT 1 FROM messages WHERE topic=? AND seq>=? LIMIT 1", (topic, following)),
            ("SELECT 1 FROM pending WHERE grp=? AND owner IS NULL AND key IS NULL AND due<=? LIMIT 1", (grp, now)),
            ("SELECT 1 FROM pending WHERE grp=? AND owner IS NULL AND key IS NOT NULL AND due<=? LIMIT 1", (grp, now)),
            ("SELECT 1 FROM pending WHERE grp=? AND owner IS NOT NULL AND until<=? LIMIT 1", (grp, now)),
        ):
            if connection.execute(statement, values).fetchone():
                return True
        return False

    def _again(self, connection: sqlite3.Connection, grp: int, number: int, room: _Room, now: float) -> set[str] | None:
        """Take what was seen before and waits again; give the keys whose turn it is not, None: any may be one."""
        blocked = {
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT key FROM pending WHERE grp=? AND owner IS NOT NULL AND owner<>? AND key IS NOT NULL",
                (grp, 0 if self._exclusive else number),
            )
        }
        waiting = connection.execute(
            "SELECT seq, attempt, key, due FROM pending WHERE grp=? AND owner IS NULL AND key IS NOT NULL "
            "ORDER BY seq LIMIT ?",
            (grp, SCAN),
        ).fetchall()
        chosen: list[tuple[int, int]] = []
        for seq, attempt, key, due in waiting:
            if key in blocked or due > now or len(chosen) >= room.limit:
                blocked.add(key)
            else:
                chosen.append((seq, attempt))
        chosen += connection.execute(
            "SELECT seq, attempt FROM pending WHERE grp=? AND owner IS NULL AND key IS NULL AND due<=? "
            "ORDER BY due, seq LIMIT ?",
            (grp, now, room.limit - len(chosen)),
        ).fetchall()
        for seq, attempt in chosen:
            row = connection.execute(f"SELECT {COLUMNS} FROM messages WHERE seq=?", (seq,)).fetchone()  # noqa: S608
            if not room.add(row, attempt):
                break
        return blocked if len(waiting) < SCAN else None

    def _fresh(
        self,
        connection: sqlite3.Connection,
        topic: int,
        grp: int,
        following: int,
        room: _Room,
        blocked: set[str] | None,
    ) -> tuple[list[tuple[int, str]], int]:
        """Take from the cursor on: give what is passed over because of its key, and the new cursor."""
        passed: list[tuple[int, str]] = []
        most = -1
        rows = connection.execute(
            f"SELECT {COLUMNS} FROM messages WHERE topic=? AND seq>=? ORDER BY seq",  # noqa: S608
            (topic, following),
        )
        while not room.full and (row := rows.fetchone()) is not None:
            seq, _, key = row[:3]
            if key is None or (blocked is not None and key not in blocked):
                if not room.add(row, 1):
                    break
            else:
                most = most if most >= 0 else self._passable(connection, grp)
                if len(passed) >= most:
                    break
                passed.append((seq, key))
            following = seq + 1
        rows.close()
        return passed, following

    @staticmethod
    def _passable(connection: sqlite3.Connection, grp: int) -> int:
        """Give how many more messages with a key may be passed over."""
        waiting = connection.execute(
            "SELECT count(*) FROM pending WHERE grp=? AND owner IS NULL AND key IS NOT NULL", (grp,)
        ).fetchone()
        return max(SCAN - int(waiting[0]), 0)

    def _shuffle(self, kept: list[tuple[Row, int]]) -> None:
        # The order of messages without a key is no promise; a cut shows who relies on it, at no cost.
        if kept:
            cut = self._random.randrange(len(kept))
            kept[:] = kept[cut:] + kept[:cut]

    @staticmethod
    def _write_taken(
        connection: sqlite3.Connection,
        grp: int,
        number: int,
        kept: list[tuple[Row, int]],
        passed: list[tuple[int, str]],
        following: int,
        until: float,
    ) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO pending(grp, seq, key, attempt, due, owner, until) VALUES(?,?,?,?,0,?,?)",
            [(grp, row[0], row[2], attempt, number, until) for row, attempt in kept],
        )
        connection.executemany(
            "INSERT INTO pending(grp, seq, key, attempt, due) VALUES(?,?,?,1,0)",
            [(grp, seq, key) for seq, key in passed],
        )
        connection.execute("UPDATE groups SET next=? WHERE id=?", (following, grp))

    def _grant(self, owner: object, kept: list[tuple[Row, int]], until: float) -> Grant:
        rows = [row for row, _ in kept]
        keys = [row[2] for row in rows]
        types = [row[4] for row in rows]
        return Grant(
            owner,
            [row[0] for row in rows],
            [row[1] for row in rows],
            keys=keys if keys.count(None) < len(keys) else None,
            content_types=types if types.count(None) < len(types) else None,
            headers=[json.loads(row[5]) if row[5] else {} for row in rows] if any(row[5] for row in rows) else None,
            attempts={index: attempt for index, (_, attempt) in enumerate(kept) if attempt > 1},
            until=until,
            message=lambda index: message_of(rows[index]),
            published=lambda index: rows[index][6],
        )

    def _free_the_dead(self, group: str, now: float) -> None:
        """Take back at once what owners held whose process has ended; it costs an attempt."""
        moment = time.monotonic()
        if moment - self._looked < LOOK_FOR_DEAD:
            return
        self._looked = moment
        self._alone = self._owners.count() < 2
        with self._file.reading() as connection:
            found = self._find(connection, group)
            if found is None:
                return
            owners = connection.execute(
                "SELECT DISTINCT owner FROM pending WHERE grp=? AND owner IS NOT NULL", (found[1],)
            ).fetchall()
        dead = [owner for (owner,) in owners if owner not in self._numbers.values() and self._owners.dead(owner)]
        if not dead:
            return
        with self._file.writing() as connection:
            connection.executemany(
                "UPDATE pending SET owner=NULL, until=NULL, due=0, attempt=attempt+1 WHERE owner=?",
                [(owner,) for owner in dead],
            )
        self._notify()

    def settle(self, group: str, words: Sequence[Word]) -> list[tuple[Grant, int]]:
        """Carry out verdicts; they are in the file when this returns."""
        lost: list[tuple[Grant, int]] = []
        done: list[tuple[Grant, int]] = []
        now = self.clock()
        with self._file.writing() as connection:
            found = self._make(connection, group)
            for word in words:
                for index in range(word.start, word.stop):
                    one = (word.grant, index)
                    held = word.grant.open[index] and word.grant.owner in self._numbers
                    if held and self._carry_out(connection, group, found[1], word, index, now):
                        done.append(one)
                    else:
                        lost.append(one)
            self._settled += len(done)
            if self._settled >= TRIM:
                self._settled = 0
                self._trim(connection, found[0])
        self._settle_here(words, [*done, *lost], group)
        return lost

    def _settle_here(self, words: Sequence[Word], settled: list[tuple[Grant, int]], group: str) -> None:
        for grant, index in settled:
            grant.close(index)
        if any(word.verdict is not Verdict.ACK or word.grant.keys is not None for word in words):
            self._notify()
        if any(word.verdict is Verdict.DEAD_LETTER for word in words):
            self.dead(group).wake()

    def _carry_out(
        self, connection: sqlite3.Connection, group: str, grp: int, word: Word, index: int, now: float
    ) -> bool:
        where = (grp, word.grant.numbers[index], self._numbers[word.grant.owner], now)
        if word.verdict in (Verdict.RETRY, Verdict.RELEASE):
            retry = word.verdict is Verdict.RETRY
            changed = connection.execute(
                "UPDATE pending SET owner=NULL, until=NULL, attempt=attempt+?, due=? "
                "WHERE grp=? AND seq=? AND owner=? AND until>?",
                (int(retry), now + word.delay if retry and word.delay else 0.0, *where),
            )
        else:
            changed = connection.execute("DELETE FROM pending WHERE grp=? AND seq=? AND owner=? AND until>?", where)
        if changed.rowcount and word.verdict is Verdict.DEAD_LETTER:
            copy = dead_letter(word.grant.message(index), word.grant.numbers[index], word.reason, word.detail)
            self.dead(group)._insert(connection, [copy])
        return bool(changed.rowcount)

    def _trim(self, connection: sqlite3.Connection, topic: int) -> None:
        """Remove what every group is done with, once it was kept for as long as asked."""
        lows = connection.execute(
            "SELECT min(next, ifnull((SELECT min(seq) FROM pending WHERE grp=groups.id), next)) "
            "FROM groups WHERE topic=?",
            (topic,),
        ).fetchall()
        low = min(row[0] for row in lows)
        retain = connection.execute("SELECT retain FROM topics WHERE id=?", (topic,)).fetchone()[0]
        if retain:
            now = time.time()
            connection.execute("INSERT INTO lows VALUES(?,?,?)", (topic, now, low))
            old = (topic, now - retain)
            low = connection.execute("SELECT ifnull(max(low), 0) FROM lows WHERE topic=? AND at<=?", old).fetchone()[0]
            connection.execute("DELETE FROM lows WHERE topic=? AND at<=?", old)
        connection.execute("DELETE FROM messages WHERE topic=? AND seq<?", (topic, low))

    def extend(self, group: str, held: Sequence[tuple[Grant, int]], seconds: float) -> list[float | None]:
        """Prolong leases."""
        now = self.clock()
        until: list[float | None] = []
        with self._file.writing() as connection:
            grp = self._make(connection, group)[1]
            for grant, index in held:
                changed = 0
                if grant.open[index] and grant.owner in self._numbers:
                    changed = connection.execute(
                        "UPDATE pending SET until=? WHERE grp=? AND seq=? AND owner=? AND until>?",
                        (now + seconds, grp, grant.numbers[index], self._numbers[grant.owner], now),
                    ).rowcount
                until.append(now + seconds if changed else None)
        for (grant, index), end in zip(held, until, strict=True):
            if end is not None:
                grant.later[index] = end
            else:
                grant.close(index)
        return until

    def release(self, group: str, owner: object) -> None:
        """Take back what an owner holds, and end the owner."""
        number = self._numbers.get(owner)
        if number is None:
            return
        with self._file.writing() as connection:
            connection.execute(
                "UPDATE pending SET owner=NULL, until=NULL, due=0, attempt=attempt+(until<=?) WHERE owner=?",
                (self.clock(), number),
            )
            if self._settled:
                self._settled = 0
                self._trim(connection, self._make(connection, group)[0])
        del self._numbers[owner]
        self._owners.leave(number)
        self._notify()

    def wait(self, group: str, timeout: float, woken: Callable[[], bool], seen: int) -> None:
        """Block until something may have come: from this process at once, from others by looking."""
        deadline = time.monotonic() + timeout
        began = self._file.version()
        pause = POLL[0]
        due = self._next_due(group)
        while not woken() and self.version == seen:
            left = deadline - time.monotonic()
            if left <= 0 or self.clock() >= due:
                return
            with self._changed:
                if self.version == seen and not woken():
                    self._changed.wait(min(left, pause * (0.5 + self._random.random()), max(due - self.clock(), 0.001)))
            if self._file.version() != began or time.monotonic() - self._looked > LOOK_FOR_DEAD:
                return
            pause = min(pause * 1.3, POLL[1])

    def _next_due(self, group: str) -> float:
        with self._file.reading() as connection:
            found = self._find(connection, group)
            if found is None:
                return float("inf")
            now = self.clock()
            dues = connection.execute(
                "SELECT min(due) FROM pending WHERE grp=? AND owner IS NULL AND due>? "
                "UNION ALL SELECT min(until) FROM pending WHERE grp=? AND owner IS NOT NULL",
                (found[1], now, found[1]),
            ).fetchall()
        return min((due for (due,) in dues if due is not None), default=float("inf"))

    def wake(self) -> None:
        """Let every waiting thread of this process look again."""
        self._notify()
        for store in list(self._dead.values()):
            store.wake()

    def expire(self, group: str | None = None) -> None:
        """End all leases now."""
        with self._file.writing() as connection:
            topic = self._topic(connection, make=False)
            connection.execute(
                "UPDATE pending SET owner=NULL, until=NULL, due=0, attempt=attempt+1 WHERE owner IS NOT NULL "
                "AND grp IN (SELECT id FROM groups WHERE topic=? AND name=ifnull(?, name))",
                (topic, group),
            )
        self._notify()

    def dead(self, group: str) -> SqliteStore:
        """Give the store of a group's dead letters."""
        with self._changed:
            if group not in self._dead:
                self._dead[group] = SqliteStore(
                    self._path, self._name, sync=self._sync, clock=self.clock, seed=0, dead_of=group
                )
            return self._dead[group]


class _Room:
    """What one take hands out, and whether there is room for more; one message fits always.

    Args:
        limit: Most messages.
        max_bytes: Most bytes of bodies.
    """

    def __init__(self, limit: int, max_bytes: int) -> None:
        self.limit = limit
        self.rows: list[tuple[Row, int]] = []
        """Messages and attempts."""
        self.full = limit <= 0
        self._left = max_bytes

    def add(self, row: Row, attempt: int) -> bool:
        """Take a message, if there is room for it."""
        size = len(row[1])
        if self.full or (self.rows and size > self._left):
            self.full = True
            return False
        self.rows.append((row, attempt))
        self._left -= size
        self.full = len(self.rows) >= self.limit
        return True
