"""Errors of the vendor's client, made as it makes them, and what each must become."""

from __future__ import annotations

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.eventhub import exceptions as eh

from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    ConnectionFailedError,
    InvalidMessageError,
    LeaseLostError,
    OutcomeUnknownError,
)

TABLE: tuple[tuple[BaseException, type[BrokerError], bool], ...] = (
    (eh.AuthenticationError("no"), AuthenticationError, False),
    (eh.ConnectionLostError("no"), ConnectionFailedError, True),
    (eh.ConnectError("no"), ConnectionFailedError, True),
    (eh.ClientClosedError("no"), ConnectionFailedError, True),
    (eh.EventDataError("no"), InvalidMessageError, False),
    (eh.EventDataSendError("no"), InvalidMessageError, False),
    (eh.OperationTimeoutError("no"), OutcomeUnknownError, True),
    (eh.OwnershipLostError("no"), LeaseLostError, False),
    (eh.EventHubError("no"), BrokerError, True),
    (ClientAuthenticationError("no"), AuthenticationError, False),
    (AzureError("no"), BrokerError, True),
    (TimeoutError("no"), OutcomeUnknownError, True),
    (ConnectionResetError("no"), ConnectionFailedError, True),
)
