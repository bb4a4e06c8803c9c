"""Files that cannot be the broker's: a clear error, and the file as it was."""

from __future__ import annotations

import os
import pathlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest

import eventflows
from eventflows.adapters._local_file import ERRORS, SCHEMA, File, translate
from eventflows.errors import BrokerError, ConfigError, EventflowsError, NotFoundError, ThrottledError
from eventflows.protocols import Browsable
from eventflows.testing.conditions import Background


def run(code: str) -> str:
    """Run some lines in a process of their own; give what they print, or the error that they end in."""
    program = (
        "import contextlib, os, resource, signal, eventflows\n"
        f"try:\n    {code}\nexcept Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


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


def test_device_is_refused_when_it_stands_for_a_file() -> None:
    """Nothing that was sent disappears in silence."""
    with pytest.raises(ConfigError, match="/dev/null is a device or a pipe"):
        eventflows.send("local://orders?file=/dev/null", 1)


def test_pipe_is_refused_when_it_stands_for_a_file(tmp_path: pathlib.Path) -> None:
    """At once, though a pipe blocks whoever opens it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a device or a pipe"):
        eventflows.send(f"local://orders?file={tmp_path}/pipe", 1)


def test_newer_file_is_refused_when_only_its_log_says_so(tmp_path: pathlib.Path) -> None:
    """A newer program may have the file open: what it wrote last is in the log beside it."""
    path = tmp_path / "flows.db"
    run(f"eventflows.send('local://orders?file={path}', 1)")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute(f"PRAGMA user_version={SCHEMA + 1}")
    done = run(f"eventflows.send('local://orders?file={path}', 1)")
    other.close()
    assert "made by a newer eventflows" in done


DENIED: dict[str, tuple[int, int, str, str]] = {
    "unreadable file": (0o600, 0o755, "flows.db", "PermissionDeniedError file={path} may not be read by this user"),
    "unwritable file": (0o644, 0o755, "flows.db", "PermissionDeniedError the broker's file {path} cannot be written"),
    "unwritable folder": (0o644, 0o755, "new.db", "NotFoundError the broker's file {path} cannot be opened"),
    "closed folder": (0o644, 0o700, "flows.db", "PermissionDeniedError file={path} may not be read by this user"),
}
"""The modes of file and folder, the file that is named, and how the error begins."""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user, whom modes do stop")
@pytest.mark.parametrize("case", DENIED)
def test_denied_access_is_named_when_modes_forbid_it(case: str) -> None:
    """The error names the file, and what is to be allowed."""
    of_file, of_folder, name, text = DENIED[case]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / name
        run(f"eventflows.send('local://orders?file={folder}/flows.db', 1)")
        (pathlib.Path(folder) / "flows.db").chmod(of_file)
        pathlib.Path(folder).chmod(of_folder)
        done = run(
            "import eventflows.adapters._local_sqlite; eventflows.send('local://warm', 1); ''.encode('ascii')\n"
            "    os.setgid(65534), os.setuid(65534)  # all that is imported later, this user may not read\n"
            f"    eventflows.send('local://orders?file={path}', 1)"
        )
    assert done.startswith(text.format(path=path))


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


def test_cut_file_is_left_as_it_was_when_it_is_used(tmp_path: pathlib.Path) -> None:
    """A file that lost its end is told apart, and nothing is written to it."""
    path = tmp_path / "flows.db"
    run(f"eventflows.send('local://orders?file={path}', *range(2000))")
    cut = path.read_bytes()[:20_000]
    path.write_bytes(cut)
    done = run(f"eventflows.send('local://orders?file={path}', 1)")
    assert done.startswith(f"BrokerError the broker's file {path} is damaged")
    assert path.read_bytes() == cut


def test_locked_file_is_waited_for_when_it_becomes_free(tmp_path: pathlib.Path) -> None:
    """A publish that meets a lock waits, and then is done."""
    path = tmp_path / "flows.db"
    eventflows.send(f"local://orders?file={path}", 1)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    waiting = Background(lambda: eventflows.send(f"local://orders?file={path}", 2))
    other.execute("COMMIT")
    waiting.result(20)
    assert other.execute("SELECT count(*) FROM messages").fetchone() == (2,)
    other.close()


def test_locked_file_can_be_read_when_another_process_writes(tmp_path: pathlib.Path) -> None:
    """Looking waits for nobody."""
    path = tmp_path / "flows.db"
    url = f"local://orders?file={path}"
    eventflows.send(url, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    source = eventflows.open_subscriber(url)
    assert isinstance(source, Browsable)
    found = len(source.peek(10, timeout=1))
    other.close()
    assert found == 1


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


def test_publish_works_again_when_there_is_room_again(tmp_path: pathlib.Path) -> None:
    """A full disk is no reason to start anew."""
    url = f"local://orders?file={tmp_path}/flows.db"
    done = run(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"    eventflows.send({url!r}, b'before')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, -1))\n"
        "    with contextlib.suppress(eventflows.BrokerError):\n"
        f"        eventflows.send({url!r}, b'x' * 2_000_000)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        f"    eventflows.send({url!r}, b'after')\n"
        f"    print([d.message.body for d in eventflows.open_subscriber({url!r}).peek(10, timeout=1)])"
    )
    assert done == "[b'before', b'after']"


PRIMARY = {
    "SQLITE_ERROR": 1, "SQLITE_INTERNAL": 2, "SQLITE_PERM": 3, "SQLITE_ABORT": 4, "SQLITE_BUSY": 5, "SQLITE_LOCKED": 6,
    "SQLITE_NOMEM": 7, "SQLITE_READONLY": 8, "SQLITE_INTERRUPT": 9, "SQLITE_IOERR": 10, "SQLITE_CORRUPT": 11,
    "SQLITE_NOTFOUND": 12, "SQLITE_FULL": 13, "SQLITE_CANTOPEN": 14, "SQLITE_PROTOCOL": 15, "SQLITE_EMPTY": 16,
    "SQLITE_SCHEMA": 17, "SQLITE_TOOBIG": 18, "SQLITE_CONSTRAINT": 19, "SQLITE_MISMATCH": 20, "SQLITE_MISUSE": 21,
    "SQLITE_NOLFS": 22, "SQLITE_AUTH": 23, "SQLITE_FORMAT": 24, "SQLITE_RANGE": 25, "SQLITE_NOTADB": 26,
}  # fmt: skip
"""SQLite's result codes that are errors (sqlite.org/rescode.html)."""
OUR_MISTAKES = {
    "SQLITE_ERROR", "SQLITE_INTERNAL", "SQLITE_ABORT", "SQLITE_INTERRUPT", "SQLITE_NOTFOUND", "SQLITE_EMPTY",
    "SQLITE_SCHEMA", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_MISUSE", "SQLITE_NOLFS", "SQLITE_FORMAT",
    "SQLITE_RANGE",
}  # fmt: skip
"""Those that only a mistake of ours, or of SQLite's, could bring: they have the default."""
EXTENDED = sorted(
    name
    for name, code in vars(sqlite3).items()
    if name.startswith("SQLITE_") and isinstance(code, int) and code > 255 and code & 255 in PRIMARY.values()
)


def test_sqlite_codes_are_all_named() -> None:
    """Each primary code is in the table, or falls to the default on purpose."""
    assert set(PRIMARY) == set(ERRORS) | OUR_MISTAKES


def test_sqlite_codes_are_those_of_the_module() -> None:
    """The list above is SQLite's own."""
    assert {name: getattr(sqlite3, name, code) for name, code in PRIMARY.items()} == PRIMARY


@pytest.mark.parametrize("name", [*sorted(OUR_MISTAKES), *EXTENDED])
def test_sqlite_error_has_the_class_of_its_primary_code(name: str) -> None:
    """An extended code is its primary code; what is not in the table is a broker error that is not retried."""
    error = sqlite3.OperationalError("text")
    error.sqlite_errorname = name
    primary = next(n for n, code in PRIMARY.items() if code == getattr(sqlite3, name, PRIMARY.get(name, 0)) & 255)
    kind, retryable, _ = ERRORS.get(primary, (BrokerError, False, ""))
    made = translate(error, "flows.db")
    assert (type(made), getattr(made, "retryable", None)) == (kind, retryable)


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
