"""What each error of librdkafka means to us, and what to do about it."""

from __future__ import annotations

from typing import Any, Final

from eventflows.adapters._kafka_errors import SettlingError, told
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

# By the names of its codes, so that this module is read without the client. Those that begin with an underscore are
# librdkafka's own, the others the broker's. Retryable is what our class says.
_NAMES: Final[dict[type[BrokerError], str]] = {
    AuthenticationError: """
        _AUTHENTICATION _SSL SASL_AUTHENTICATION_FAILED UNSUPPORTED_SASL_MECHANISM ILLEGAL_SASL_STATE
        DELEGATION_TOKEN_EXPIRED DELEGATION_TOKEN_NOT_FOUND UNACCEPTABLE_CREDENTIAL
        PRINCIPAL_DESERIALIZATION_FAILURE
    """,
    PermissionDeniedError: """
        TOPIC_AUTHORIZATION_FAILED GROUP_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED
        TRANSACTIONAL_ID_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTH_DISABLED
        DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED SECURITY_DISABLED
    """,
    NotFoundError: """
        UNKNOWN_TOPIC_OR_PART UNKNOWN_TOPIC_ID TOPIC_EXCEPTION GROUP_ID_NOT_FOUND RESOURCE_NOT_FOUND _UNKNOWN_TOPIC
        _UNKNOWN_GROUP
    """,
    TooLargeError: """
        MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE
    """,
    InvalidMessageError: """
        INVALID_RECORD INVALID_TIMESTAMP INVALID_MSG INVALID_MSG_SIZE UNSUPPORTED_FOR_MESSAGE_FORMAT
        UNSUPPORTED_COMPRESSION_TYPE POLICY_VIOLATION _UNKNOWN_PARTITION _KEY_SERIALIZATION _VALUE_SERIALIZATION
        _BAD_COMPRESSION
    """,
    LeaseLostError: """
        ILLEGAL_GENERATION UNKNOWN_MEMBER_ID REBALANCE_IN_PROGRESS FENCED_MEMBER_EPOCH STALE_MEMBER_EPOCH
        _ASSIGNMENT_LOST _MAX_POLL_EXCEEDED
    """,
    ThrottledError: """
        THROTTLING_QUOTA_EXCEEDED GROUP_MAX_SIZE_REACHED _QUEUE_FULL SHARE_SESSION_LIMIT_REACHED
    """,
    OutcomeUnknownError: """
        REQUEST_TIMED_OUT NOT_ENOUGH_REPLICAS_AFTER_APPEND _TIMED_OUT _MSG_TIMED_OUT _TIMED_OUT_QUEUE _PURGE_INFLIGHT
        _PURGE_QUEUE _DESTROY _INTR
    """,
    ConnectionFailedError: """
        _TRANSPORT _RESOLVE _ALL_BROKERS_DOWN _DESTROY_BROKER _WAIT_COORD _WAIT_CACHE _RETRY _OUTDATED _IN_PROGRESS
        _PREV_IN_PROGRESS _NODE_UPDATE _UNKNOWN_BROKER _ISR_INSUFF BROKER_NOT_AVAILABLE LEADER_NOT_AVAILABLE
        NOT_LEADER_FOR_PARTITION REPLICA_NOT_AVAILABLE NETWORK_EXCEPTION COORDINATOR_LOAD_IN_PROGRESS
        COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR NOT_ENOUGH_REPLICAS NOT_CONTROLLER CONCURRENT_TRANSACTIONS
        KAFKA_STORAGE_ERROR FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH LISTENER_NOT_FOUND
        FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH OFFSET_NOT_AVAILABLE PREFERRED_LEADER_NOT_AVAILABLE
        ELIGIBLE_LEADERS_NOT_AVAILABLE ELECTION_NOT_NEEDED UNSTABLE_OFFSET_COMMIT INCONSISTENT_TOPIC_ID
        REBOOTSTRAP_REQUIRED SHARE_SESSION_NOT_FOUND INVALID_SHARE_SESSION_EPOCH
    """,
    BrokerError: """
        NO_ERROR UNKNOWN OFFSET_OUT_OF_RANGE STALE_CTRL_EPOCH OFFSET_METADATA_TOO_LARGE INVALID_REQUIRED_ACKS
        INCONSISTENT_GROUP_PROTOCOL INVALID_GROUP_ID INVALID_SESSION_TIMEOUT INVALID_COMMIT_OFFSET_SIZE
        UNSUPPORTED_VERSION TOPIC_ALREADY_EXISTS INVALID_PARTITIONS INVALID_REPLICATION_FACTOR
        INVALID_REPLICA_ASSIGNMENT INVALID_CONFIG INVALID_REQUEST OUT_OF_ORDER_SEQUENCE_NUMBER
        DUPLICATE_SEQUENCE_NUMBER INVALID_PRODUCER_EPOCH INVALID_TXN_STATE INVALID_PRODUCER_ID_MAPPING
        INVALID_TRANSACTION_TIMEOUT TRANSACTION_COORDINATOR_FENCED OPERATION_NOT_ATTEMPTED LOG_DIR_NOT_FOUND
        UNKNOWN_PRODUCER_ID REASSIGNMENT_IN_PROGRESS INVALID_PRINCIPAL_TYPE NON_EMPTY_GROUP TOPIC_DELETION_DISABLED
        STALE_BROKER_EPOCH MEMBER_ID_REQUIRED FENCED_INSTANCE_ID NO_REASSIGNMENT_IN_PROGRESS
        GROUP_SUBSCRIBED_TO_TOPIC PRODUCER_FENCED DUPLICATE_RESOURCE INCONSISTENT_VOTER_SET INVALID_UPDATE_VERSION
        FEATURE_UPDATE_FAILED UNRELEASED_INSTANCE_ID UNSUPPORTED_ASSIGNOR MISMATCHED_ENDPOINT_TYPE
        UNSUPPORTED_ENDPOINT_TYPE UNKNOWN_CONTROLLER_ID UNKNOWN_SUBSCRIPTION_ID TELEMETRY_TOO_LARGE
        INVALID_REGISTRATION TRANSACTION_ABORTABLE INVALID_RECORD_STATE FENCED_STATE_EPOCH INVALID_VOTER_KEY
        DUPLICATE_VOTER VOTER_NOT_FOUND INVALID_REGULAR_EXPRESSION STREAMS_INVALID_TOPOLOGY
        STREAMS_INVALID_TOPOLOGY_EPOCH STREAMS_TOPOLOGY_FENCED
        _APPLICATION _ASSIGN_PARTITIONS _AUTO_OFFSET_RESET _BAD_MSG _CONFLICT _CRIT_SYS_RESOURCE _EXISTING_SUBSCRIPTION
        _FAIL _FATAL _FENCED _FS _GAPLESS_GUARANTEE _INCONSISTENT _INVALID_ARG _INVALID_DIFFERENT_RECORD _INVALID_TYPE
        _KEY_DESERIALIZATION _LOG_TRUNCATION _NOENT _NOOP _NOT_CONFIGURED _NOT_IMPLEMENTED _NO_OFFSET _PARTIAL
        _PARTITION_EOF _READ_ONLY _REVOKE_PARTITIONS _STATE _UNDERFLOW _UNKNOWN_PROTOCOL _UNSUPPORTED_FEATURE
        _VALUE_DESERIALIZATION
    """,
}

