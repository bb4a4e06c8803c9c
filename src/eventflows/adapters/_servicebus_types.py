"""Names for the client's own types: its package is imported where it is used only, so they say no more than that."""

from __future__ import annotations

from typing import Any, TypeAlias

Client: TypeAlias = Any
"""`azure.servicebus.ServiceBusClient`."""
Receiver: TypeAlias = Any
"""`azure.servicebus.ServiceBusReceiver`."""
Sender: TypeAlias = Any
"""`azure.servicebus.ServiceBusSender`."""
Native: TypeAlias = Any
"""`azure.servicebus.ServiceBusReceivedMessage`."""
Outgoing: TypeAlias = Any
"""`azure.servicebus.ServiceBusMessage`, or `azure.servicebus.amqp.AmqpAnnotatedMessage`."""
