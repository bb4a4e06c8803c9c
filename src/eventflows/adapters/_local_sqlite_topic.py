"""One named place in a SQLite file: what is published there, its groups, and what waits."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventflows.adapters._local_file import File, boot_clock, check_header
from eventflows.adapters._local_store import Waiting
from eventflows.message import Batch, Message

LARGEST: Final = 2**62
"""More than SQLite will ever number."""

COLUMNS: Final = "seq, body, key, id, type, headers, published"
Row = tuple[int, bytes, str | None, str | None, str | None, str | None, float]

_files: dict[tuple[str, str], File] = {}
_files_lock = threading.Lock()


def file_at(path: str, sync: str) -> File:
    """Give the connections to a file, the same ones for all who ask in this process."""
    with _files_lock:
        return _files.setdefault((path, sync), File(path, sync))


def names_in(path: str) -> list[str]:
    """Give the names of the queues and topics in a file, sorted."""
    if not check_header(path):
        return []
    with file_at(path, "normal").reading() as connection:
        rows = connection.execute("SELECT name FROM topics WHERE dead_of='' ORDER BY name").fetchall()
    return [row[0] for row in rows]


class SqliteTopic:
    """One named place in a file, without what is handed out of it.

    Args:
        path: Of the file, absolute.
        name: Of the place.
        sync: "normal" or "full".
        clock: Seconds; None: since the machine's start.
        dead_of: The group whose dead letters these are; empty: they are none.
    """

    def __init__(self, path: str, name: str, *, sync: str, clock: Callable[[], float] | None, dead_of: str) -> None:
        check_header(path)
        self.clock = clock or boot_clock
        self.version = 0
        self._path, self._name, self._sync, self._dead_of = path, name, sync, dead_of
        self._file = file_at(path, sync)
        self._changed = threading.Condition()
        _topics.add(self)

    def be_a_child(self) -> None:
        """Forget, in a forked child, who waits in its parent."""
        self._changed = threading.Condition()

    def _notify(self) -> None:
        with self._changed:
            self.version += 1
            self._changed.notify_all()

    def _topic(self, connection: sqlite3.Connection, *, make: bool) -> int | None:
        found = connection.execute(
            "SELECT id FROM topics WHERE name=? AND dead_of=?", (self._name, self._dead_of)
        ).fetchone()
        if found is None and make:
            return connection.execute(
                "INSERT INTO topics(name, dead_of) VALUES(?, ?)", (self._name, self._dead_of)
            ).lastrowid
        return None if found is None else int(found[0])

    def publish(self, batch: Sequence[Message]) -> list[str]:
        """Keep messages; they are in the file when this returns."""
        with self._file.writing() as connection:
            ids = self._insert(connection, batch)
        self._notify()
        return ids

    def _insert(self, connection: sqlite3.Connection, batch: Sequence[Message]) -> list[str]:
        topic, now = self._topic(connection, make=True), time.time()
        last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name='messages'").fetchone()
        first = (last[0] if last else 0) + 1
        columns = Batch.of(batch)
        rows = zip(columns.bodies, columns.keys, columns.ids, columns.content_types, columns.headers, strict=True)
        connection.executemany(
            "INSERT INTO messages(topic, body, key, id, type, headers, published) VALUES(?,?,?,?,?,?,?)",
            [
                (topic, body, key, id, kind, json.dumps(dict(headers)) if headers else None, now)
                for body, key, id, kind, headers in rows
            ],
        )
        return [given or str(first + index) for index, given in enumerate(columns.ids)]

    def join(self, group: str, retain: float) -> None:
        """Make a group unless it is there."""
        with self._file.reading() as connection:
            if self._find(connection, group) is not None and not retain:
                return
        with self._file.writing() as connection:
            topic = self._topic(connection, make=True)
            connection.execute("UPDATE topics SET retain=max(retain, ?) WHERE id=?", (retain, topic))
            self._make(connection, group)

    def _find(self, connection: sqlite3.Connection, group: str) -> tuple[int, int, int] | None:
        """Give topic, group and the group's cursor; None when there is no such group."""
        row = connection.execute(
            "SELECT topics.id, groups.id, groups.next FROM topics JOIN groups ON groups.topic=topics.id "
            "WHERE topics.name=? AND topics.dead_of=? AND groups.name=?",
            (self._name, self._dead_of, group),
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def _make(self, connection: sqlite3.Connection, group: str) -> tuple[int, int, int]:
        found = self._find(connection, group)
        if found is None:
            topic = self._topic(connection, make=True)
            connection.execute("INSERT INTO groups(topic, name, next) VALUES(?, ?, 0)", (topic, group))
            found = self._find(connection, group)
        assert found is not None  # noqa: S101 - for the type checker: it was just made
        return found

    def peek(self, group: str, limit: int, after: int | None) -> list[Waiting]:
        """Look at what waits."""
        if not check_header(self._path):
            return []
        start = 0 if after is None else min(after, LARGEST - 1) + 1
        limit = max(0, min(limit, LARGEST))
        with self._file.reading() as connection:
            found = self._find(connection, group)
            topic = self._topic(connection, make=False) if found is None else found[0]
            grp, following = (-1, 0) if found is None else found[1:]
            rows: list[Any] = connection.execute(
                f"SELECT {COLUMNS}, attempt FROM (SELECT messages.*, attempt FROM pending JOIN messages USING(seq) "  # noqa: S608
                "WHERE grp=? AND (owner IS NULL OR until<=?) AND seq>=? ORDER BY seq LIMIT ?) "
                f"UNION ALL SELECT {COLUMNS}, 1 FROM (SELECT * FROM messages WHERE topic=? AND seq>=? "
                "ORDER BY seq LIMIT ?)",
                (grp, self.clock(), start, limit, topic, max(following, start), limit),
            ).fetchall()
        return [Waiting(row[0], message_of(row[:7]), published=row[6], attempt=row[7]) for row in rows[:limit]]

    def backlog(self, group: str) -> tuple[int, float | None]:
        """Count what waits."""
        if not check_header(self._path):
            return 0, None
        with self._file.reading() as connection:
            found = self._find(connection, group)
            topic = self._topic(connection, make=False) if found is None else found[0]
            grp, following = (-1, 0) if found is None else found[1:]
            again = connection.execute(
                "SELECT count(*), min(seq) FROM pending WHERE grp=? AND (owner IS NULL OR until<=?)",
                (grp, self.clock()),
            ).fetchone()
            fresh = connection.execute(
                "SELECT count(*), min(seq) FROM messages WHERE topic=? AND seq>=?", (topic, following)
            ).fetchone()
            oldest = min((seq for _, seq in (again, fresh) if seq is not None), default=None)
            if oldest is None:
                return 0, None
            when = connection.execute("SELECT published FROM messages WHERE seq=?", (oldest,)).fetchone()
        return again[0] + fresh[0], when[0]

    def close(self) -> None:
        """Disconnect; the next call connects again."""
        self._file.close()


def message_of(row: Row) -> Message:
    """Make the message of a row."""
    headers = json.loads(row[5]) if row[5] else {}
    return Message(row[1], headers=headers, key=row[2], id=row[3], content_type=row[4])


_topics: weakref.WeakSet[SqliteTopic] = weakref.WeakSet()


def _after_fork() -> None:
    global _files_lock
    _files_lock = threading.Lock()
    for topic in _topics:
        topic.be_a_child()


os.register_at_fork(after_in_child=_after_fork)
