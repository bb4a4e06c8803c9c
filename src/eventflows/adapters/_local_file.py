"""The SQLite file of the embedded broker: opening it safely, and transactions."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Final

from eventflows.errors import (
    BrokerError,
    ConfigError,
    EventflowsError,
    NotFoundError,
    PermissionDeniedError,
    ThrottledError,
)

SCHEMA: Final = 1
APPLICATION: Final = 0x45466C77
"""Marks the file as ours, in the header of SQLite's file format (offset 68)."""
BUSY_SECONDS: Final = 30.0

_TABLES: Final = f"""
CREATE TABLE topics(
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, dead_of TEXT NOT NULL, retain REAL NOT NULL DEFAULT 0,
    UNIQUE(name, dead_of));
CREATE TABLE messages(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, topic INTEGER NOT NULL, body BLOB NOT NULL, key TEXT, id TEXT,
    type TEXT, headers TEXT, published REAL NOT NULL);
CREATE INDEX messages_of_topic ON messages(topic, seq);
CREATE TABLE groups(
    id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, name TEXT NOT NULL, next INTEGER NOT NULL,
    UNIQUE(topic, name));
CREATE TABLE pending(
    grp INTEGER NOT NULL, seq INTEGER NOT NULL, key TEXT, attempt INTEGER NOT NULL, due REAL NOT NULL,
    owner INTEGER, until REAL, PRIMARY KEY(grp, seq)) WITHOUT ROWID;
CREATE INDEX pending_held ON pending(grp, until) WHERE owner IS NOT NULL;
CREATE INDEX pending_loose ON pending(grp, due, seq) WHERE owner IS NULL AND key IS NULL;
CREATE INDEX pending_keyed ON pending(grp, seq) WHERE owner IS NULL AND key IS NOT NULL;
CREATE TABLE lows(topic INTEGER NOT NULL, at REAL NOT NULL, low INTEGER NOT NULL);
CREATE TABLE boot(id TEXT NOT NULL);
PRAGMA application_id={APPLICATION};
PRAGMA user_version={SCHEMA};
"""

ERRORS: Final[dict[str, tuple[type[EventflowsError], bool, str]]] = {
    "SQLITE_BUSY": (ThrottledError, True, "is locked by another process; it is tried again"),
    "SQLITE_LOCKED": (ThrottledError, True, "is locked by another connection; it is tried again"),
    "SQLITE_FULL": (BrokerError, True, "cannot grow: the disk is full. Make room; nothing that was kept is lost"),
    "SQLITE_IOERR": (
        BrokerError,
        True,
        "cannot be read or written: the disk is full or failing. Make room, or look at it",
    ),
    "SQLITE_NOMEM": (BrokerError, True, "needs more memory than there is"),
    "SQLITE_TOOBIG": (BrokerError, False, "was given something larger than SQLite takes"),
    "SQLITE_READONLY": (
        PermissionDeniedError,
        False,
        "cannot be written. Allow this user to write the file and its folder",
    ),
    "SQLITE_PERM": (PermissionDeniedError, False, "may not be opened by this user. Correct its permissions"),
    "SQLITE_AUTH": (PermissionDeniedError, False, "may not be used. Correct its permissions"),
    "SQLITE_CANTOPEN": (NotFoundError, False, "cannot be opened. Make its folder, and allow this user to write there"),
    "SQLITE_NOTADB": (BrokerError, False, "is not a SQLite database. Name another file"),
    "SQLITE_CORRUPT": (BrokerError, False, "is damaged. Put it aside, and restore it or begin a new one"),
    "SQLITE_PROTOCOL": (ThrottledError, True, "is locked by other processes; it is tried again"),
}
"""SQLite's primary result codes (sqlite.org/rescode.html): our class, whether trying again may help, and the text."""


def translate(error: sqlite3.Error, path: str) -> EventflowsError:
    """Name a SQLite error."""
    name = getattr(error, "sqlite_errorname", None) or ""
    primary = "_".join(name.split("_")[:2])
    kind, retryable, text = ERRORS.get(primary, (BrokerError, False, f"failed ({name or type(error).__name__})"))
    message = f"the broker's file {path} {text}."
    made = kind(message, retryable=retryable) if issubclass(kind, BrokerError) else kind(message)
    made.__cause__ = error
    return made


