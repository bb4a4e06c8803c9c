"""The command `eventflows`; everything it needs is imported when it runs."""

from __future__ import annotations

import os
import sys
import threading

PATIENCE = 2.0
"""Seconds that the interpreter gets for its own end after a run that did not drain."""


def main() -> None:
    """Run the command and exit with its status: 0 drained, 1 halted, 2 usage or configuration, 3 drain timed out."""
    from eventflows.cli.commands import invoke

    status = invoke(sys.argv[1:])
    if status != 0:
        # An `apply` that hangs may have threads of its own (a pool's), and the interpreter would wait for those.
        leave = threading.Timer(PATIENCE, os._exit, (status,))
        leave.daemon = True
        leave.start()
    sys.exit(status)
