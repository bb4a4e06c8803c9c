"""What the client and the services can raise, and what each must become."""

from __future__ import annotations

from botocore import exceptions as vendor
from botocore.exceptions import ClientError

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

Row = tuple[BaseException, type[BrokerError], bool]


def answer(code: str, status: int = 400, text: str = "from the service") -> ClientError:
    """Make what boto3 raises for an error answer."""
    response = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "ReceiveMessage")  # type: ignore[arg-type]


CODES: list[Row] = [
    (answer("AWS.SimpleQueueService.NonExistentQueue"), NotFoundError, False),
    (answer("QueueDoesNotExist"), NotFoundError, False),
    (answer("AWS.SimpleQueueService.QueueDeletedRecently"), ThrottledError, True),
    (answer("InvalidAddress"), NotFoundError, False),
    (answer("ReceiptHandleIsInvalid"), LeaseLostError, False),
    (answer("AWS.SimpleQueueService.MessageNotInflight"), LeaseLostError, False),
    (answer("InvalidParameterValue", text="The receipt handle has expired"), LeaseLostError, False),
    (answer("InvalidParameterValue", text="One or more parameters are invalid"), InvalidMessageError, False),
    (answer("InvalidParameterValue", text="Message must be shorter than 1048576 bytes."), TooLargeError, False),
    (answer("InvalidMessageContents"), InvalidMessageError, False),
    (answer("AWS.SimpleQueueService.BatchRequestTooLong"), TooLargeError, False),
    (answer("OverLimit", 403), ThrottledError, True),
    (answer("RequestThrottled", 403), ThrottledError, True),
    (answer("ThrottlingException", 400), ThrottledError, True),
    (answer("KmsThrottled"), ThrottledError, True),
    (answer("KmsAccessDenied"), PermissionDeniedError, False),
    (answer("AccessDenied", 403), PermissionDeniedError, False),
    (answer("AccessDeniedException", 400), PermissionDeniedError, False),
    (answer("InvalidClientTokenId", 403), AuthenticationError, False),
    (answer("SignatureDoesNotMatch", 403), AuthenticationError, False),
    (answer("ExpiredToken", 403), AuthenticationError, True),
    (answer("ExpiredTokenException", 400), AuthenticationError, True),
    (answer("InternalError", 500), BrokerError, True),
    (answer("ServiceUnavailable", 503), BrokerError, True),
    (answer("SomethingNew", 400), BrokerError, False),
    (answer("SomethingNew", 403), PermissionDeniedError, False),
    (answer("SomethingNew", 429), ThrottledError, True),
    (answer("SomethingNew", 502), BrokerError, True),
]
CLASSES: list[Row] = [
    (vendor.EndpointConnectionError(endpoint_url="http://x", error="refused"), ConnectionFailedError, True),
    (vendor.ConnectTimeoutError(endpoint_url="http://x", error="slow"), ConnectionFailedError, True),
    (vendor.ConnectionClosedError(endpoint_url="http://x", error="closed"), ConnectionFailedError, True),
    (vendor.ProxyConnectionError(proxy_url="http://x", error="refused"), ConnectionFailedError, True),
    (vendor.SSLError(endpoint_url="http://x", error="handshake"), ConnectionFailedError, True),
    (vendor.ReadTimeoutError(endpoint_url="http://x", error="slow"), OutcomeUnknownError, True),
    (vendor.HTTPClientError(error="broken"), ConnectionFailedError, True),
    (vendor.NoCredentialsError(), AuthenticationError, False),
    (vendor.PartialCredentialsError(provider="env", cred_var="secret"), AuthenticationError, False),
    (vendor.CredentialRetrievalError(provider="x", error_msg="broken"), AuthenticationError, True),
    (vendor.UnauthorizedSSOTokenError(), AuthenticationError, True),
    (vendor.ParamValidationError(report="bad"), BrokerError, False),
]
