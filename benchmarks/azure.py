"""Service Bus and Event Hubs on the tests' stand-in, each against tuned hand-written loops over the same client.

The two tables of `azure_parts`, one after the other, each with a stand-in in a process of its own and its ratios taken
in one run. `COUNT` and `TURNS` in the environment say how many messages, and how often.
"""

from __future__ import annotations

import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    """Print all of them."""
    # This file has the name of the vendor's package, which the parts import.
    sys.path[:] = [str(HERE / "azure_parts"), *(one for one in sys.path if pathlib.Path(one).resolve() != HERE)]
    for part in ("servicebus", "eventhubs"):
        runpy.run_path(str(HERE / "azure_parts" / f"{part}.py"), run_name="__main__")


if __name__ == "__main__":
    main()
