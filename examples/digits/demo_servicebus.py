"""The digits demo on Azure Service Bus: the same two flows, with the tests' stand-in as a local server.

Only the URLs differ. The vendor's own client talks to the stand-in, and dead letters go to the queue's sub-queue.
"""

from __future__ import annotations

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tests"))

from amqp import AzureServer


def queues(azure: AzureServer) -> None:
    """Make the queues, and say where they are."""
    os.environ["EVENTFLOWS_SERVICEBUS_CONNECTION_STRING"] = azure.connection_string
    for name in ("images", "scores"):
        azure.queue(name)
        os.environ[f"EVENTFLOWS_DIGITS_{name.upper()}"] = f"servicebus://{azure.host}/{name}"


if __name__ == "__main__":
    with AzureServer() as azure:
        queues(azure)
        import demo  # the flows read the variables when they are imported

        status = demo.main()
    sys.exit(status)
