"""Errors of the vendor's client, made as it makes them, and what each must become."""

from __future__ import annotations

from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceRequestError, ServiceResponseError
from azure.servicebus import exceptions as sb

from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    ConnectionFailedError,
    LeaseLostError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ThrottledError,
    TooLargeError,
)

TABLE: tuple[tuple[BaseException, type[BrokerError], bool], ...] = (
    (sb.ServiceBusConnectionError(), ConnectionFailedError, True),
    (sb.ServiceBusCommunicationError(), ConnectionFailedError, True),
    (sb.ServiceBusAuthenticationError(), AuthenticationError, False),
    (sb.ServiceBusAuthorizationError(), PermissionDeniedError, False),
    (sb.OperationTimeoutError(), OutcomeUnknownError, True),
    (sb.MessageSizeExceededError(), TooLargeError, False),
    (sb.MessageAlreadySettled(), LeaseLostError, False),
    (sb.MessageLockLostError(), LeaseLostError, False),
    (sb.SessionLockLostError(), LeaseLostError, False),
    (sb.MessageNotFoundError(), LeaseLostError, False),
    (sb.MessagingEntityNotFoundError(), NotFoundError, False),
    (sb.MessagingEntityDisabledError(), PermissionDeniedError, False),
    (sb.MessagingEntityAlreadyExistsError(), BrokerError, False),
    (sb.ServiceBusQuotaExceededError(), ThrottledError, True),
    (sb.ServiceBusServerBusyError(), ThrottledError, True),
    (sb.SessionCannotBeLockedError(), ThrottledError, True),
    (sb.AutoLockRenewFailed("gone"), LeaseLostError, False),
    (sb.AutoLockRenewTimeout("gone"), LeaseLostError, False),
    (sb.ServiceBusError("unknown"), BrokerError, True),
    (sb.ServiceBusError("no", condition="amqp:not-allowed"), BrokerError, False),
    (sb.ServiceBusError("no", condition="amqp:not-implemented"), BrokerError, False),
    (ClientAuthenticationError("no"), AuthenticationError, False),
    (ServiceRequestError("no"), ConnectionFailedError, True),
    (ServiceResponseError("no"), ConnectionFailedError, True),
    (AzureError("no"), BrokerError, False),
    (TimeoutError("no"), OutcomeUnknownError, True),
    (ConnectionResetError("no"), ConnectionFailedError, True),
)
