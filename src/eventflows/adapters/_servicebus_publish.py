"""Publishing to Service Bus: batches to the link's own limit, an answer for each message."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eventflows.adapters._azure import OPEN, PUBLISH
from eventflows.adapters._azure_publish import AzurePublisher, Work
from eventflows.adapters._owner import close_all
from eventflows.adapters._servicebus_errors import translate
from eventflows.adapters._servicebus_place import client_of, place_of
from eventflows.adapters._servicebus_types import Client, Outgoing, Sender
from eventflows.adapters._servicebus_wire import outgoing
from eventflows.errors import BrokerError, InvalidMessageError, OutcomeUnknownError, TooLargeError
from eventflows.message import Message
from eventflows.protocols import Capabilities, Location, PublishResult


class ServiceBusPublisher(AzurePublisher):
    """Writes to one queue or topic.

    Args:
        location: The destination.
        options: `connection-string` or `credential`.
        capabilities: Of Service Bus; the largest message is the link's own once it is open.
    """

    broker = "servicebus"
    missing = "Create the queue or topic, or correct the URL."
    unit = "a message"

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self._place = place_of(location, options)
        super().__init__(self._place.text, options, capabilities)
        self._client: Client | None = None
        self._sender: Sender | None = None

    def _connect(self, timeout: float) -> int:
        client = client_of(self._place, self._options, retry_total=0, try_timeout=max(timeout, 0.1))
        # A topic and a queue are written to alike; the client's two methods differ in name only.
        sender = client.get_queue_sender(self._place.entity)
        self._client, self._sender = client, sender
        try:
            sender.__enter__()
            return int(sender.create_message_batch().max_size_in_bytes)
        except Exception as error:
            raise translate(error, self._place.text, OPEN) from error

    def _forget(self) -> Callable[[], None]:
        client, sender = self._client, self._sender
        self._client = self._sender = None
        return functools.partial(close_all, sender, client)

    def _work(self, batch: Sequence[Message], deadline: float) -> Work:
        return _Batch(batch, self._sender, self._place.text, deadline)


class _Batch:
    """One batch on its way: cut to what the link takes, in order, an answer for each message."""

    def __init__(self, batch: Sequence[Message], sender: Any, place: str, deadline: float) -> None:  # noqa: ANN401
        self._batch = batch
        self._sender = sender
        self._place = place
        self._deadline = deadline
        self.results: list[PublishResult | None] = [None] * len(batch)

    def run(self) -> None:
        """Send everything; after a failure that is not one message's own, nothing more is sent."""
        pending: list[tuple[int, Outgoing]] = []
        envelope = None
        try:
            for index, message in enumerate(self._batch):
                try:
                    native = outgoing(message)
                except InvalidMessageError as error:
                    self.results[index] = PublishResult(None, error)
                    continue
                if envelope is None:
                    envelope = self._sender.create_message_batch()
                if not _added(envelope, native) and pending:
                    self._flush(envelope, pending)
                    envelope, pending = self._sender.create_message_batch(), []
                    if not _added(envelope, native):
                        self.results[index] = PublishResult(None, self._too_large(message, envelope))
                        continue
                elif len(envelope) == len(pending):
                    self.results[index] = PublishResult(None, self._too_large(message, envelope))
                    continue
                pending.append((index, native))
            if pending:
                self._flush(envelope, pending)
        except Exception as error:  # noqa: BLE001 - each error of the client becomes the answer of what is not sent
            ours = error if isinstance(error, BrokerError) else translate(error, self._place, PUBLISH)
            self.results = [PublishResult(None, ours) if one is None else one for one in self.results]

    def _too_large(self, message: Message, envelope: Any) -> TooLargeError:  # noqa: ANN401
        return TooLargeError(
            f"{self._place}: a message of {len(message.body or b'')} bytes and its headers; this link takes "
            f"{envelope.max_size_in_bytes} bytes in all."
        )

    def _flush(self, envelope: Any, pending: list[tuple[int, Outgoing]]) -> None:  # noqa: ANN401
        error = self._try(envelope if len(pending) > 1 else pending[0][1])
        alone = isinstance(error, (InvalidMessageError, TooLargeError))
        if alone and len(pending) > 1:  # one of them is at fault, and the service does not say which
            for one in pending:
                self._flush(None, [one])
            return
        if error is not None and not alone:
            raise error
        for index, _ in pending:
            self.results[index] = PublishResult(None if error else self._batch[index].id, error)

    def _try(self, what: Any) -> BrokerError | None:  # noqa: ANN401
        left = self._deadline - time.monotonic()
        if left <= 0:
            return OutcomeUnknownError(f"{self._place}: no time was left to send; nothing of it was sent.")
        try:
            self._sender.send_messages(what, timeout=left)
        except Exception as error:  # noqa: BLE001 - the table knows it
            return translate(error, self._place, PUBLISH)
        return None


def _added(envelope: Any, native: Outgoing) -> bool:  # noqa: ANN401 - the client's batch
    """Add a message to a batch; false: it does not fit."""
    try:
        envelope.add_message(native)
    except Exception as error:
        if type(error).__name__ != "MessageSizeExceededError":
            raise
        return False
    return True
