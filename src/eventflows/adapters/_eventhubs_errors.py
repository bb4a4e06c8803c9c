"""Every error of the Event Hubs client, and what it is to us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    ConnectionFailedError,
    InvalidMessageError,
    LeaseLostError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ThrottledError,
    TooLargeError,
)

Row = tuple[type[BrokerError], bool, str]
"""Class, whether it is worth trying again, and the next step."""

_AGAIN: Final = "It is tried again."
_REACH: Final = "See whether the namespace is right and can be reached (port 5671)."
_CREDENTIALS: Final = "Correct the credentials: connection_string=, or what azure-identity finds."
_CREATE: Final = "Create the hub or the consumer group, or correct the URL."
LONGEST_TEXT: Final = 300

CLASSES: Final[Mapping[str, Row]] = {
    # azure.eventhub.exceptions
    "AuthenticationError": (AuthenticationError, False, _CREDENTIALS),
    "ConnectionLostError": (ConnectionFailedError, True, _AGAIN),
    "ConnectError": (ConnectionFailedError, True, _REACH),
    "ClientClosedError": (ConnectionFailedError, True, _AGAIN),
    "EventDataError": (InvalidMessageError, False, "Correct the message."),
    "EventDataSendError": (InvalidMessageError, False, "Correct the message."),
    "OperationTimeoutError": (OutcomeUnknownError, True, _AGAIN),
    "OwnershipLostError": (LeaseLostError, False, "Another member of the group has the partition."),
    "EventHubError": (BrokerError, True, "Correct what the text names."),
    # azure.core.exceptions, raised by credentials and stores
    "ClientAuthenticationError": (AuthenticationError, False, _CREDENTIALS),
    "ResourceNotFoundError": (NotFoundError, False, "Create the container of the checkpoints, or correct its URL."),
    "AzureError": (BrokerError, True, "Correct what the text names."),
    "OperationalError": (BrokerError, True, _AGAIN),  # of a SQLite file that is locked for too long
    # What the client's AMQP layer and the loop let through
    "TimeoutError": (OutcomeUnknownError, True, _AGAIN),
    "OSError": (ConnectionFailedError, True, _REACH),
    "AMQPException": (ConnectionFailedError, True, _AGAIN),
    "ValueError": (TooLargeError, False, "Send a smaller message."),  # a batch that has no room for one event
}
"""By the name of the class; the first that is found in an error's ancestry counts."""

CONDITIONS: Final[Mapping[str, Row]] = {
    "amqp:not-found": (NotFoundError, False, _CREATE),
    "amqp:unauthorized-access": (PermissionDeniedError, False, "Give it the right to listen, or to send."),
    "com.microsoft:server-busy": (ThrottledError, True, _AGAIN),
    "com.microsoft:timeout": (OutcomeUnknownError, True, _AGAIN),
    "com.microsoft:entity-disabled": (PermissionDeniedError, False, "Enable it in the portal."),
    "amqp:resource-limit-exceeded": (ThrottledError, True, "Too many readers or connections."),
    "amqp:link:message-size-exceeded": (TooLargeError, False, "Send a smaller message."),
    "com.microsoft:argument-error": (InvalidMessageError, False, "Correct the message."),
    "com.microsoft:argument-out-of-range": (InvalidMessageError, False, "Correct what the text names."),
    "amqp:link:detach-forced": (ConnectionFailedError, True, _AGAIN),
}
"""What the service says decides, where it says it: the client has fewer classes than that."""
STATUSES: Final[Mapping[int, Row]] = {
    401: (AuthenticationError, False, _CREDENTIALS),
    403: (AuthenticationError, False, _CREDENTIALS),
}
"""What blob storage answers; its client has one class for both, and for others."""
_CONDITION: Final = re.compile(r"Error condition: ([\w:.-]+?)\.?(?:\s|$)")


def condition_of(error: BaseException | None) -> str:
    """Give the condition that the service refused with; empty: none. The client has it in the text, or on the cause."""
    if error is None:
        return ""
    for one in (error, error.__cause__, error.__context__):
        found = getattr(one, "condition", None) or getattr(getattr(one, "error", None), "condition", None)
        if found:
            return found.decode() if isinstance(found, bytes) else str(getattr(found, "value", found))
    match = _CONDITION.search(str(error))
    return match[1] if match else ""


def translate(error: BaseException, place: str, doing: str) -> BrokerError:
    """Turn an error of the client into ours; it becomes the cause.

    Args:
        error: What was raised.
        place: The hub, as shown.
        doing: What was done, such as "receive".
    """
    if isinstance(error, BrokerError):
        return error
    row = (
        CONDITIONS.get(condition_of(error))
        or STATUSES.get(getattr(error, "status_code", 0))
        or next(
            (CLASSES[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in CLASSES),
            (BrokerError, False, "Correct what the text names."),
        )
    )
    kind, retryable, step = row
    text = str(error)[:LONGEST_TEXT]
    ours = kind(f"{place}: {doing} failed ({type(error).__name__}: {text}). {step}", retryable=retryable)
    ours.__cause__ = error
    return ours
