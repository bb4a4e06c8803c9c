"""Azure Service Bus: `servicebus://namespace/queue`, `servicebus://namespace/topic?subscription=name`.

Names:
    A *queue* is Service Bus's; a *topic* is read through a *subscription*. A *lease* is a lock, of the length that
    the queue or subscription has. The *key* of a message is its session id, its *id* the message id, which is what
    duplicate detection looks at. A *lane* is a session. An *attempt* is the delivery count, plus one. *Dead
    letters* are the sub-queue.

Guarantees:
    At least once. A verdict is confirmed by the service when `settle` returns. The service sends no more than the last
    `receive` had room for; what comes beside one is at hand for the next, and renewed after a quarter of its lock.
    Closing hands back everything that is held.
    With `sessions=` each session is a lane, in order; up to 48 of its messages are fetched ahead, under its own lock,
    and wait for a quarter of it at most where they would leave no room for other sessions.

Cannot:
    RETRY is at once: delays are waited in this process. A release counts as a delivery. A backlog is counted by
    looking, up to 1000 messages; of sessions there is none. There are no transactions.

Limits:
    A message has at most 256 KiB on Basic and Standard and up to 100 MB on Premium; the link says which. A lock lasts
    at most 5 minutes, and is renewed. Ids and keys have at most 128 characters. Headers count in the size.
    Source: "Service Bus quotas" and "Message transfers, locks, and settlement", learn.microsoft.com; the behaviour of
    the client was measured with azure-servicebus 7.15.0, the first whose settlements are confirmed.

Native access:
    `Delivery.native` is the client's `ServiceBusReceivedMessage`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

import attrs

from eventflows.adapters._servicebus_place import DESTINATION, FORM, SOURCE, validate
from eventflows.adapters._servicebus_publish import ServiceBusPublisher
from eventflows.adapters._servicebus_queue import ServiceBusSubscriber
from eventflows.adapters._servicebus_sessions import ServiceBusSessionSubscriber
from eventflows.errors import MissingExtraError
from eventflows.protocols import AdapterSpec, Capabilities, Location, Subscriber

__all__ = ["ADAPTER", "CAPABILITIES", "ServiceBusPublisher", "ServiceBusSessionSubscriber", "ServiceBusSubscriber"]

STANDARD_BYTES: Final = 262_144  # of a message on Basic and Standard, all of it ("Service Bus quotas")

CAPABILITIES: Final = Capabilities(
    settle="message",
    redeliver=True,
    release="counts",
    dead_letter=True,
    delivery_count=True,
    lease="message",
    peek="free",
    max_receive=500,
    max_publish_bytes=STANDARD_BYTES,
)
"""Of a queue or subscription without sessions, on Standard."""


def _capabilities(location: Location, options: Mapping[str, object]) -> Capabilities:
    if "sessions" in options:
        return attrs.evolve(CAPABILITIES, ordering="lane", lease="lane", peek=None)
    return attrs.evolve(CAPABILITIES, dead_letter="dead-letter" not in options)


def _needs_client() -> None:
    if importlib.util.find_spec("azure") is None or importlib.util.find_spec("azure.servicebus") is None:
        raise MissingExtraError("servicebus:// needs the Service Bus client. Install eventflows[servicebus].")


def _subscriber(location: Location, options: Mapping[str, object]) -> Subscriber:
    _needs_client()
    capabilities = _capabilities(location, options)
    if "sessions" in options:
        return ServiceBusSessionSubscriber(location, options, capabilities)
    return ServiceBusSubscriber(location, options, capabilities)


def _publisher(location: Location, options: Mapping[str, object]) -> ServiceBusPublisher:
    _needs_client()
    return ServiceBusPublisher(location, options, CAPABILITIES)


ADAPTER: Final = AdapterSpec(
    scheme="servicebus",
    form=FORM,
    capabilities=_capabilities,
    validate=validate,
    subscriber=_subscriber,
    publisher=_publisher,
    source_options=SOURCE,
    destination_options=DESTINATION,
)
