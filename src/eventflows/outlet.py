"""Publishing outside a run: what a called flow returns, and what `send` is given."""

from __future__ import annotations

import atexit
import os
import threading
import uuid
import weakref

import attrs

from eventflows.binding import Destination
from eventflows.codec import to_messages
from eventflows.errors import EventflowsError
from eventflows.granted import allow
from eventflows.locate import open_publisher
from eventflows.message import Message, Messages
from eventflows.protocols import Publisher
from eventflows.runner.outputs import key_of


class Outlet:
    """Where calls of a flow that only publishes send their results; safe from many threads.

    Args:
        destination: Where to.
        name: The flow's.
    """

    def __init__(self, destination: Destination, name: str) -> None:
        self._destination = destination
        self._name = name
        self._lock = threading.Lock()
        self._open: Publisher | None = None
        self._open_in: int | None = None

    def publish(self, result: object) -> None:
        """Publish what a call returned, and wait for the broker's confirmation.

        Raises:
            EventflowsError: It was not confirmed; `error.result` holds the result.
        """
        if result is None:
            return
        try:
            batch = _outputs(result, self._destination)
            if not batch:
                return
            publisher = self._connection()
            for answer in publisher.publish(batch, timeout=self._destination.timeout):
                if answer.error is not None:
                    raise answer.error
        except EventflowsError as error:
            error.result = result
            raise

    def _connection(self) -> Publisher:
        with self._lock:
            if self._open is None or self._open_in != os.getpid():
                allow(self._name, None, self._destination)
                publisher = open_publisher(self._destination.url, **self._destination.options)
                publisher.open(timeout=self._destination.timeout)
                if self._open_in is None:
                    _close_at_exit(self)
                self._open, self._open_in = publisher, os.getpid()
            return self._open

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            publisher, self._open = self._open, None
        if publisher is not None and self._open_in == os.getpid():
            publisher.close()


def send(url: str, *values: object, key: str | None = None) -> list[str | None]:
    """Publish values from a notebook or a script, and wait for the broker's confirmation.

    Args:
        url: The destination.
        values: Encoded as results of `apply` are.
        key: Of all of them; None: no key.

    Returns:
        The ids, in order.

    Raises:
        ConfigError: Something is wrong with the URL.
        EncodeError: A value cannot be written; nothing was published.
        BrokerError: A message was not confirmed; those before it may have been published.
    """
    batch = [message for value in values for message in to_messages(value, key=key)]
    with open_publisher(url) as connection:
        answers = connection.publish(batch) if batch else []
    for answer in answers:
        if answer.error is not None:
            raise answer.error
    return [answer.id for answer in answers]


def _outputs(result: object, destination: Destination) -> list[Message]:
    values = result.values if isinstance(result, Messages) else (result,)
    made: list[Message] = []
    for value in values:
        for message in to_messages(value, key=key_of(destination.key, value), headers=destination.headers):
            made.append(message if message.id else attrs.evolve(message, id=uuid.uuid4().hex))  # noqa: PERF401
    return made


def _close_at_exit(outlet: Outlet) -> None:
    reference = weakref.ref(outlet)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    atexit.register(close)
