"""Milliseconds that `import eventflows` adds to a bare interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

TURNS = 15


def timed(code: str) -> float:
    """Time an interpreter that runs some code; seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    for what in ("import eventflows", "from eventflows import subscriber"):
        added = [timed(what) - timed("pass") for _ in range(TURNS)]
        print(f"{what:36} adds {statistics.median(added) * 1000:6.1f} ms (goal for the first: 50)")


if __name__ == "__main__":
    main()
