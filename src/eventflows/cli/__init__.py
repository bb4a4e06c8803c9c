"""The command `eventflows`; everything it needs is imported when it runs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command and exit with its status: 0 drained, 1 halted, 2 usage or configuration, 3 drain timed out."""
    from eventflows.cli.commands import invoke

    sys.exit(invoke(sys.argv[1:]))
