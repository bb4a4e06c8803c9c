"""What a group has written down: positions, who owns what, and how many claims began at a position and did not end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from eventflows.adapters._eventhubs_blob import BlobStore
from eventflows.adapters._eventhubs_claims import Claim
from eventflows.adapters._eventhubs_place import MEMORY, is_blob
from eventflows.adapters._eventhubs_store import Row, SqliteStore
from eventflows.errors import LeaseLostError

SAVE_EVENTS: Final = 500
SAVE_SECONDS: Final = 5.0
SAVE_APART: Final = 1.0
"""Seconds between two writes of one position, at least, unless somebody waits for it."""
_COUNTS: Final = ".claims"
"""Behind the group's name: where its claims are counted. The position is the offset, the count the sequence number;
so every store that keeps checkpoints keeps counts."""


def store_of(options: Mapping[str, object]) -> Any:  # noqa: ANN401 - what the client calls a checkpoint store
    """Make the store that `checkpoints` names; nothing is opened."""
    kept = str(options["checkpoints"])
    if is_blob(kept):
        return BlobStore(kept, options)
    return SqliteStore(None if kept == MEMORY else kept)


class Positions:
    """The positions of a group.

    Args:
        store: Where they are kept.
        place: The URL, as shown.
    """

    def __init__(self, store: Any, place: str) -> None:  # noqa: ANN401 - a checkpoint store
        self.store = store
        self._place = place

    async def of(self, key: Mapping[str, str]) -> dict[str, Row]:
        """Give the position of each partition that has one."""
        return {row["partition_id"]: row for row in await self.store.list_checkpoints(*_group(key))}

    async def owner(self, key: Mapping[str, str]) -> str | None:
        """Ask who owns a partition; None: nobody ever did."""
        rows = await self.store.list_ownership(*_group(key))
        return next((row["owner_id"] for row in rows if row["partition_id"] == key["partition_id"]), None)

    def is_due(self, claim: Claim) -> bool:
        """Whether the time has come to write a position."""
        since = time.monotonic() - claim.saved_at
        return claim.finished > 0 and (since >= SAVE_SECONDS or (claim.finished >= SAVE_EVENTS and since >= SAVE_APART))

    async def save(self, claim: Claim) -> None:
        """Write the position of a claim, unless another member has the partition.

        Raises:
            LeaseLostError: Another member has it; nothing was written, and what was done comes again there.
            Exception: The store's own; nothing is known to be written.
        """
        async with claim.saving:
            last = claim.to_save()
            if last is None:
                return
            await self._owned(claim)
            number, offset = last
            await self.store.update_checkpoint({**claim.key, "offset": offset, "sequence_number": number})
            claim.note_saved(number)

    async def _owned(self, claim: Claim) -> None:
        # Writes of the store are unconditional, so a member that was frozen could set back what its successor wrote.
        if claim.owner is not None and await self.owner(claim.key) != claim.owner:
            raise LeaseLostError(f"{self._place}: another member of the group has {claim.lane.name} now.")

    async def count(self, key: Mapping[str, str], position: int) -> int:
        """Note that a claim begins at a position; gives how many began there and did not end, this one included."""
        counted = await self._counted(key)
        claims = counted[1] + 1 if counted[0] == position else 1
        await self._note(key, position, claims)
        return claims

    async def discount(self, key: Mapping[str, str], position: int) -> None:
        """Note that a claim that began at a position has ended while its process lives."""
        at, claims = await self._counted(key)
        if at == position and claims > 0:
            await self._note(key, position, claims - 1)

    async def _counted(self, key: Mapping[str, str]) -> tuple[int, int]:
        namespace, hub, group = _group(key)
        for row in await self.store.list_checkpoints(namespace, hub, group + _COUNTS):
            if row["partition_id"] == key["partition_id"]:
                return int(row["offset"]), int(row["sequence_number"])
        return 0, 0

    async def _note(self, key: Mapping[str, str], position: int, claims: int) -> None:
        group = key["consumer_group"] + _COUNTS
        row = {**key, "consumer_group": group, "offset": str(position), "sequence_number": claims}
        await self.store.update_checkpoint(row)


def _group(key: Mapping[str, str]) -> tuple[str, str, str]:
    return key["fully_qualified_namespace"], key["eventhub_name"], key["consumer_group"]
