"""Every error of boto3, SQS and STS, and what it is to us."""

from __future__ import annotations

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

LONGEST_TEXT: Final = 300
"""Characters of the service's own words; a refused signature comes with pages of them."""

Row = tuple[type[BrokerError], bool, str]
"""Class, whether it is worth trying again, and the next step."""

_RENEW: Final = "Renew the credentials; work goes on by itself once they are."
_CREDENTIALS: Final = "Correct the credentials: profile=, role_arn=, or the environment."
_ALLOW: Final = "Allow it in the caller's policy, or in the queue's; `eventflows check` gives the lines."
_CREATE: Final = "Create the queue, or correct the URL: its region, account and name."
_KMS: Final = "See to the key that encrypts the queue."
_AGAIN: Final = "It is tried again."
_BUG: Final = "Please report it: the adapter should not have sent this."
_LOST: Final = "Its lease ended, or it was settled before; the message comes again."

CODES: Final[Mapping[str, Row]] = {
    # SQS's own (API reference, "Errors" of each action; the short names)
    "BatchEntryIdsNotDistinct": (BrokerError, False, _BUG),
    "BatchRequestTooLong": (TooLargeError, False, "Send smaller messages."),
    "EmptyBatchRequest": (BrokerError, False, _BUG),
    "InvalidAddress": (NotFoundError, False, "Correct the account or the queue URL."),
    "InvalidAttributeName": (BrokerError, False, _BUG),
    "InvalidAttributeValue": (InvalidMessageError, False, "Correct what the text names."),
    "InvalidBatchEntryId": (BrokerError, False, _BUG),
    "InvalidIdFormat": (LeaseLostError, False, _LOST),
    "InvalidMessageContents": (InvalidMessageError, False, "Correct the message."),
    "InvalidSecurity": (ConnectionFailedError, False, "Use https, and TLS 1.2 or newer."),
    "KmsAccessDenied": (PermissionDeniedError, False, _KMS),
    "KmsDisabled": (PermissionDeniedError, False, _KMS),
    "KmsInvalidKeyUsage": (PermissionDeniedError, False, _KMS),
    "KmsInvalidState": (PermissionDeniedError, False, _KMS),
    "KmsNotFound": (PermissionDeniedError, False, _KMS),
    "KmsOptInRequired": (PermissionDeniedError, False, _KMS),
    "KmsThrottled": (ThrottledError, True, _AGAIN),
    "MessageNotInflight": (LeaseLostError, False, _LOST),
    "MessageTooLong": (TooLargeError, False, "Send a smaller message."),
    "OverLimit": (ThrottledError, True, "Too many messages are in flight, or too many queues are asked for."),
    "PurgeQueueInProgress": (ThrottledError, True, _AGAIN),
    "QueueDeletedRecently": (ThrottledError, True, "A deleted queue's name is free after 60 seconds."),
    "QueueDoesNotExist": (NotFoundError, False, _CREATE),
    "QueueNameExists": (BrokerError, False, _BUG),
    "ReceiptHandleIsInvalid": (LeaseLostError, False, _LOST),
    "RequestThrottled": (ThrottledError, True, _AGAIN),
    "ResourceNotFoundException": (NotFoundError, False, _CREATE),
    "TooManyEntriesInBatchRequest": (BrokerError, False, _BUG),
    "UnsupportedOperation": (BrokerError, False, "The queue, or this server, does not have this action."),
    # Older names of the same
    "NonExistentQueue": (NotFoundError, False, _CREATE),
    # STS's (API reference, AssumeRole and its relatives)
    "ExpiredTokenException": (AuthenticationError, True, _RENEW),
    "ExpiredTradeInTokenException": (AuthenticationError, True, _RENEW),
    "IDPCommunicationError": (ConnectionFailedError, True, _AGAIN),
    "IDPRejectedClaim": (AuthenticationError, False, _CREDENTIALS),
    "InvalidAuthorizationMessageException": (AuthenticationError, False, _CREDENTIALS),
    "InvalidIdentityToken": (AuthenticationError, False, _CREDENTIALS),
    "JWTPayloadSizeExceededException": (AuthenticationError, False, _CREDENTIALS),
    "MalformedPolicyDocument": (BrokerError, False, _BUG),
    "OutboundWebIdentityFederationDisabledException": (AuthenticationError, False, _CREDENTIALS),
    "PackedPolicyTooLarge": (BrokerError, False, _BUG),
    "RegionDisabledException": (PermissionDeniedError, False, "Activate STS in the region."),
    "SessionDurationEscalationException": (AuthenticationError, False, _CREDENTIALS),
    # What every service of AWS may answer (API reference, "Common errors")
    "AccessDenied": (PermissionDeniedError, False, _ALLOW),
    "AccessDeniedException": (PermissionDeniedError, False, _ALLOW),
    "AuthFailure": (AuthenticationError, False, _CREDENTIALS),
    "AuthorizationError": (PermissionDeniedError, False, _ALLOW),
    "ExpiredToken": (AuthenticationError, True, _RENEW),
    "IncompleteSignature": (AuthenticationError, False, _CREDENTIALS),
    "InternalError": (BrokerError, True, _AGAIN),
    "InternalFailure": (BrokerError, True, _AGAIN),
    "InternalServerError": (BrokerError, True, _AGAIN),
    "InvalidAccessKeyId": (AuthenticationError, False, _CREDENTIALS),
    "InvalidAction": (BrokerError, False, "This server does not have this action."),
    "InvalidClientTokenId": (AuthenticationError, False, _CREDENTIALS),
    "InvalidParameterCombination": (BrokerError, False, _BUG),
    "InvalidParameterValue": (InvalidMessageError, False, "Correct what the text names."),
    "InvalidSignatureException": (AuthenticationError, False, _CREDENTIALS),
    "MalformedQueryString": (BrokerError, False, _BUG),
    "MissingAction": (BrokerError, False, _BUG),
    "MissingAuthenticationToken": (AuthenticationError, False, _CREDENTIALS),
    "MissingParameter": (InvalidMessageError, False, "Give what the text names."),
    "MissingRequiredParameterException": (InvalidMessageError, False, "Give what the text names."),
    "NotAuthorized": (PermissionDeniedError, False, _ALLOW),
    "OptInRequired": (PermissionDeniedError, False, "Sign the account up for the service."),
    "RequestExpired": (AuthenticationError, True, "Set this machine's clock."),
    "RequestLimitExceeded": (ThrottledError, True, _AGAIN),
    "RequestTimeTooSkewed": (AuthenticationError, True, "Set this machine's clock."),
    "RequestTimeout": (OutcomeUnknownError, True, _AGAIN),
    "ServiceUnavailable": (BrokerError, True, _AGAIN),
    "SignatureDoesNotMatch": (AuthenticationError, False, _CREDENTIALS),
    "SlowDown": (ThrottledError, True, _AGAIN),
    "Throttling": (ThrottledError, True, _AGAIN),
    "ThrottlingException": (ThrottledError, True, _AGAIN),
    "TooManyRequestsException": (ThrottledError, True, _AGAIN),
    "UnrecognizedClientException": (AuthenticationError, False, _CREDENTIALS),
    "ValidationError": (BrokerError, False, _BUG),
}

