"""What the errors of every client have in common: their text, and the next step."""

from __future__ import annotations

from typing import Final

from eventflows.errors import BrokerError, NotFoundError, OutcomeUnknownError, PermissionDeniedError

FIXES: Final = {
    "password": "The user name or the password is wrong; correct username= and password=.",
    "mechanism": "The broker does not offer this mechanism; correct sasl=.",
    "no password": "This listener takes no password; correct the port, or leave username= and password= out.",
    "topic right": "Ask for an ACL on the topic: READ to subscribe, WRITE to publish.",
    "group right": "Ask for an ACL on the group: READ.",
    "transaction right": "Ask for an ACL on the transactional ids that begin with eventflows-<group>-: WRITE.",
    "producer right": "Ask for an ACL on the topic: WRITE; before Kafka 2.8, for IDEMPOTENT_WRITE on the cluster, too.",
    "topic": "Create the topic, or correct the URL.",
    "instance": "Another process has the same instance=; give each its own.",
    "size": "Raise the topic's max.message.bytes, or publish less at once.",
    "protocol": "This is not Kafka's protocol, or it is TLS; correct the port, or set tls=true.",
    "ended": "It may want TLS (tls=true), a user (username=, password=) or a certificate (cert=); or it is not Kafka.",
    "codec": "Install its library, as pip install 'kafka-python[snappy,lz4,zstd]' does, or choose client=librdkafka.",
    "ca": "The broker's certificate is not signed by the CA given; correct ca=.",
    "tls": "TLS failed: the port may speak plain text, or want a certificate; see tls=, cert=.",
    "hosts": "Check hosts and ports of the URL, and that the broker runs.",
}
"""The next step, by what is wrong."""


class SettlingError(BrokerError):
    """A commit was refused because the group settles: nothing is lost, the same may be said again."""

    _retryable_by_default = True


class FencedError(BrokerError):
    """Somebody else has the name that transactions are made under: nothing was committed."""

    _retryable_by_default = True


def fenced(where: str, cause: BaseException | None) -> FencedError:
    """Say that transactions of ours were ended by somebody else."""
    ours = FencedError(
        f"{where}: its transaction was ended by whoever took its partitions over, as if this process were dead, or by "
        "the brokers because it lasted too long; nothing of it was committed."
    )
    ours.__cause__ = cause
    return ours


def unanswered(where: str) -> OutcomeUnknownError:
    """Say that it is not known whether a transaction was committed."""
    return OutcomeUnknownError(
        f"{where}: no answer to the end of a transaction; the positions tell, when they are read anew."
    )


def told(kind: type[BrokerError], where: str, text: str, cause: BaseException | None, fix: str = "") -> BrokerError:
    """Make an error of a kind, with its place, its next step and its cause.

    Args:
        kind: Ours.
        where: The place, without secrets.
        text: What the client says.
        cause: The client's own error.
        fix: A key of `FIXES`; empty: there is no next step to tell.
    """
    ours = kind(f"{where}: {text}. {FIXES.get(fix, '')}".strip())
    ours.__cause__ = cause
    return ours


def missing(where: str, topic: str) -> NotFoundError:
    """Say that there is no such topic."""
    return NotFoundError(f"{where}: there is no topic {topic!r}. Create it, or correct the URL.")


def denied(where: str, topic: str) -> PermissionDeniedError:
    """Say that the topic may not be read."""
    return PermissionDeniedError(f"{where}: not allowed to read topic {topic!r}. Ask for an ACL on it: READ.")


def beside(where: str, cause: BaseException) -> BrokerError:
    """Say that a message was refused only because it shared a batch with one that the broker does not take."""
    text = f"{where}: not published, because another message of its batch was refused. Publish it again."
    ours = BrokerError(text, retryable=True)
    ours.__cause__ = cause
    return ours
