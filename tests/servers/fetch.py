"""Fetch every server that tests start, before any test runs: no test's time limit pays for a download."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

import pytest

from servers import azurite, elasticmq, kafka, toxiproxy

SERVERS: Final[dict[str, Callable[[], object]]] = {
    "Apache Kafka": kafka.prepare,
    "ElasticMQ": elasticmq.fetch,
    "Azurite": azurite.fetch,
    "Toxiproxy": toxiproxy.fetch,
}


def main() -> int:
    """Fetch each; a missing tool is said, and is a failure where `CI=true`."""
    failed = False
    for name, fetch in SERVERS.items():
        try:
            fetch()
        except pytest.skip.Exception as reason:
            print(f"{name}: {reason}: its tests will be skipped", file=sys.stderr)
        except pytest.fail.Exception as reason:
            print(f"{name}: {reason}", file=sys.stderr)
            failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
