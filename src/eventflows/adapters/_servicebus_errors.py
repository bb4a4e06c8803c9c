"""Every error of the Service Bus client, and what it is to us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from eventflows.adapters._azure import OPEN, PUBLISH
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
_LOST: Final = "Its lock ended, or it was settled before; the message comes again."
_REACH: Final = "See whether the namespace is right and can be reached (port 5671)."
_CREDENTIALS: Final = "Correct the credentials: connection_string=, or what azure-identity finds."
_CREATE: Final = "Create the queue, topic or subscription, or correct the URL."
LONGEST_TEXT: Final = 300

CLASSES: Final[Mapping[str, Row]] = {
    # azure.servicebus.exceptions
    "ServiceBusConnectionError": (ConnectionFailedError, True, _REACH),
    "ServiceBusCommunicationError": (ConnectionFailedError, True, _REACH),
    "ServiceBusAuthenticationError": (AuthenticationError, False, _CREDENTIALS),
    "ServiceBusAuthorizationError": (PermissionDeniedError, False, "Give it the right to listen, or to send."),
    "OperationTimeoutError": (OutcomeUnknownError, True, _AGAIN),
    "MessageSizeExceededError": (TooLargeError, False, "Send a smaller message; the limit depends on the tier."),
    "MessageAlreadySettled": (LeaseLostError, False, _LOST),
    "MessageLockLostError": (LeaseLostError, False, _LOST),
    "SessionLockLostError": (LeaseLostError, False, _LOST),
    "MessageNotFoundError": (LeaseLostError, False, _LOST),
    "MessagingEntityNotFoundError": (NotFoundError, False, _CREATE),
    "MessagingEntityDisabledError": (PermissionDeniedError, False, "Enable it in the portal."),
    "MessagingEntityAlreadyExistsError": (BrokerError, False, "Take another name."),
    "ServiceBusQuotaExceededError": (ThrottledError, True, "The queue is full, or has too many connections."),
    "ServiceBusServerBusyError": (ThrottledError, True, _AGAIN),
    "SessionCannotBeLockedError": (ThrottledError, True, "Another receiver has the session."),
    "AutoLockRenewFailed": (LeaseLostError, False, _LOST),
    "AutoLockRenewTimeout": (LeaseLostError, False, _LOST),
    "ServiceBusError": (BrokerError, True, "Correct what the text names."),
    # azure.core.exceptions, raised by credentials and by the client's own machinery
    "ClientAuthenticationError": (AuthenticationError, False, _CREDENTIALS),
    "ServiceRequestError": (ConnectionFailedError, True, _REACH),
    "ServiceResponseError": (ConnectionFailedError, True, _AGAIN),
    "AzureError": (BrokerError, False, "Correct what the text names."),
    # The client's AMQP layer lets some of these through
    "TimeoutError": (OutcomeUnknownError, True, _AGAIN),
    "OSError": (ConnectionFailedError, True, _REACH),
    "AMQPException": (ConnectionFailedError, True, _AGAIN),
    "RuntimeError": (ConnectionFailedError, True, _AGAIN),
    "AttributeError": (ConnectionFailedError, True, _AGAIN),  # a handler that another error has closed meanwhile
    "ValueError": (ConnectionFailedError, True, _AGAIN),  # "the handler has already been shutdown"
}
"""By the name of the class; the first that is found in an error's ancestry counts."""

CONDITIONS: Final[Mapping[str, Row]] = {
    "amqp:not-allowed": (InvalidMessageError, False, "Correct the message; an entity with sessions needs a key."),
    "amqp:invalid-field": (InvalidMessageError, False, "Correct the message."),
    "amqp:decode-error": (InvalidMessageError, False, "Correct the message."),
    "com.microsoft:argument-error": (InvalidMessageError, False, "Correct the message."),
    "com.microsoft:argument-out-of-range": (InvalidMessageError, False, "Correct the message."),
    "amqp:not-implemented": (BrokerError, False, "This namespace, or its tier, does not have it."),
}
"""What the client has no class for: the condition that the service refused it with."""
_CONDITION: Final = re.compile(r"Error condition: ([\w:.-]+?)\.?(?:\s|$)")  # the client has it in the text only


def wants_sessions(error: BaseException) -> bool:
    """Say whether opening failed because the entity has sessions, which the receiver did not ask for."""
    refused = _CONDITION.search(str(error.__cause__))
    return refused is not None and refused[1] == "amqp:not-allowed"


def translate(error: BaseException, place: str, doing: str) -> BrokerError:
    """Turn an error of the client into ours; it becomes the cause.

    Args:
        error: What was raised.
        place: The queue, topic or subscription, as shown.
        doing: What was done, such as "receive".
    """
    kind, retryable, step = next(
        (CLASSES[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in CLASSES),
        (BrokerError, False, "Correct what the text names."),
    )
    text = str(error)[:LONGEST_TEXT]
    if kind is BrokerError and (refused := _CONDITION.search(str(error))) is not None:
        kind, retryable, step = CONDITIONS.get(refused[1], (kind, retryable, step))
        if kind is InvalidMessageError and doing != PUBLISH:
            kind, step = BrokerError, "An entity with sessions needs a receiver of sessions."
    elif kind is OutcomeUnknownError and doing == OPEN:
        kind = ConnectionFailedError  # nothing was attempted but to connect
    ours = kind(f"{place}: {doing} failed ({type(error).__name__}: {text}). {step}", retryable=retryable)
    ours.__cause__ = error
    return ours
