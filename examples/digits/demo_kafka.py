"""The digits demo on Apache Kafka: the same two flows, with a real broker of one node that is started for it.

Only the URLs differ. Kafka keeps no dead letters, so they go to a topic of their own.
"""

from __future__ import annotations

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tests"))

import pytest

from kafka import KafkaAdminClient
from servers.kafka import KafkaServer

READING = "?group=digits&session_timeout=6"


def topics(server: KafkaServer) -> None:
    """Make the topics, and say where they are."""
    names = ("images", "scores", "dead")
    admin = KafkaAdminClient(bootstrap_servers=server.address())
    admin.create_topics(
        {name: {"num_partitions": 2, "replication_factor": 1} for name in names}, wait_for_metadata=True
    )
    admin.close()
    os.environ["EVENTFLOWS_DIGITS_READING"] = READING
    for name in names:
        os.environ[f"EVENTFLOWS_DIGITS_{name.upper()}"] = f"kafka://{server.address()}/{name}"


def main() -> int:
    """Run the demo on a broker that lives as long as it; gives the exit status."""
    server = KafkaServer()
    try:
        server.start()
        topics(server)
        import demo  # the flows read the variables when they are imported

        return demo.main()
    finally:
        server.remove()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        sys.exit(f"make demo-kafka {missing}")
    except KeyboardInterrupt:
        print("stopped; the local broker and its topics are gone", file=sys.stderr)
        sys.exit(130)
