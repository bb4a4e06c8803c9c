"""What each error of kafka-python means to us, and what to do about it."""

from __future__ import annotations

import ssl
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

# By name, so that this module is read without the client. Retryable is what our class says; the client has repeated
# what it could by itself before it raised any of these.
_NAMES: Final[dict[type[BrokerError], str]] = {
    AuthenticationError: """
        SaslAuthenticationFailedError UnsupportedSaslMechanismError IllegalSaslStateError
        DelegationTokenExpiredError DelegationTokenNotFoundError UnacceptableCredentialError
        PrincipalDeserializationFailureError
    """,
    PermissionDeniedError: """
        AuthorizationError DelegationTokenAuthDisabledError DelegationTokenOwnerMismatchError
        DelegationTokenRequestNotAllowedError SecurityDisabledError TopicAuthorizationFailedError
        GroupAuthorizationFailedError ClusterAuthorizationFailedError TransactionalIdAuthorizationFailedError
        DelegationTokenAuthorizationFailedError
    """,
    NotFoundError: """
        UnknownTopicOrPartitionError UnknownTopicIdError InvalidTopicError GroupIdNotFoundError
        ResourceNotFoundError TransactionalIdNotFoundError
    """,
    TooLargeError: """
        MessageSizeTooLargeError RecordListTooLargeError
    """,
    InvalidMessageError: """
        InvalidRecordError InvalidTimestampError UnsupportedForMessageFormatError
        UnsupportedCompressionTypeError UnsupportedCodecError PolicyViolationError
    """,
    LeaseLostError: """
        CommitFailedError IllegalGenerationError UnknownMemberIdError RebalanceInProgressError
        FencedMemberEpochError StaleMemberEpochError
    """,
    ThrottledError: """
        ThrottlingQuotaExceededError QuotaViolationError GroupMaxSizeReachedError
    """,
    OutcomeUnknownError: """
        KafkaTimeoutError RequestTimedOutError NotEnoughReplicasAfterAppendError Cancelled
    """,
    ConnectionFailedError: """
        KafkaConnectionError NodeNotReadyError InvalidReceiveError BrokerNotAvailableError RetriableError
        InvalidMetadataError CorrelationIdError MetadataEmptyBrokerList StaleMetadata TooManyInFlightRequests
        LeaderNotAvailableError NotLeaderForPartitionError ReplicaNotAvailableError NetworkExceptionError
        CoordinatorLoadInProgressError CoordinatorNotAvailableError NotCoordinatorError NotEnoughReplicasError
        NotControllerError ConcurrentTransactionsError KafkaStorageError FetchSessionIdNotFoundError
        InvalidFetchSessionEpochError ListenerNotFoundError FencedLeaderEpochError UnknownLeaderEpochError
        OffsetNotAvailableError PreferredLeaderNotAvailableError EligibleLeadersNotAvailableError
        ElectionNotNeededError UnstableOffsetCommitError InconsistentTopicIdError FetchSessionTopicIdError
        ShareSessionNotFoundError InvalidShareSessionEpochError
    """,
    BrokerError: """
        KafkaError IllegalArgumentError IllegalStateError KafkaConfigurationError KafkaProtocolError
        NoOffsetForPartitionError LogTruncationError UnknownBrokerIdError UnrecognizedBrokerVersion
        TransactionAbortedError BrokerResponseError NoError UnknownError OffsetOutOfRangeError
        CorruptRecordError InvalidFetchRequestError StaleControllerEpochError OffsetMetadataTooLargeError
        InvalidRequiredAcksError InconsistentGroupProtocolError InvalidGroupIdError InvalidSessionTimeoutError
        InvalidCommitOffsetSizeError UnsupportedVersionError IncompatibleBrokerVersion TopicAlreadyExistsError
        InvalidPartitionsError InvalidReplicationFactorError InvalidReplicationAssignmentError
        InvalidConfigurationError InvalidRequestError OutOfOrderSequenceNumberError DuplicateSequenceNumberError
        InvalidProducerEpochError InvalidTxnStateError InvalidProducerIdMappingError
        InvalidTransactionTimeoutError TransactionCoordinatorFencedError OperationNotAttemptedError
        LogDirNotFoundError UnknownProducerIdError ReassignmentInProgressError InvalidPrincipalTypeError
        NonEmptyGroupError TopicDeletionDisabledError StaleBrokerEpochError MemberIdRequiredError
        FencedInstanceIdError NoReassignmentInProgressError GroupSubscribedToTopicError ProducerFencedError
        DuplicateResourceError InconsistentVoterSetError InvalidUpdateVersionError FeatureUpdateFailedError
        SnapshotNotFoundError PositionOutOfRangeError DuplicateBrokerRegistrationError
        BrokerIdNotRegisteredError InconsistentClusterIdError IneligibleReplicaError NewLeaderElectedError
        OffsetMovedToTieredStorageError UnreleasedInstanceIdError UnsupportedAssignorError
        MismatchedEndpointTypeError UnsupportedEndpointTypeError UnknownControllerIdError
        UnknownSubscriptionIdError TelemetryTooLargeError InvalidRegistrationError TransactionAbortableError
        InvalidRecordStateError FencedStateEpochError InvalidVoterKeyError DuplicateVoterError
        VoterNotFoundError
    """,
}