_REACH: Final = "See whether region and endpoint are right, and can be reached."
_GIVE: Final = (
    "Give some: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (profile= or AWS_PROFILE), aws login, or a role "
    "of the machine."
)
_INSTALL: Final = "Install what the text names."

CLASSES: Final[Mapping[str, Row]] = {
    # botocore.exceptions, by the name of the class; the first that is found in an error's ancestry counts
    "ReadTimeoutError": (OutcomeUnknownError, True, _AGAIN),
    "ConnectionClosedError": (ConnectionFailedError, True, _AGAIN),
    "SSLError": (ConnectionFailedError, True, "See to the certificates, and to the endpoint."),
    "InvalidProxiesConfigError": (BrokerError, False, "Correct the proxy's settings."),
    "ConnectionError": (ConnectionFailedError, True, _REACH),
    "HTTPClientError": (ConnectionFailedError, True, _REACH),
    "IncompleteReadError": (OutcomeUnknownError, True, _AGAIN),
    "ResponseStreamingError": (OutcomeUnknownError, True, _AGAIN),
    "ResponseParserError": (BrokerError, True, "See whether the endpoint is SQS."),
    "MetadataRetrievalError": (AuthenticationError, True, _CREDENTIALS),
    "CredentialRetrievalError": (AuthenticationError, True, _CREDENTIALS),
    "RefreshWithMFAUnsupportedError": (AuthenticationError, False, "Take a role that needs no MFA."),
    "TokenRetrievalError": (AuthenticationError, True, _RENEW),
    "SSOError": (AuthenticationError, True, "Log in again: aws sso login."),
    "LoginError": (AuthenticationError, True, "Log in again: aws login."),
    "NoCredentialsError": (AuthenticationError, False, _GIVE),
    "PartialCredentialsError": (AuthenticationError, False, _CREDENTIALS),
    "NoAuthTokenError": (AuthenticationError, False, _CREDENTIALS),
    "UnauthorizedSSOTokenError": (AuthenticationError, True, "Log in again: aws sso login."),
    "UnknownCredentialError": (AuthenticationError, False, _CREDENTIALS),
    "InfiniteLoopConfigError": (AuthenticationError, False, "Correct the profiles: one names itself as its source."),
    "CapacityNotAvailableError": (ThrottledError, True, _AGAIN),
    "MissingDependencyException": (BrokerError, False, _INSTALL),
    "BotoCoreError": (BrokerError, False, "Correct what the text names."),
}


