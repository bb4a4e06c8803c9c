"""A log, as Kafka and Event Hubs are one, in one SQLite file shared by any number of processes."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from eventflows.adapters._local_file import boot_clock, check_header
from eventflows.adapters._local_log import PARTITIONS, Claimed, Record, balance, fitting, partition_of
from eventflows.adapters._local_owners import Owners
from eventflows.adapters._local_sqlite import LOOK_FOR_DEAD, POLL
from eventflows.adapters._local_sqlite_topic import file_at
from eventflows.errors import ConfigError
from eventflows.message import Message

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS logs(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS log_parts(topic INTEGER NOT NULL, part INTEGER NOT NULL, next INTEGER NOT NULL,"
    " PRIMARY KEY(topic, part)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS log_messages(topic INTEGER NOT NULL, part INTEGER NOT NULL, off INTEGER NOT NULL,"
    " body BLOB, key TEXT, id TEXT, type TEXT, headers TEXT, published REAL NOT NULL, PRIMARY KEY(topic, part, off))"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS log_groups(id INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL,"
    " name TEXT NOT NULL, generation INTEGER NOT NULL DEFAULT 0, UNIQUE(topic, name))",
    "CREATE TABLE IF NOT EXISTS log_shares(grp INTEGER NOT NULL, part INTEGER NOT NULL, position INTEGER NOT NULL,"
    " claims INTEGER NOT NULL, target INTEGER, owner INTEGER, PRIMARY KEY(grp, part)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS log_members(since INTEGER PRIMARY KEY AUTOINCREMENT, grp INTEGER NOT NULL,"
    " member INTEGER NOT NULL)",
)
_COLUMNS: Final = "off, body, key, id, type, headers, published"
_FIND: Final = (
    "SELECT log_groups.id FROM log_groups JOIN logs ON logs.id=log_groups.topic WHERE logs.name=? AND log_groups.name=?"
)


def logs_in(path: str, sync: str = "normal") -> list[str]:
    """Give the names of the logs in a file, sorted."""
    if not check_header(path):
        return []
    with file_at(path, sync).reading() as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='logs'").fetchone():
            return []
        return [row[0] for row in connection.execute("SELECT name FROM logs ORDER BY name").fetchall()]


class FileLog:
    """A log in a file.

    Args:
        path: Of the file, absolute.
        name: Of the topic.
        sync: "normal" or "full".
        partitions: How many it is made with; None: as it is, or 4.
        turn: Where the first message without a key of this process goes; None: by chance.

    Raises:
        ConfigError: The file has it with another number of partitions, or as a queue.
    """

    def __init__(
        self, path: str, name: str, *, sync: str, partitions: int | None = None, turn: int | None = None
    ) -> None:
        check_header(path)
        self.clock = boot_clock
        self.version = 0
        self._path, self._name, self._wanted = path, name, partitions
        self._file = file_at(path, sync)
        self._owners = Owners(path)
        self._changed = threading.Condition()
        self._moved: dict[tuple[str, int], Callable[[], None]] = {}
        self._turn = random.randrange(PARTITIONS) if turn is None else turn  # noqa: S311 - a start, not a secret
        self._looked = float("-inf")
        self._made = False
        _logs.add(self)

    def be_a_child(self) -> None:
        """Forget, in a forked child, the members of its parent."""
        self._changed = threading.Condition()
        self._moved.clear()

    def _notify(self) -> None:
        with self._changed:
            self.version += 1
            self._changed.notify_all()

    def _make(self) -> None:
        """Make tables and topic, unless they are there."""
        if self._made:
            return
        with self._file.writing() as connection:
            if connection.execute("SELECT 1 FROM topics WHERE name=?", (self._name,)).fetchone():
                raise ConfigError(
                    f"local://{self._name} is a queue in {self._path}, not a log: give all its URLs the same emulate=."
                )
            for statement in _TABLES:
                connection.execute(statement)
            self._topic(connection)
        self._made = True

    def _topic(self, connection: sqlite3.Connection, count: int | None = None) -> int:
        """Find the topic, made at its first use; call it with the tables there."""
        row = connection.execute("SELECT id FROM logs WHERE name=?", (self._name,)).fetchone()
        if row is not None:
            there = connection.execute("SELECT count(*) FROM log_parts WHERE topic=?", row).fetchone()[0]
            if self._wanted not in (None, there):
                raise ConfigError(
                    f"local://{self._name} has {there} partitions in {self._path}; partitions={self._wanted} "
                    "is possible for a new name only."
                )
            return int(row[0])
        topic = connection.execute("INSERT INTO logs(name) VALUES(?)", (self._name,)).lastrowid
        assert topic is not None  # noqa: S101 - for the type checker: it was just made
        connection.executemany(
            "INSERT INTO log_parts VALUES(?,?,0)",
            [(topic, part) for part in range(count or self._wanted or PARTITIONS)],
        )
        return topic

    @property
    def partitions(self) -> int:
        """How many there are."""
        return len(self.ends())

    def append(self, batch: Sequence[Message]) -> list[str]:
        """Keep messages; they are in the file when this returns."""
        self._make()
        positions, rows = [], []
        with self._file.writing() as connection:
            topic, now = self._topic(connection), time.time()
            nexts = dict(connection.execute("SELECT part, next FROM log_parts WHERE topic=?", (topic,)).fetchall())
            for m in batch:
                part = partition_of(m.key, self._turn, len(nexts))
                self._turn += m.key is None
                headers = json.dumps(dict(m.headers)) if m.headers else None
                rows.append((topic, part, nexts[part], m.body, m.key, m.id, m.content_type, headers, now))
                positions.append(f"{part}:{nexts[part]}")
                nexts[part] += 1
            connection.executemany("INSERT INTO log_messages VALUES(?,?,?,?,?,?,?,?,?)", rows)
            connection.executemany(
                "UPDATE log_parts SET next=? WHERE topic=? AND part=?", [(n, topic, part) for part, n in nexts.items()]
            )
        self._notify()
        return positions

    def read(self, partition: int, offset: int, limit: int, max_bytes: int) -> tuple[list[Record], int]:
        """Give what lies there."""
        self._make()
        with self._file.reading() as connection:
            row = connection.execute(
                "SELECT topic, next FROM log_parts JOIN logs ON id=topic WHERE name=? AND part=?",
                (self._name, partition),
            ).fetchone()
            if row is None:
                return [], 0
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM log_messages WHERE topic=? AND part=? AND off>=? ORDER BY off LIMIT ?",  # noqa: S608
                (row[0], partition, offset, limit),
            ).fetchall()
        found = [
            Record(
                off,
                Message(body, headers=json.loads(headers) if headers else {}, key=key, id=id, content_type=kind),
                published,
            )
            for off, body, key, id, kind, headers, published in rows
        ]
        return fitting(found, max_bytes), row[1]

    def ends(self) -> list[int]:
        """Give the next offsets."""
        self._make()
        with self._file.reading() as connection:
            rows = connection.execute(
                "SELECT next FROM log_parts JOIN logs ON id=topic WHERE name=? ORDER BY part", (self._name,)
            ).fetchall()
        return [row[0] for row in rows]

    def join(self, group: str, moved: Callable[[], None]) -> int:
        """Make a member."""
        self._make()
        member = self._owners.enter()
        with self._file.writing() as connection:
            topic = self._topic(connection)
            made = connection.execute(
                "INSERT OR IGNORE INTO log_groups(topic, name) VALUES(?,?)", (topic, group)
            ).rowcount
            grp = self._group(connection, group)
            if made:
                connection.execute(
                    "INSERT INTO log_shares SELECT ?, part, 0, 0, NULL, NULL FROM log_parts WHERE topic=?", (grp, topic)
                )
            connection.execute("INSERT INTO log_members(grp, member) VALUES(?,?)", (grp, member))
            self._rebalance(connection, grp)
        self._moved[group, member] = moved
        self._tell(group)
        return member

    def _group(self, connection: sqlite3.Connection, group: str) -> int | None:
        row = connection.execute(_FIND, (self._name, group)).fetchone()
        return None if row is None else int(row[0])

    @staticmethod
    def _rebalance(connection: sqlite3.Connection, grp: int | None) -> None:
        rows = connection.execute("SELECT part, target FROM log_shares WHERE grp=?", (grp,)).fetchall()
        members = connection.execute("SELECT member FROM log_members WHERE grp=? ORDER BY since", (grp,)).fetchall()
        targets = balance(len(rows), [row[0] for row in members], dict(rows))
        connection.executemany(
            "UPDATE log_shares SET target=? WHERE grp=? AND part=?",
            [(targets.get(part), grp, part) for part, _ in rows],
        )
        connection.execute("UPDATE log_groups SET generation=generation+1 WHERE id=?", (grp,))

    def _tell(self, group: str) -> None:
        """Tell the members in this process that the targets have changed; the others see that the file has."""
        self._notify()
        for (name, _), moved in list(self._moved.items()):
            if name == group:
                moved()

    def leave(self, group: str, member: int) -> None:
        """End a member."""
        if self._moved.pop((group, member), None) is None:
            return
        with self._file.writing() as connection:
            self._remove(connection, self._group(connection, group), [member])
        self._owners.leave(member)
        self._tell(group)

    def _remove(self, connection: sqlite3.Connection, grp: int | None, members: Sequence[int]) -> None:
        gone = [(grp, member) for member in members]
        connection.executemany("DELETE FROM log_members WHERE grp=? AND member=?", gone)
        connection.executemany("UPDATE log_shares SET owner=NULL WHERE grp=? AND owner=?", gone)
        self._rebalance(connection, grp)

    def expel(self, group: str) -> None:
        """End all members."""
        self._make()
        with self._file.writing() as connection:
            grp = self._group(connection, group)
            rows = connection.execute("SELECT member FROM log_members WHERE grp=?", (grp,)).fetchall()
            self._remove(connection, grp, [row[0] for row in rows])
        self._tell(group)

    def revoke(self, group: str) -> None:
        """Take every partition."""
        self._make()
        with self._file.writing() as connection:
            connection.execute("UPDATE log_shares SET target=NULL WHERE grp=?", (self._group(connection, group),))
        self._tell(group)
        with self._file.writing() as connection:
            self._rebalance(connection, self._group(connection, group))
        self._tell(group)

    def _bury(self, group: str) -> None:
        """End the members whose process has ended: a claim of theirs ended badly."""
        moment = time.monotonic()
        if moment - self._looked < LOOK_FOR_DEAD:
            return
        self._looked = moment
        with self._file.reading() as connection:
            grp = self._group(connection, group)
            rows = connection.execute("SELECT member FROM log_members WHERE grp=?", (grp,)).fetchall()
        dead = [row[0] for row in rows if (group, row[0]) not in self._moved and self._owners.dead(row[0])]
        if dead:
            with self._file.writing() as connection:
                self._remove(connection, grp, dead)
            self._tell(group)

    def targets(self, group: str, member: int) -> frozenset[int] | None:
        """Give what a member is to have."""
        self._make()
        self._bury(group)
        with self._file.reading() as connection:
            grp = self._group(connection, group)
            known = connection.execute("SELECT 1 FROM log_members WHERE grp=? AND member=?", (grp, member)).fetchone()
            rows = connection.execute("SELECT part FROM log_shares WHERE grp=? AND target=?", (grp, member)).fetchall()
        return frozenset(row[0] for row in rows) if known else None

    def claim(self, group: str, member: int, partition: int) -> Claimed | None:
        """Become the owner."""
        with self._file.writing() as connection:
            grp = self._group(connection, group)
            row = connection.execute(
                "UPDATE log_shares SET owner=?, claims=claims+1 WHERE grp=? AND part=? AND target=? AND owner IS NULL "
                "RETURNING position, claims",
                (member, grp, partition, member),
            ).fetchone()
        return None if row is None else Claimed(*row)

    def commit(self, group: str, member: int, positions: Mapping[int, int]) -> frozenset[int]:
        """Commit; it is in the file when this returns."""
        refused = set()
        with self._file.writing() as connection:
            grp = self._group(connection, group)
            for part, position in positions.items():
                row = connection.execute(
                    "SELECT 1 FROM log_shares WHERE grp=? AND part=? AND owner=?", (grp, part, member)
                ).fetchone()
                if row is None:
                    refused.add(part)
                connection.execute(
                    "UPDATE log_shares SET position=?, claims=1 WHERE grp=? AND part=? AND owner=? AND position<?",
                    (position, grp, part, member, position),
                )
        return frozenset(refused)

    def give_up(self, group: str, member: int, partitions: Collection[int]) -> None:
        """Yield."""
        with self._file.writing() as connection:
            grp = self._group(connection, group)
            connection.executemany(
                "UPDATE log_shares SET owner=NULL, claims=claims-1 WHERE grp=? AND part=? AND owner=?",
                [(grp, part, member) for part in partitions],
            )
        self._notify()

    def committed(self, group: str) -> dict[int, int]:
        """Give the positions."""
        self._make()
        with self._file.reading() as connection:
            grp = self._group(connection, group)
            return dict(connection.execute("SELECT part, position FROM log_shares WHERE grp=?", (grp,)).fetchall())

    def generation(self, group: str) -> int:
        """Count the rebalances."""
        self._make()
        with self._file.reading() as connection:
            grp = self._group(connection, group)
            row = connection.execute("SELECT generation FROM log_groups WHERE id=?", (grp,)).fetchone()
        return 0 if row is None else int(row[0])

    def skip(self, count: int) -> None:
        """Leave out offsets."""
        self._make()
        with self._file.writing() as connection:
            topic = self._topic(connection)
            connection.execute("UPDATE log_parts SET next=next+? WHERE topic=?", (count, topic))

    def recreate(self) -> None:
        """Make the topic anew."""
        self._make()
        with self._file.writing() as connection:
            topic = self._topic(connection)
            count = connection.execute("SELECT count(*) FROM log_parts WHERE topic=?", (topic,)).fetchone()[0]
            for table in ("log_shares", "log_members"):
                connection.execute(
                    f"DELETE FROM {table} WHERE grp IN (SELECT id FROM log_groups WHERE topic=?)",  # noqa: S608
                    (topic,),
                )
            for table in ("log_groups", "log_messages", "log_parts"):
                connection.execute(f"DELETE FROM {table} WHERE topic=?", (topic,))  # noqa: S608
            connection.execute("DELETE FROM logs WHERE id=?", (topic,))
            self._topic(connection, count)
        for group in {group for group, _ in self._moved}:
            self._tell(group)

    def wait(self, timeout: float, woken: Callable[[], bool], seen: int) -> None:
        """Block until something may have come: from this process at once, from others by looking."""
        deadline = time.monotonic() + timeout
        began, pause = self._file.version(), POLL[0]
        while not woken() and self.version == seen:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            with self._changed:
                if self.version == seen and not woken():
                    self._changed.wait(min(left, pause))
            if self._file.version() != began or time.monotonic() - self._looked > LOOK_FOR_DEAD:
                return
            pause = min(pause * 1.3, POLL[1])

    def wake(self) -> None:
        """Let every waiting thread of this process look again."""
        self._notify()


_logs: weakref.WeakSet[FileLog] = weakref.WeakSet()


def _after_fork() -> None:
    for log in _logs:
        log.be_a_child()


os.register_at_fork(after_in_child=_after_fork)
