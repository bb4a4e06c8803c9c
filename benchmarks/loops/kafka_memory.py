"""Lets a flow work through what waits, and prints the peak of its memory in KiB.

Usage: kafka_memory.py URL COUNT.
"""

from __future__ import annotations

import resource
import sys

import eventflows


def main() -> None:
    """Work."""
    flow = eventflows.subscriber(sys.argv[1], name="bench", dead_letter="halt")(lambda reading: None)
    assert flow.run(limit=int(sys.argv[2])).acked == int(sys.argv[2])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