def translate(error: BaseException, place: str, doing: str = "") -> BrokerError:
    """Turn an error of the client into ours; it becomes the cause.

    Args:
        error: What was raised.
        place: The queue, as shown.
        doing: The action, such as ReceiveMessage; empty: the error says it.
    """
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        ours = of_code(
            str(response["Error"].get("Code", "")),
            str(response["Error"].get("Message", "")),
            place,
            getattr(error, "operation_name", doing),
            status=int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0),
        )
    else:
        kind, retryable, step = next(
            (CLASSES[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in CLASSES),
            (BrokerError, False, "Correct what the text names."),
        )
        what = f"{doing}: " if doing else ""
        ours = kind(f"{place}: {what}{type(error).__name__}: {error}. {step}", retryable=retryable)
    ours.__cause__ = error
    return ours


def of_code(code: str, text: str, place: str, doing: str, *, status: int = 0, own: bool = True) -> BrokerError:
    """Turn an error code of the service into ours.

    Args:
        code: Such as `QueueDoesNotExist`, with or without the old prefix.
        text: The service's own words.
        place: The queue, as shown.
        doing: The action.
        status: Of the HTTP answer; 0: unknown.
        own: Whether the service calls it the sender's fault; counts for codes that are not known.
    """
    short = code.rsplit(".", 1)[-1]
    row = CODES.get(short) or _by_status(status, own)
    if short in ("InvalidParameterValue", "InvalidAttributeValue"):
        row = _by_text(text, row)
    kind, retryable, step = row
    return kind(f"{place}: {doing} failed ({short or status}: {text[:LONGEST_TEXT]}). {step}", retryable=retryable)


def _by_text(text: str, row: Row) -> Row:
    """Tell apart what SQS calls by one name; the words are those of its answers."""
    if "eceipt handle" in text or "ReceiptHandle" in text:
        return CODES["ReceiptHandleIsInvalid"]
    if "MessageTooLong" in text or "must be shorter than" in text:
        return CODES["MessageTooLong"]
    return row


def _by_status(status: int, own: bool) -> Row:
    if status == 429:
        return ThrottledError, True, _AGAIN
    if status == 413:
        return TooLargeError, False, "Send a smaller message."
    if status == 401:
        return AuthenticationError, False, _CREDENTIALS
    if status == 403:
        return PermissionDeniedError, False, _ALLOW
    if status >= 500 or (not status and not own):
        return BrokerError, True, _AGAIN
    return BrokerError, False, "Correct what the text names."
