"""The digits demo on Azure Event Hubs: the same two flows, with the tests' stand-in as a local server.

Only the URLs differ. The vendor's own client talks to the stand-in, positions are kept in a SQLite file, and dead
letters go to a hub of their own, since the service has none.
"""

from __future__ import annotations

import logging
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tests"))

from amqp import AzureServer


def hubs(azure: AzureServer, folder: str) -> None:
    """Make the hubs, and say where they are."""
    os.environ["EVENTFLOWS_EVENTHUBS_CONNECTION_STRING"] = azure.connection_string
    os.environ["EVENTFLOWS_DIGITS_READING"] = f"?group=$Default&checkpoints={folder}/checkpoints.db&balance=1"
    for name in ("images", "scores", "dead"):
        azure.hub(name, partitions=2)
        os.environ[f"EVENTFLOWS_DIGITS_{name.upper()}"] = f"eventhubs://{azure.host}/{name}"


if __name__ == "__main__":
    logging.getLogger("azure").setLevel(logging.ERROR)
    with AzureServer() as azure, tempfile.TemporaryDirectory(prefix="eventflows-eventhubs-") as folder:
        hubs(azure, folder)
        import demo  # the flows read the variables when they are imported

        status = demo.main()
    sys.exit(status)
