"""A stand-in for Azure Service Bus and Event Hubs: an AMQP 1.0 server for tests, of the standard library alone.

The clients are the vendor's, unmodified. From the ground up: `codec` (types), `frames` (performatives), `connection`
(connections, sessions, links), `stored` (messages), `entities`, `management`, `cbs`, `hubs`, `faults`, `server`.
"""

from amqp.server import AzureServer

__all__ = ["AzureServer"]
