"""Azurite: Azure Blob Storage in Node, from npm, one for each test process."""

from __future__ import annotations

import functools
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from servers.maven import cache_folder, missing, only_one
from servers.process import Server, free_port

VERSION = "3.35.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # of every Azurite
FETCH_TIMEOUT = 600.0


def fetch() -> Path:
    """Give Azurite's program, fetched once by the user's own npm."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            missing(tool, "for Azurite")
    folder = cache_folder(f"azurite-{VERSION}")
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    with only_one(folder / ".lock"):
        if not (folder / ".complete").exists():
            command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--omit=optional"]
            done = subprocess.run(
                [*command, f"azurite@{VERSION}"], capture_output=True, text=True, timeout=FETCH_TIMEOUT, check=False
            )
            if done.returncode != 0:
                pytest.fail(f"npm could not fetch azurite {VERSION}:\n{done.stderr[-2000:]}", pytrace=False)
            (folder / ".complete").touch()
    return program


class Azurite:
    """A running Azurite, its blobs in memory."""

    def __init__(self) -> None:
        program = fetch()
        self.server = Server("azurite", free_port())
        self.url = f"http://127.0.0.1:{self.server.port}/{ACCOUNT}"
        self.connection_string = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={self.url};"
        )
        self.server.start(
            ["node", str(program), "--blobHost", "127.0.0.1", "--blobPort", str(self.server.port),
             "--inMemoryPersistence", "--disableTelemetry", "--silent"],
        )  # fmt: skip

    def container(self, key: str = KEY) -> str:
        """Make a container of a new name; gives its URL."""
        client = self._client(name := f"checkpoints-{uuid.uuid4().hex[:12]}", key)
        client.create_container()
        client.close()
        return f"{self.url}/{name}"

    def blobs(self, container: str) -> dict[str, dict[str, str]]:
        """Give the metadata of each blob of a container."""
        client = self._client(container.rpartition("/")[2], KEY)
        found = {blob.name: blob.metadata for blob in client.list_blobs(include=["metadata"])}
        client.close()
        return found

    def _client(self, name: str, key: str) -> Any:
        # The storage client that the vendor's checkpoint store carries: no other is needed here.
        from azure.eventhub.extensions.checkpointstoreblob._vendor.storage.blob import ContainerClient

        return ContainerClient(self.url, name, credential={"account_name": ACCOUNT, "account_key": key})


@functools.cache
def azurite() -> Azurite:
    """Give the one of this process; it is stopped when the process ends."""
    return Azurite()
