"""Files that cannot be the broker's: a clear error, and the file as it was."""

from __future__ import annotations

import pathlib
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable

import pytest

import eventflows
from eventflows.adapters._local_file import ERRORS, SCHEMA, File, translate
from eventflows.errors import BrokerError, ConfigError, EventflowsError, NotFoundError, ThrottledError


def not_sqlite(path: pathlib.Path) -> None:
    """Text."""
    path.write_text("these are notes, not a database\n" * 10)


def short_text(path: pathlib.Path) -> None:
    """Less than a header."""
    path.write_text("x")


def another_program(path: pathlib.Path) -> None:
    """A database with somebody's tables."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes(text)")
    connection.close()


def newer_schema(path: pathlib.Path) -> None:
    """Ours, of a later version."""
    eventflows.send(f"local://orders?file={path}.tmp", 1)
    File(f"{path}.tmp", "normal").connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with sqlite3.connect(f"{path}.tmp") as connection:
        connection.execute(f"PRAGMA user_version={SCHEMA + 1}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    path.write_bytes(pathlib.Path(f"{path}.tmp").read_bytes())


BAD: dict[str, tuple[Callable[[pathlib.Path], None], str]] = {
    "not_sqlite": (not_sqlite, "is not a SQLite database"),
    "short_text": (short_text, "is not a SQLite database"),
    "another_program": (another_program, "the database of another program"),
    "newer_schema": (newer_schema, "made by a newer eventflows"),
}


@pytest.mark.parametrize("case", BAD)
def test_file_is_refused_by_name_when_it_is_not_ours(case: str, tmp_path: pathlib.Path) -> None:
    """The error names the file and what it is."""
    make, text = BAD[case]
    path = tmp_path / "bad.db"
    make(path)
    with pytest.raises(ConfigError, match=f"bad.db.*{text}"):
        eventflows.send(f"local://orders?file={path}", 1)


@pytest.mark.parametrize("case", BAD)
def test_file_is_left_as_it_was_when_it_is_not_ours(case: str, tmp_path: pathlib.Path) -> None:
    """Not a byte changes, and no file appears beside it."""
    make, _ = BAD[case]
    path = tmp_path / "bad.db"
    make(path)
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError):
        eventflows.send(f"local://orders?file={path}", 1)
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before


def test_folder_is_refused_when_it_stands_for_a_file(tmp_path: pathlib.Path) -> None:
    """A folder is not a file."""
    with pytest.raises(ConfigError, match="is a folder"):
        eventflows.send(f"local://orders?file={tmp_path}", 1)


def test_missing_folder_is_named_when_the_file_would_be_in_it(tmp_path: pathlib.Path) -> None:
    """The folder is not made in silence."""
    with pytest.raises(NotFoundError, match="its folder does not exist"):
        eventflows.send(f"local://orders?file={tmp_path}/none/flows.db", 1)


def test_damaged_file_is_a_broker_error_when_it_is_used(tmp_path: pathlib.Path) -> None:
    """Garbage behind a good header is told apart from a file of another kind."""
    url = f"local://orders?file={tmp_path}/flows.db"
    eventflows.send(url, *range(100))
    code = f"import eventflows; eventflows.send({url!r}, 1)"
    path = tmp_path / "flows.db"
    File(str(path), "normal").connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xaa" * (len(data) - 100))
    for extra in tmp_path.glob("flows.db-*"):
        extra.unlink()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "BrokerError: the broker's file" in done.stderr.splitlines()[-1]


def test_locked_file_is_a_throttled_error_when_it_stays_locked(tmp_path: pathlib.Path) -> None:
    """A lock that another program keeps is waited for, and then named."""
    path = tmp_path / "flows.db"
    eventflows.send(f"local://orders?file={path}", 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    file = File(str(path), "normal", patience=0.1)
    with pytest.raises(ThrottledError, match="is locked by another process"), file.writing():
        pass
    other.close()


def test_full_disk_is_a_retryable_error_and_keeps_what_was_published(tmp_path: pathlib.Path) -> None:
    """When the file cannot grow, the publish fails by name, and what was there before is there still."""
    url = f"local://orders?file={tmp_path}/flows.db"
    code = (
        "import resource, signal, eventflows\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"eventflows.send({url!r}, b'kept')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "try:\n"
        f"    eventflows.send({url!r}, b'x' * 2_000_000)\n"
        "except eventflows.BrokerError as error:\n"
        "    print(error.retryable, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    kept = eventflows.open_subscriber(url).peek(10, timeout=5)  # type: ignore[attr-defined]
    assert (done.stdout.startswith("True the broker's file"), [d.message.body for d in kept]) == (True, [b"kept"]), done
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("name", sorted(name for name in dir(sqlite3) if name.startswith("SQLITE_") and name in ERRORS))
def test_sqlite_error_has_its_class(name: str) -> None:
    """Each code in the table becomes its class, with SQLite's own error as the cause."""
    error = sqlite3.OperationalError("text")
    error.sqlite_errorname = name
    made = translate(error, "flows.db")
    assert (type(made), made.__cause__) == (ERRORS[name][0], error)


def test_sqlite_errors_are_all_translated() -> None:
    """An error class of SQLite that is not in the table is a broker error, never let through."""
    kinds = [kind for kind in vars(sqlite3).values() if isinstance(kind, type) and issubclass(kind, sqlite3.Error)]
    assert all(isinstance(translate(kind("text"), "flows.db"), EventflowsError) for kind in kinds)


def test_unknown_sqlite_error_is_not_retried() -> None:
    """What nobody knows is not tried again in silence."""
    made = translate(sqlite3.OperationalError("text"), "flows.db")
    assert isinstance(made, BrokerError)
    assert not made.retryable
