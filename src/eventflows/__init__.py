"""Run an algorithm's `apply` on events: read each message from a broker, publish each result to one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventflows.decorators import publisher as publisher
    from eventflows.decorators import subscriber as subscriber
    from eventflows.errors import AuthenticationError as AuthenticationError
    from eventflows.errors import BatchResultError as BatchResultError
    from eventflows.errors import BrokerError as BrokerError
    from eventflows.errors import CallTimeoutError as CallTimeoutError
    from eventflows.errors import CapabilityError as CapabilityError
    from eventflows.errors import ClosedError as ClosedError
    from eventflows.errors import CodecError as CodecError
    from eventflows.errors import ConfigError as ConfigError
    from eventflows.errors import ConnectionFailedError as ConnectionFailedError
    from eventflows.errors import DecodeError as DecodeError
    from eventflows.errors import DrainTimeoutError as DrainTimeoutError
    from eventflows.errors import EncodeError as EncodeError
    from eventflows.errors import EventflowsError as EventflowsError
    from eventflows.errors import GrantError as GrantError
    from eventflows.errors import HaltedError as HaltedError
    from eventflows.errors import InvalidMessageError as InvalidMessageError
    from eventflows.errors import LeaseLostError as LeaseLostError
    from eventflows.errors import ListenersError as ListenersError
    from eventflows.errors import LoadError as LoadError
    from eventflows.errors import MissingExtraError as MissingExtraError
    from eventflows.errors import NotFoundError as NotFoundError
    from eventflows.errors import OutcomeUnknownError as OutcomeUnknownError
    from eventflows.errors import PermissionDeniedError as PermissionDeniedError
    from eventflows.errors import Reject as Reject
    from eventflows.errors import Retry as Retry
    from eventflows.errors import RunError as RunError
    from eventflows.errors import ThrottledError as ThrottledError
    from eventflows.errors import TooLargeError as TooLargeError
    from eventflows.errors import WorkerLostError as WorkerLostError
    from eventflows.flow import Flow as Flow
    from eventflows.flow import run as run
    from eventflows.hosted import hosted_algorithm as hosted_algorithm
    from eventflows.listeners import EventListeners as EventListeners
    from eventflows.locate import open_publisher as open_publisher
    from eventflows.locate import open_subscriber as open_subscriber
    from eventflows.message import Delivery as Delivery
    from eventflows.message import Message as Message
    from eventflows.message import Messages as Messages
    from eventflows.observe import Observer as Observer
    from eventflows.outlet import send as send
    from eventflows.policy import RetryPolicy as RetryPolicy
    from eventflows.runner import RunResult as RunResult
    from eventflows.secret import Secret as Secret

__version__ = "0.1.0"

_HOMES = {
    "errors": (
        "AuthenticationError BatchResultError BrokerError CallTimeoutError CapabilityError ClosedError CodecError "
        "ConfigError ConnectionFailedError DecodeError DrainTimeoutError EncodeError EventflowsError GrantError "
        "HaltedError InvalidMessageError LeaseLostError ListenersError LoadError MissingExtraError NotFoundError "
        "OutcomeUnknownError PermissionDeniedError Reject Retry RunError ThrottledError TooLargeError WorkerLostError"
    ),
    "decorators": "publisher subscriber",
    "flow": "Flow run",
    "hosted": "hosted_algorithm",
    "listeners": "EventListeners",
    "locate": "open_publisher open_subscriber",
    "message": "Delivery Message Messages",
    "observe": "Observer",
    "outlet": "send",
    "policy": "RetryPolicy",
    "runner": "RunResult",
    "secret": "Secret",
}
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME)


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