TABLE: Final[dict[str, type[BrokerError]]] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
"""Class of kafka-python to class of ours; a test walks `kafka.errors` and finds none missing."""

_NEXT: Final[dict[str, str]] = {
    "SaslAuthenticationFailedError": "The user name or the password is wrong; correct username= and password=.",
    "UnsupportedSaslMechanismError": "The broker does not offer this mechanism; correct sasl=.",
    "IllegalSaslStateError": "This listener takes no password; correct the port, or leave username= and password= out.",
    "TopicAuthorizationFailedError": "Ask for an ACL on the topic: READ to subscribe, WRITE to publish.",
    "GroupAuthorizationFailedError": "Ask for an ACL on the group: READ.",
    "UnknownTopicOrPartitionError": "Create the topic, or correct the URL.",
    "FencedInstanceIdError": "Another process has the same instance=; give each its own.",
    "MessageSizeTooLargeError": "Raise the topic's max.message.bytes, or publish less at once.",
    "InvalidReceiveError": "This is not Kafka's protocol, or it is TLS; correct the port, or set tls=true.",
}


def translate(error: BaseException, where: str) -> BrokerError:
    """Turn an error of the client into ours, with it as the cause.

    Args:
        error: Of kafka-python, of TLS, or of the system.
        where: The place, without secrets.
    """
    if isinstance(error, BrokerError):
        return error
    kind, fix = _named(error)
    text = str(error).strip() or type(error).__name__
    name = type(error).__name__
    ours = kind(f"{where}: {name if text == name or name in text else f'{name}: {text}'}. {fix}".strip())
    ours.__cause__ = error
    return ours


def _named(error: BaseException) -> tuple[type[BrokerError], str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationError, "The broker's certificate is not signed by the CA given; correct ca=."
    if isinstance(error, ssl.SSLError):
        return AuthenticationError, "TLS failed: the port may speak plain text, or want a certificate; see tls=, cert=."
    if isinstance(error, (OSError, EOFError)):
        return ConnectionFailedError, "Check hosts and ports of the URL, and that the broker runs."
    for cls in type(error).__mro__:
        if cls.__name__ in TABLE and cls.__module__.startswith("kafka"):
            fix = _NEXT.get(cls.__name__, "")
            if TABLE[cls.__name__] is ConnectionFailedError and not fix:
                fix = "Check hosts and ports of the URL, and that the broker runs."
            return TABLE[cls.__name__], fix
    return BrokerError, ""
