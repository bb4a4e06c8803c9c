"""Run an algorithm's `apply` on events: read each message from a broker, publish each result to one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventflows.errors import BatchResultError as BatchResultError
    from eventflows.errors import Reject as Reject
    from eventflows.errors import Retry as Retry
    from eventflows.locate import open_publisher as open_publisher
    from eventflows.locate import open_subscriber as open_subscriber
    from eventflows.message import Delivery as Delivery
    from eventflows.message import Message as Message
    from eventflows.message import Messages as Messages
    from eventflows.policy import RetryPolicy as RetryPolicy
    from eventflows.secret import Secret as Secret

__version__ = "0.1.0"

_HOMES = {
    "errors": (
        "AuthenticationError BatchResultError BrokerError CallTimeoutError CapabilityError ClosedError CodecError "
        "ConfigError ConnectionFailedError DecodeError DrainTimeoutError EncodeError EventflowsError GrantError "
        "HaltedError InvalidMessageError LeaseLostError ListenersError LoadError MissingExtraError NotFoundError "
        "OutcomeUnknownError PermissionDeniedError Reject Retry RunError ThrottledError TooLargeError WorkerLostError"
    ),
    "flow": "Flow publisher run send subscriber",
    "locate": "open_publisher open_subscriber",
    "message": "Delivery Message Messages",
    "observe": "Observer",
    "policy": "RetryPolicy",
    "runner": "RunResult",
    "secret": "Secret",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)  # noqa: PLE0605


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import a public name where it is first used, so that importing the package stays fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'eventflows' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"eventflows.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
