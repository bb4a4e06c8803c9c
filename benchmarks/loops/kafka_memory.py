"""Lets a flow work through what waits, and prints the peak of its memory in KiB.

Usage: kafka_memory.py URL COUNT.
"""

from __future__ import annotations

import pathlib
import sys

import eventflows


def main() -> None:
    """Work."""
    flow = eventflows.subscriber(sys.argv[1], name="bench", dead_letter="halt")(lambda reading: None)
    assert flow.run(limit=int(sys.argv[2])).acked == int(sys.argv[2])
    # What `resource` gives begins with the peak of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


if __name__ == "__main__":
    main()
