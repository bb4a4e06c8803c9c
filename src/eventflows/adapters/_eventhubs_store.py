"""Where positions are kept: a SQLite file of this machine, or memory.

The methods are those of the client's `CheckpointStore`, which its balancing calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from eventflows.errors import ConfigError

Row = dict[str, Any]
_KEY: Final = ("fully_qualified_namespace", "eventhub_name", "consumer_group", "partition_id")
_SCHEMA: Final = """
create table if not exists ownership (
    fully_qualified_namespace text, eventhub_name text, consumer_group text, partition_id text,
    owner_id text, last_modified_time real, etag text,
    primary key (fully_qualified_namespace, eventhub_name, consumer_group, partition_id)
);
create table if not exists checkpoint (
    fully_qualified_namespace text, eventhub_name text, consumer_group text, partition_id text,
    "offset" text, sequence_number integer,
    primary key (fully_qualified_namespace, eventhub_name, consumer_group, partition_id)
);
"""


class SqliteStore:
    """Checkpoints and ownership in one SQLite file, or in memory.

    Each call is one short transaction on a connection of its own, so that any number of processes of one machine
    may share a file; the file is made at the first use. A memory one lives as long as the object.

    Args:
        path: Of the file; None: memory.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._memory = None if path is not None else sqlite3.connect(":memory:", check_same_thread=False)
        self._thread: ThreadPoolExecutor | None = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._memory or sqlite3.connect(str(self._path), timeout=10.0)
        except sqlite3.OperationalError as error:
            raise ConfigError(f"checkpoints={self._path}: {error}. Make the folder first, or correct it.") from error
        try:
            connection.executescript(_SCHEMA)
            connection.row_factory = sqlite3.Row
            connection.execute("begin immediate")
            with connection:
                yield connection
        finally:
            if connection is not self._memory:
                connection.close()

    async def _run(self, work: Any) -> Any:  # noqa: ANN401 - what the work gives
        def run() -> Any:  # noqa: ANN401
            with self._transaction() as connection:
                return work(connection)

        if self._thread is None:  # one only: memory has one connection
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="eventflows-checkpoints")
        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def list_ownership(
        self, fully_qualified_namespace: str, eventhub_name: str, consumer_group: str, **kwargs: object
    ) -> Iterable[Row]:
        """Give who owns which partition."""
        return await self._of("ownership", fully_qualified_namespace, eventhub_name, consumer_group)

    async def list_checkpoints(
        self, fully_qualified_namespace: str, eventhub_name: str, consumer_group: str, **kwargs: object
    ) -> Iterable[Row]:
        """Give the position of each partition that has one."""
        return await self._of("checkpoint", fully_qualified_namespace, eventhub_name, consumer_group)

    async def _of(self, table: str, *key: str) -> list[Row]:
        query = f"select * from {table} where {' and '.join(f'{name} = ?' for name in _KEY[:3])}"  # noqa: S608 - names of ours
        rows: list[Row] = await self._run(lambda db: [dict(row) for row in db.execute(query, key)])
        return rows

    async def claim_ownership(self, ownership_list: Iterable[Row], **kwargs: object) -> Iterable[Row]:
        """Take partitions whose entry is still the one that was seen; gives those that were taken."""

        def work(connection: sqlite3.Connection) -> list[Row]:
            return [taken for one in ownership_list if (taken := _claim(connection, one)) is not None]

        taken: list[Row] = await self._run(work)
        return taken

    async def update_checkpoint(self, checkpoint: Row, **kwargs: object) -> None:
        """Keep a position."""
        names = (*_KEY, "offset", "sequence_number")
        marks = ", ".join("?" * len(names))
        values = [checkpoint[name] for name in names]
        await self._run(lambda db: db.execute(f"insert or replace into checkpoint values ({marks})", values).rowcount)  # noqa: S608

    def close(self) -> None:
        """Let its thread go; memory stays as long as the object."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=False)


def _claim(connection: sqlite3.Connection, wanted: Row) -> Row | None:
    key = [wanted[name] for name in _KEY]
    where = " and ".join(f"{name} = ?" for name in _KEY)
    found = connection.execute(f"select etag from ownership where {where}", key).fetchone()  # noqa: S608 - names of ours
    if (found and found["etag"]) != wanted.get("etag"):
        return None
    now, etag = time.time(), uuid.uuid4().hex  # the client reckons with seconds, whatever its documentation says
    values = (*key, wanted["owner_id"], now, etag)
    connection.execute("insert or replace into ownership values (?, ?, ?, ?, ?, ?, ?)", values)
    return {**wanted, "last_modified_time": now, "etag": etag}
