"""librdkafka's handles, made to say why they cannot connect, and left alone after a fork.

A handle connects by itself, for ever, and tells a callback what went wrong; nothing it is asked raises the cause.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException, Message

from eventflows.adapters._kafka_errors import told
from eventflows.adapters._kafka_rd_errors import code_of, name_it, translate
from eventflows.errors import AuthenticationError, BrokerError, ConfigError, ConnectionFailedError, OutcomeUnknownError

T = TypeVar("T")
SLICE: Final = 0.1
"""Seconds of one question while it connects; the causes are looked at in between."""
RETRY_SECONDS: Final = 0.05
"""Until somebody is asked again who was not there."""


class Causes:
    """Why connections failed, newest first; librdkafka calls it while the handle is polled."""

    def __init__(self) -> None:
        self.fatal: Any = None
        """The `KafkaError` after which the handle does nothing any more."""
        self.refused: Any = None
        """The newest that says who we are, or that TLS failed: waiting mends neither."""
        self.down_since: float | None = None
        """Since when no broker can be reached, in `time.monotonic()` seconds."""
        self.noticed: Any = None
        """The newest that came as a message, as that the group may not be used does; librdkafka says it only once."""
        self._last: Any = None

    def __call__(self, error: Any) -> None:  # noqa: ANN401 - a KafkaError
        """Take one."""
        if error.fatal():
            self.fatal = error
        elif error.name() == "_ALL_BROKERS_DOWN":
            self.down_since = self.down_since or time.monotonic()
        elif isinstance(name_it(error, ""), AuthenticationError):
            self.refused = error
        else:
            self._last = error

    def serve(self, handle: Any) -> None:  # noqa: ANN401 - a Consumer, Producer or AdminClient
        """Let it tell what happened."""
        try:
            message = handle.poll(0)
        except (KafkaException, SystemError) as fatal:
            self.fatal = code_of(unhidden(fatal))
            return
        error = message.error() if isinstance(message, Message) else None  # a producer's answers are counted
        self.noticed = error or self.noticed

    def answered(self) -> None:
        """Forget them: a broker has answered."""
        self.refused = self._last = self.down_since = None

    def told(self, where: str) -> BrokerError:
        """Give the reason, as ours."""
        error = self.fatal or self.refused or self._last
        if error is not None and not _ended(error):
            return name_it(error, where)
        if error is not None or self.down_since is not None:
            return told(ConnectionFailedError, where, "the broker ends every connection at once", None, "ended")
        return told(ConnectionFailedError, where, "nobody answered in time", None, "hosts")


def unhidden(error: KafkaException | SystemError) -> KafkaException:
    """Give the client's exception: with a fatal one set it still calls back, and Python ends the callback so.

    Raises:
        SystemError: It hides none of the client's.
    """
    found = error.__cause__ if isinstance(error, SystemError) else error
    if isinstance(found, KafkaException):
        return found
    raise error


def _ended(error: Any) -> bool:  # noqa: ANN401 - a KafkaError
    """Whether a connection was made and ended; it is told of only where something was written to it in between."""
    return error.name() == "_TRANSPORT" and any(one in error.str() for one in ("Send failed", "Receive failed"))


def connect(
    make: Callable[[dict[str, Any]], T], config: dict[str, Any], topic: str, where: str, timeout: float
) -> tuple[T, Causes]:
    """Make a consumer or producer, and see that a broker answers; leaves nothing behind when none does.

    Args:
        make: The class.
        config: Of it.
        topic: Asked for; it need not be there.
        where: The place, shown.
        timeout: Seconds.

    Raises:
        BrokerError: Why it cannot connect.
        ConfigError: librdkafka does not take the configuration.
    """
    causes = Causes()
    deadline = time.monotonic() + timeout
    try:
        handle: Any = make(config | {"error_cb": causes})
    except KafkaException as error:
        raise ConfigError(f"{where}: librdkafka cannot be used so: {translate(error, 'it')}") from error
    while True:
        try:
            handle.list_topics(topic, timeout=max(min(SLICE, deadline - time.monotonic()), 0.01))
        except KafkaException as error:
            causes.serve(handle)
            given_up = causes.fatal or causes.refused or causes.down_since or time.monotonic() >= deadline
            if given_up:
                if hasattr(handle, "close"):  # an administrator's ends with its last reference
                    abandon(handle.close, 1.0)
                raise causes.told(where) from error
        else:
            causes.serve(handle)
            causes.answered()
            return handle, causes


def insist(ask: Callable[[float], T], timeout: float) -> T:
    """Ask a coordinator or leaders, which may be about to begin, or to move: again while they are not there.

    Args:
        ask: Reads something, in no more than the seconds that it is given, those that are left; raises what is ours.
        timeout: Seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask(max(deadline - time.monotonic(), 0.1))
        except (ConnectionFailedError, OutcomeUnknownError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)


def abandon(call: Callable[[], object], timeout: float) -> bool:
    """Make a call that cannot be interrupted; False: it did not come back, and goes on by itself."""

    def make() -> None:
        with contextlib.suppress(Exception):  # nobody waits for it any more, or it is over all the same
            call()

    thread = threading.Thread(target=make, name="kafka-close", daemon=True)
    thread.start()
    thread.join(max(timeout, 0.0))
    return not thread.is_alive()


class Handled:
    """Something that has a handle, which a forked process must not touch: its threads are not there.

    Args:
        handle: Of librdkafka.
    """

    def __init__(self, handle: Any) -> None:  # noqa: ANN401 - a Consumer, Producer or AdminClient
        self.handle = handle
        _all.add(self)

    def let_go(self) -> None:
        """End the handle, where this is the last reference to it."""
        self.handle = None


_all: weakref.WeakSet[Handled] = weakref.WeakSet()


def _after_fork() -> None:
    for one in list(_all):
        # Its end would wait for those threads, and it ends with its last reference: so there is one more, for ever.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one.handle))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
