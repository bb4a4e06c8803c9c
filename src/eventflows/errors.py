"""Every error of the library, in one tree.

```text
EventflowsError
├─ ConfigError (also ValueError)        bad URL or option, unknown name
│  ├─ CapabilityError                   the broker cannot do what the flow asks
│  ├─ MissingExtraError                 names the extra to install
│  └─ GrantError                        the catalogue does not allow it
├─ ClosedError                          you closed it
├─ CodecError                           with the path inside the document
│  ├─ DecodeError
│  └─ EncodeError
├─ BrokerError                          retryable, retry_after; the vendor's error is the cause
│  ├─ ConnectionFailedError  (retryable)
│  ├─ ThrottledError         (retryable)
│  ├─ OutcomeUnknownError    (retryable)
│  ├─ AuthenticationError
│  ├─ PermissionDeniedError
│  ├─ NotFoundError
│  ├─ TooLargeError
│  ├─ InvalidMessageError
│  └─ LeaseLostError
├─ RunError                             raised by run()
│  ├─ HaltedError
│  ├─ LoadError
│  ├─ DrainTimeoutError
│  └─ BatchResultError
├─ WorkerLostError                      why an attempt failed
├─ CallTimeoutError                     why an attempt failed
├─ ListenersError                       the event-listeners REST API
├─ Retry                                raised by `apply`
└─ Reject                               raised by `apply`
```

A message names the thing, the place and the next step; never a body, never a secret.
"""

from __future__ import annotations

from typing import ClassVar


class EventflowsError(Exception):
    """Any error that this library raises.

    Attributes:
        result: Of a call that publishes: what `apply` returned, though it was not published. Of a run: the
            `RunResult` so far. Else None.
    """

    result: object = None


class ConfigError(EventflowsError, ValueError):
    """A URL, an option or a name is wrong; nothing was started. Correct it as the text says."""


class CapabilityError(ConfigError):
    """The broker cannot do what is asked of it; nothing was attempted."""


class MissingExtraError(ConfigError):
    """A client library is not installed; the text names the extra that brings it."""


class GrantError(ConfigError):
    """The catalogue does not allow this flow; ask whoever keeps the catalogue for a grant."""


class ClosedError(EventflowsError):
    """It was closed, by you, before this call; nothing was attempted. Open it again, or make a new one."""


class CodecError(EventflowsError):
    """A value could not cross between bytes and Python.

    Args:
        problem: What is wrong, without the value itself.
        path: Where in the document, as `$.items[3].price`; `$` is the whole.
    """

    def __init__(self, problem: str, *, path: str = "$") -> None:
        super().__init__(f"{path}: {problem}")
        self.problem = problem
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the two arguments, so that the error crosses processes."""
        return _make_codec_error, (type(self), self.problem, self.path), self.__dict__


def _make_codec_error(kind: type[CodecError], problem: str, path: str) -> CodecError:
    return kind(problem, path=path)


class DecodeError(CodecError):
    """A body is not what `apply` declares; `apply` was not called and the message is never retried."""


class EncodeError(CodecError):
    """A result cannot be written as a message; nothing of it was published and its input fails without retry."""


class BrokerError(EventflowsError):
    """A broker, or the way to it, failed; `__cause__` is the vendor's own error.

    Args:
        text: The thing, the place, the next step.
        retryable: Whether the same call may succeed later; None takes the class's own answer.
        retry_after: Seconds the broker asks to wait first; None when it did not say.
    """

    retryable: bool = False
    retry_after: float | None = None
    _retryable_by_default: ClassVar[bool] = False

    def __init__(self, text: str = "", *, retryable: bool | None = None, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retryable = self._retryable_by_default if retryable is None else retryable
        self.retry_after = retry_after


class ConnectionFailedError(BrokerError):
    """The broker cannot be reached, or the connection broke; what was in flight may come again."""

    _retryable_by_default = True


class ThrottledError(BrokerError):
    """The broker asks for less; nothing was done. Wait `retry_after` seconds, or back off."""

    _retryable_by_default = True


class OutcomeUnknownError(BrokerError):
    """The broker did not answer in time: it may have been done, or not. Doing it again may repeat it."""

    _retryable_by_default = True


class AuthenticationError(BrokerError):
    """The broker does not accept these credentials; nothing was done. Correct them."""


class PermissionDeniedError(BrokerError):
    """These credentials do not allow this; nothing was done. Ask for the permission that the text names."""


class NotFoundError(BrokerError):
    """No such topic, queue or subscription; nothing was done. Create it, or correct the URL."""


class TooLargeError(BrokerError):
    """The message is larger than the broker takes; it was not published."""


class InvalidMessageError(BrokerError):
    """The message has something that the broker does not take; it was not published."""


class LeaseLostError(BrokerError):
    """The broker took the delivery back before it was settled.

    The message is not lost: it comes again as a later attempt. Stop work on this one.
    """


class RunError(EventflowsError):
    """`run()` ended otherwise than by a drain; everything held was settled or handed back."""


class HaltedError(RunError):
    """A message could not be handled and there is no place to put it; its position has not moved.

    The next start meets the same message. Mend `apply` or the message, or give the flow a `dead_letter=`.

    Args:
        text: The position, the reason and the next step.
        position: The position of the message in its source; None when no single message is the reason.
    """

    def __init__(self, text: str = "", *, position: str | None = None) -> None:
        super().__init__(text)
        self.position = position


class LoadError(RunError):
    """`load()` raised; no message was taken. The original error is the `__cause__`."""


class DrainTimeoutError(RunError):
    """Work was still going on when the drain time ended; its messages were handed back and come again."""


class BatchResultError(RunError):
    """`apply` returned another number of results than it got inputs; nothing of the batch was acknowledged."""


class WorkerLostError(EventflowsError):
    """The process that ran `apply` died during the call; it costs the message one attempt."""


class CallTimeoutError(EventflowsError):
    """The call of `apply` took longer than `timeout=`; it costs the message one attempt."""


class ListenersError(EventflowsError):
    """The event-listeners REST API refused a request, or answered something unreadable.

    Args:
        text: The request, the reason and the next step.
        status: The HTTP status; None when there was no answer.
        code: The API's own number of the error; None when it gave none.
        message: The API's own words; never a key.
        request: Method and path.
    """

    def __init__(
        self,
        text: str,
        *,
        status: int | None = None,
        code: int | None = None,
        message: str | None = None,
        request: str | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.message = message
        self.request = request


class Retry(EventflowsError):
    """Raised by `apply`: not now, again later. It counts as an attempt.

    Args:
        delay: Seconds until the next attempt, which may exceed the policy's `max_delay`; None takes the policy's.
    """

    def __init__(self, delay: float | None = None) -> None:
        given: object = delay
        if given is not None and not (isinstance(given, (int, float)) and 0 <= given < float("inf")):
            raise ConfigError(f"Retry(delay={delay!r}): the delay is a finite number of seconds, 0 or more.")
        super().__init__("apply asks for a later attempt" if delay is None else f"apply asks for {delay:g} s")
        self.delay = delay

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the argument, so that the instruction crosses processes."""
        return type(self), (self.delay,), self.__dict__


class Reject(EventflowsError):
    """Raised by `apply`: never again; dead letter now.

    Args:
        reason: Why; it is kept beside the dead letter, so no secret and no body belongs in it.
    """

    def __init__(self, reason: str = "rejected by apply") -> None:
        super().__init__(reason)
        self.reason = reason
