"""Where positions are kept: claims are compared and set, checkpoints survive, files are shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventflows.adapters._eventhubs_store import SqliteStore
from eventflows.errors import ConfigError

KEY = {"fully_qualified_namespace": "shop", "eventhub_name": "telemetry", "consumer_group": "g"}
OF = ("shop", "telemetry", "g")


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteStore:
    """A fresh store of each kind."""
    return SqliteStore(None if request.param == "memory" else str(tmp_path / "checkpoints.db"))


def claim(partition: str, owner: str, etag: str | None = None) -> dict[str, Any]:
    """What the client asks for."""
    return {**KEY, "partition_id": partition, "owner_id": owner, "etag": etag}


def test_a_free_partition_is_claimed_and_listed(store: SqliteStore) -> None:
    """The claim comes back with the mark that the next one needs."""

    async def run() -> tuple[list[Any], list[Any]]:
        return list(await store.claim_ownership([claim("0", "me")])), list(await store.list_ownership(*OF))

    [taken], [listed] = asyncio.run(run())
    assert (listed["owner_id"], listed["etag"], listed["last_modified_time"]) == (
        "me", taken["etag"], taken["last_modified_time"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mark", "wins"), [(lambda seen: seen, True), (lambda _: "old", False), (lambda _: None, False)]
)
def test_a_claimed_partition_is_taken_only_with_its_mark(
    store: SqliteStore, mark: Callable[[str], str | None], wins: bool
) -> None:
    """Of two who saw the same entry, one gets it."""

    async def run() -> list[Any]:
        [mine] = await store.claim_ownership([claim("0", "me")])
        return list(await store.claim_ownership([claim("0", "other", mark(mine["etag"]))]))

    assert [one["owner_id"] for one in asyncio.run(run())] == (["other"] if wins else [])


def test_of_many_claims_at_once_one_wins(tmp_path: Path) -> None:
    """Stores of one file, as of several processes, agree on the owner."""

    async def run() -> list[str]:
        stores = [SqliteStore(str(tmp_path / "checkpoints.db")) for _ in range(8)]
        taken = await asyncio.gather(
            *[one.claim_ownership([claim("0", f"member-{index}")]) for index, one in enumerate(stores)]
        )
        return [one["owner_id"] for each in taken for one in each]

    assert len(asyncio.run(run())) == 1


def test_the_last_checkpoint_is_kept(store: SqliteStore) -> None:
    """A later one replaces it, another group's does not."""

    async def run() -> list[Any]:
        for number, group in ((1, "g"), (2, "g"), (9, "other")):
            row = {
                **KEY,
                "consumer_group": group,
                "partition_id": "0",
                "offset": f"{number}",
                "sequence_number": number,
            }
            await store.update_checkpoint(row)
        return list(await store.list_checkpoints(*OF))

    assert [(one["offset"], one["sequence_number"]) for one in asyncio.run(run())] == [("2", 2)]


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Its folder is missing: the error says which file, and what to do."""
    store = SqliteStore(str(tmp_path / "missing" / "checkpoints.db"))
    with pytest.raises(ConfigError, match="checkpoints="):
        asyncio.run(store.list_checkpoints(*OF))  # type: ignore[arg-type]