TABLE: Final[dict[str, type[BrokerError]]] = {name: kind for kind, names in _NAMES.items() for name in names.split()}
"""Name of a code to class of ours; a test walks the codes of `confluent_kafka.KafkaError` and finds none missing."""

_FIXES: Final[dict[str, str]] = {
    "_AUTHENTICATION": "password",
    "SASL_AUTHENTICATION_FAILED": "password",
    "UNSUPPORTED_SASL_MECHANISM": "mechanism",
    "ILLEGAL_SASL_STATE": "no password",
    "TOPIC_AUTHORIZATION_FAILED": "topic right",
    "GROUP_AUTHORIZATION_FAILED": "group right",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "transaction right",
    "CLUSTER_AUTHORIZATION_FAILED": "producer right",
    "UNKNOWN_TOPIC_OR_PART": "topic",
    "_UNKNOWN_TOPIC": "topic",
    "FENCED_INSTANCE_ID": "instance",
    "MSG_SIZE_TOO_LARGE": "size",
}

ENDED: Final = frozenset({
    "_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING", "INVALID_TXN_STATE",
    "UNKNOWN_PRODUCER_ID", "OUT_OF_ORDER_SEQUENCE_NUMBER", "TRANSACTION_ABORTABLE",
})  # fmt: skip
"""After these only a new producer can go on, and it can."""


def code_of(error: BaseException) -> Any:  # noqa: ANN401 - a KafkaError, which ships no type
    """Give the client's `KafkaError` of an exception; None: it has none."""
    first = error.args[0] if error.args else None
    return first if hasattr(first, "name") and hasattr(first, "code") else None


def translate(error: BaseException, where: str) -> BrokerError:
    """Turn a `KafkaException`, or what the system raised, into ours, with it as the cause.

    Args:
        error: Of confluent-kafka, or of the system.
        where: The place, without secrets.
    """
    if isinstance(error, BrokerError):
        return error
    code = code_of(error)
    if code is None:
        return told(BrokerError, where, str(error).strip() or type(error).__name__, error)
    return name_it(code, where, error)


def name_it(code: Any, where: str, cause: BaseException | None = None) -> BrokerError:  # noqa: ANN401 - a KafkaError
    """Turn a `KafkaError` into ours."""
    name, text = code.name(), code.str().strip().rstrip(".")
    kind = TABLE.get(name, BrokerError)
    fix = _FIXES.get(name, "hosts" if kind is ConnectionFailedError else "")
    if "SSL" in text and kind in (AuthenticationError, ConnectionFailedError):
        kind, fix = AuthenticationError, "ca" if "certificate verify failed" in text else "tls"
    elif name == "_AUTHENTICATION" and "SASL state" in text:
        fix = "no password"
    elif name == "_AUTHENTICATION" and "supported mechanisms" in text:
        fix = "mechanism"
    elif name == "_FATAL" and "group.instance.id" in text:  # told so where the error itself was not seen before
        fix = "instance"
    return told(kind, where, f"{name}: {text}" if text else name, cause, fix)


def refused(error: BaseException, where: str) -> BrokerError:
    """Say why a commit failed."""
    ours = translate(error, where)
    code = code_of(error)
    # Of another generation: while the group settles librdkafka is in the next one before it says so.
    if code is None or code.name() not in {"REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION"}:
        return ours
    settling = SettlingError(str(ours))
    settling.__cause__ = error
    return settling
