"""What each error of kafka-python means to us, and what to do about it."""

from __future__ import annotations

import ssl
from typing import Final

from eventflows.adapters._kafka_errors import told
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

_FIXES: Final = {
    "SaslAuthenticationFailedError": "password",
    "UnsupportedSaslMechanismError": "mechanism",
    "IllegalSaslStateError": "no password",
    "TopicAuthorizationFailedError": "topic right",
    "GroupAuthorizationFailedError": "group right",
    "TransactionalIdAuthorizationFailedError": "transaction right",
    "UnknownTopicOrPartitionError": "topic",
    "FencedInstanceIdError": "instance",
    "MessageSizeTooLargeError": "size",
    "InvalidReceiveError": "protocol",
    "UnsupportedCodecError": "codec",
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
    return told(kind, where, name if text == name or name in text else f"{name}: {text}", error, fix)


def _named(error: BaseException) -> tuple[type[BrokerError], str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return AuthenticationError, "ca"
    if isinstance(error, ssl.SSLError):
        return AuthenticationError, "tls"
    if isinstance(error, (OSError, EOFError)):
        return ConnectionFailedError, "hosts"
    for cls in type(error).__mro__:
        if cls.__name__ in TABLE and cls.__module__.startswith("kafka"):
            kind = TABLE[cls.__name__]
            return kind, _FIXES.get(cls.__name__, "hosts" if kind is ConnectionFailedError else "")
    return BrokerError, ""
