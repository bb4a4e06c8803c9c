"""Where positions are kept: a container of Azure Blob Storage, by the vendor's own package.

What it writes can be read by the vendor's other clients, in any language. Its methods block, so each runs on a thread;
the times of its HTTP calls are bounded, so that no thread stays for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from eventflows.adapters._azure import default_credential
from eventflows.adapters._eventhubs_place import container_of
from eventflows.adapters._eventhubs_store import Row
from eventflows.errors import ConfigError, MissingExtraError, OutcomeUnknownError
from eventflows.secret import Secret

CONNECTING: Final = 5.0
READING: Final = 10.0
LONGEST: Final = 30.0
"""Seconds for one call, retries included."""


class BlobStore:
    """Checkpoints and ownership as blobs of a container, which must exist.

    Args:
        url: Of the container.
        options: `checkpoints-connection-string` or `credential`.
    """

    def __init__(self, url: str, options: Mapping[str, object]) -> None:
        self._url = url
        self._options = options
        self._store: Any = None

    def _made(self) -> Any:  # noqa: ANN401 - the vendor's store
        if self._store is None:
            self._store = _connect(self._url, self._options)
        return self._store

    async def _run(self, call: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - what the call gives
        try:
            return await asyncio.wait_for(asyncio.to_thread(lambda: call(self._made())), LONGEST)
        except TimeoutError as error:
            raise OutcomeUnknownError(f"checkpoints={self._url} did not answer within {LONGEST:g} s.") from error

    async def list_ownership(
        self, fully_qualified_namespace: str, eventhub_name: str, consumer_group: str, **kwargs: object
    ) -> Iterable[Row]:
        """Give who owns which partition."""
        of = fully_qualified_namespace, eventhub_name, consumer_group
        found: Iterable[Row] = await self._run(lambda store: list(store.list_ownership(*of)))
        return found

    async def list_checkpoints(
        self, fully_qualified_namespace: str, eventhub_name: str, consumer_group: str, **kwargs: object
    ) -> Iterable[Row]:
        """Give the position of each partition that has one."""
        of = fully_qualified_namespace, eventhub_name, consumer_group
        found: Iterable[Row] = await self._run(lambda store: list(store.list_checkpoints(*of)))
        return found

    async def claim_ownership(self, ownership_list: Iterable[Row], **kwargs: object) -> Iterable[Row]:
        """Take partitions whose entry is still the one that was seen; gives those that were taken."""
        wanted = list(ownership_list)
        taken: Iterable[Row] = await self._run(lambda store: list(store.claim_ownership(wanted)))
        return taken

    async def update_checkpoint(self, checkpoint: Row, **kwargs: object) -> None:
        """Keep a position."""
        await self._run(lambda store: store.update_checkpoint(checkpoint))

    def close(self) -> None:
        """Let its connections go."""
        store, self._store = self._store, None
        if store is not None:
            store.close()


def _connect(url: str, options: Mapping[str, object]) -> Any:  # noqa: ANN401 - the vendor's store
    try:
        from azure.eventhub.extensions.checkpointstoreblob import BlobCheckpointStore
    except ImportError:
        raise MissingExtraError(
            "Checkpoints in Azure Blob Storage need its package. Install eventflows[eventhubs]."
        ) from None
    account, container = container_of(url)
    bounds: dict[str, Any] = {
        "connection_timeout": CONNECTING,
        "read_timeout": READING,
        "retry_total": 1,
        "initial_backoff": 1,
    }
    given = options.get("checkpoints-connection-string")
    if not isinstance(given, Secret):
        credential: Any = options.get("credential") or default_credential()
        return BlobCheckpointStore(account, container, credential, **bounds)
    try:
        store = BlobCheckpointStore.from_connection_string(given.reveal(), container, **bounds)
    except ValueError:
        raise ConfigError(
            f"checkpoints={url}: checkpoints_connection_string= is not that of a storage account."
        ) from None
    return store
