"""Service Bus and Event Hubs on the tests' stand-in, each against tuned hand-written loops over the same client.

The tables of `servicebus.py` and `eventhubs.py`, one after the other, each with a stand-in in a process of its own and
its ratios taken in one run. `COUNT` and `TURNS` in the environment say how many messages, and how often.
"""

from __future__ import annotations

import eventhubs
import servicebus


def main() -> None:
    """Print all of them."""
    print("Azure Service Bus")
    servicebus.main()
    print("\nAzure Event Hubs")
    eventhubs.main()


if __name__ == "__main__":
    main()
