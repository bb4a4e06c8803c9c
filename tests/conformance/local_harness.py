"""The embedded broker under test, in memory and in a file."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from eventflows.adapters._local_file import translate
from eventflows.adapters.local import Receipt, local_broker
from eventflows.errors import BrokerError, NotFoundError, PermissionDeniedError, ThrottledError
from eventflows.testing import Faults, Harness

ALONE = "keeps nothing beyond the process, so no other process can work on it"
SKIPS = {
    "C14": "makes a topic or queue at its first use, so none is missing",
    "C15": "has no credentials",
    "C16": "has no network, so no place is unreachable",
    "C17": "has no client whose errors could be mapped",
    "C33": "settles each message alone: it has no position that could have gaps",
    "C34": "settles each message alone: it has no position that could be committed",
    "C52": "settles each message alone: it has no position that could outlive the topic",
    "C53": "fetches nothing ahead, so it has no bytes fetched to be compared",
    "C54": "has no generations of members",
    "R25": "takes no secrets",
}
"""What neither storage can be asked."""


class LocalHarness(Harness):
    """`local://`, in memory."""

    name = "local in memory"
    allowed_skips: ClassVar[Mapping[str, str] | None] = SKIPS | dict.fromkeys(
        ("R04", "R08", "R09", "R14", "R16", "R24", "R33", "R36"), ALONE
    )
    native_type = Receipt
    patience = 20.0
    quiet = 0.15
    short = 0.3
    lease = 0.8
    delay = 0.4
    saturation = 1.0
    replay_options: ClassVar[Mapping[str, object]] = {"retain": 3600}

    def source_url(self, name: str) -> str:
        """A memory broker is made by its name."""
        return f"local://{name}"

    def short_lease(self) -> Mapping[str, object]:
        """The lease is an option of the source."""
        return {"lease": self.lease}

    def faults(self, name: str) -> Faults:
        """The broker has its own."""
        return local_broker(self.source_url(name)).faults


SQLITE: tuple[tuple[str, type[BrokerError], bool], ...] = (
    ("SQLITE_BUSY", ThrottledError, True),
    ("SQLITE_BUSY_SNAPSHOT", ThrottledError, True),
    ("SQLITE_LOCKED", ThrottledError, True),
    ("SQLITE_PROTOCOL", ThrottledError, True),
    ("SQLITE_FULL", BrokerError, True),
    ("SQLITE_IOERR", BrokerError, True),
    ("SQLITE_IOERR_WRITE", BrokerError, True),
    ("SQLITE_NOMEM", BrokerError, True),
    ("SQLITE_TOOBIG", BrokerError, False),
    ("SQLITE_READONLY", PermissionDeniedError, False),
    ("SQLITE_READONLY_DBMOVED", PermissionDeniedError, False),
    ("SQLITE_PERM", PermissionDeniedError, False),
    ("SQLITE_AUTH", PermissionDeniedError, False),
    ("SQLITE_CANTOPEN", NotFoundError, False),
    ("SQLITE_NOTADB", BrokerError, False),
    ("SQLITE_CORRUPT", BrokerError, False),
    ("SQLITE_MISUSE", BrokerError, False),
)
"""SQLite's result codes, plain and extended, and what they must become (sqlite.org/rescode.html)."""


class LocalFileHarness(LocalHarness):
    """`local://`, in one SQLite file."""

    name = "local in a file"
    allowed_skips: ClassVar[Mapping[str, str] | None] = {
        case: why for case, why in SKIPS.items() if case not in ("C14", "C17")
    }

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="eventflows-conformance-")

    def source_url(self, name: str) -> str:
        """Every topic of a test is in one file."""
        return f"local://{name}?file={self._folder}/flows.db"

    def missing_url(self, side: Literal["source", "destination"]) -> str:
        """A file is made at its first use, its folder is not."""
        return f"local://orders?file={self._folder}/missing/flows.db"

    def error_table(self) -> Iterable[tuple[BaseException, type[BrokerError], bool]]:
        """Make an error of SQLite of each code."""
        for name, kind, retryable in SQLITE:
            error = sqlite3.OperationalError("from the client")
            error.sqlite_errorname = name
            yield error, kind, retryable

    def translate(self, error: BaseException) -> BrokerError:
        """Translate as the adapter does."""
        assert isinstance(error, sqlite3.Error)
        ours = translate(error, "flows.db")
        assert isinstance(ours, BrokerError)
        return ours

    def close(self) -> None:
        """Remove the file."""
        shutil.rmtree(self._folder, ignore_errors=True)