@contextlib.contextmanager
def translating(path: str) -> Iterator[None]:
    """Let no error of SQLite out untranslated."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path) from error


_gate = threading.RLock()
"""Held while a file is looked at or connected to."""
_connected: dict[tuple[int, int], int] = {}
"""Connections of this process, by device and inode."""


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check_header(path: str) -> bool:
    """Say whether the file has our schema already; refuse another's, untouched.

    Raises:
        ConfigError: It is not a file of this broker, or of a newer version.
    """
    with _gate:
        # Closing any descriptor of a file ends all record locks that this process has on it, SQLite's included:
        # another process would then take itself for the last one and remove the write-ahead log under us.
        return _connected.get(_identity(path) or (0, 0), 0) > 0 or _has_our_header(path)


def _has_our_header(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # a pipe would block whoever opens it
            raise ConfigError(f"file={path} is a device or a pipe, not a file. Name another.")
        with open(path, "rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return False
    except IsADirectoryError:
        raise ConfigError(f"file={path} is a folder; name a file in it.") from None
    except PermissionError:
        raise PermissionDeniedError(f"file={path} may not be read by this user. Correct its permissions.") from None
    except OSError as error:
        raise ConfigError(f"file={path} cannot be read ({type(error).__name__}); name another.") from error
    if not head:
        return False
    if len(head) < 100 or not head.startswith(b"SQLite format 3\0"):
        raise ConfigError(f"file={path} is not a SQLite database; it was left as it is. Name another file.")
    if int.from_bytes(head[68:72], "big") != APPLICATION:
        raise ConfigError(f"file={path} is the database of another program; it was left as it is. Name another file.")
    _refuse_newer(path, int.from_bytes(head[60:64], "big"))
    return True


def _refuse_newer(path: str, version: int) -> None:
    if version > SCHEMA:
        raise ConfigError(
            f"file={path} was made by a newer eventflows (its schema is {version}, ours {SCHEMA}); "
            "it was left as it is. Upgrade eventflows here."
        )


def boot_id() -> str:
    """Name this start of the machine: deadlines are counted from it."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def boot_clock() -> float:
    """Give seconds since the machine's start: no clock step changes them, and all its processes agree."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class File:
    """One connection to the file, for all threads of this process.

    Args:
        path: Absolute.
        sync: "normal" survives the death of processes, "full" that of the machine, too.
        patience: Seconds to wait for another process's transaction.
    """

    def __init__(self, path: str, sync: str, *, patience: float = BUSY_SECONDS) -> None:
        self.path = path
        self._patience = patience
        self._sync = sync
        self.lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._random = random.Random()  # noqa: S311 - a jitter, not a secret
        _files.add(self)

    def connection(self) -> sqlite3.Connection:
        """Give the connection, made anew when the file was removed or replaced; call it with `lock` held."""
        if self._connection is not None and _identity(self.path) != self._inode:
            self.close()
        if self._connection is None:
            with _gate:
                self._connection = self._connect()
                self._inode = _identity(self.path)
                if self._inode is not None:
                    _connected[self._inode] = _connected.get(self._inode, 0) + 1
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        ours = check_header(self.path)
        if not os.path.isdir(os.path.dirname(self.path)):
            raise NotFoundError(f"file={self.path}: its folder does not exist. Make it first.")
        with translating(self.path):
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection, ours)
            except BaseException:
                connection.close()
                raise
            return connection

    def _prepare(self, connection: sqlite3.Connection, ours: bool) -> None:
        if not ours:
            self._begin(connection)
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='topics'").fetchone():
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
            connection.execute("COMMIT")
        # The log may be ahead of the header.
        _refuse_newer(self.path, self._until_free(connection, "PRAGMA user_version")[0])
        self._until_free(connection, "PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if self._sync == 'full' else 'NORMAL'}")
        connection.execute("PRAGMA journal_size_limit=67108864")
        if not self._is_this_boot(connection):
            self._begin(connection)
            if not self._is_this_boot(connection):  # another process may have been first, and hold something by now
                connection.execute("DELETE FROM boot")
                connection.execute("INSERT INTO boot VALUES(?)", (boot_id(),))
                connection.execute("UPDATE pending SET due=0")
                connection.execute("UPDATE pending SET until=0 WHERE owner IS NOT NULL")
            connection.execute("COMMIT")

    @staticmethod
    def _is_this_boot(connection: sqlite3.Connection) -> bool:
        return bool(connection.execute("SELECT 1 FROM boot WHERE id=?", (boot_id(),)).fetchone())

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._until_free(connection, "BEGIN IMMEDIATE")

    def _until_free(self, connection: sqlite3.Connection, statement: str) -> Any:  # noqa: ANN401 - a row of anything
        """Run a statement that takes the file's lock, waiting with jitter while another has it; give its first row."""
        deadline = time.monotonic() + self._patience
        pause = 0.0005
        while True:
            try:
                return connection.execute(statement).fetchone()
            except sqlite3.OperationalError as error:
                busy = (error.sqlite_errorname or "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
                if not busy or time.monotonic() >= deadline:
                    raise
            time.sleep(pause * (0.5 + self._random.random()))
            pause = min(pause * 1.5, 0.01)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the file; no lock that stops others."""
        with self.lock, translating(self.path):
            connection = self.connection()
            connection.execute("BEGIN")
            try:
                self._until_free(connection, "SELECT 1 FROM boot")  # waits while another process mends after a kill
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Write in one short transaction: all of it, or nothing."""
        with self.lock, translating(self.path):
            connection = self.connection()
            self._begin(connection)
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """Give a number that changes when another process wrote."""
        with self.lock, translating(self.path):
            return int(self._until_free(self.connection(), "PRAGMA data_version")[0])

    def close(self) -> None:
        """Disconnect; the next call connects again."""
        with self.lock, _gate:
            if self._connection is None:
                return
            self._connection.close()
            self._connection = None
            if self._inode is not None:
                _connected[self._inode] -= 1


_files: weakref.WeakSet[File] = weakref.WeakSet()
_forking: list[File] = []


def _before_fork() -> None:
    """Disconnect: neither SQLite's connections nor its locks may cross a fork."""
    _forking[:] = list(_files)
    for file in _forking:
        file.lock.acquire()
    _gate.acquire()
    for file in _forking:
        file.close()


def _after_fork() -> None:
    """Let both processes connect anew, when they need to."""
    _gate.release()
    for file in _forking:
        file.lock.release()
    _forking.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
