"""Peak memory after 1,000,000 messages against that after 100,000, published and worked on in turn."""

from __future__ import annotations

import resource
import subprocess
import sys


def work(count: int) -> int:
    """Let so many messages through a memory broker; returns the peak in KiB."""
    import eventflows
    from eventflows import Message

    flow = eventflows.subscriber("local://memory-bench")(lambda reading: None)
    with eventflows.open_publisher("local://memory-bench") as publisher:
        for _ in range(count // 10_000):
            publisher.publish([Message(b'{"a": %d}' % n) for n in range(10_000)])
            flow.run(limit=10_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Print both peaks."""
    if len(sys.argv) > 1:
        print(work(int(sys.argv[1])))
        return
    peaks = [
        int(subprocess.run([sys.executable, __file__, str(count)], capture_output=True, check=True).stdout) / 1024
        for count in (100_000, 1_000_000)
    ]
    print(f"100,000: {peaks[0]:.1f} MiB, 1,000,000: {peaks[1]:.1f} MiB, more: {peaks[1] - peaks[0]:.1f} (goal 20)")


if __name__ == "__main__":
    main()
