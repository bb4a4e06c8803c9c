"""Publishing to Event Hubs: batches of a key or a partition, an answer for each event."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from eventflows.adapters._azure import OPEN, PUBLISH
from eventflows.adapters._azure_publish import AzurePublisher, Work
from eventflows.adapters._eventhubs_errors import condition_of, translate
from eventflows.adapters._eventhubs_events import Event
from eventflows.adapters._eventhubs_place import connect, place_of
from eventflows.adapters._eventhubs_wire import outgoing
from eventflows.adapters._owner import close_all
from eventflows.errors import BrokerError, InvalidMessageError, OutcomeUnknownError, TooLargeError
from eventflows.message import Message
from eventflows.protocols import Capabilities, Location, PublishResult

DETACHED: Final = "amqp:link:detach-forced"


class EventHubsPublisher(AzurePublisher):
    """Writes to one hub.

    Args:
        location: The destination.
        options: `connection-string` or `credential`.
        capabilities: Of Event Hubs; the largest message is the link's own once it is open.
    """

    broker = "eventhubs"
    missing = "Create the hub, or correct the URL."
    unit = "a publication"

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        self._place = place_of(location)
        super().__init__(self._place.text, options, capabilities)
        self._client: Any = None

    def _connect(self, timeout: float) -> int:  # this client has no time of its own for it; the owner has
        from azure.eventhub import EventHubProducerClient

        # Retries are the core's.
        self._client = connect(EventHubProducerClient, self._place, self._options, retry_total=0)
        try:
            return int(self._client.create_batch().max_size_in_bytes)
        except Exception as error:
            raise translate(error, self._place.text, OPEN) from error

    def _forget(self) -> Callable[[], None]:
        client, self._client = self._client, None
        return functools.partial(close_all, client)

    def _work(self, batch: Sequence[Message], deadline: float) -> Work:
        return _Batch(batch, self._client, self._place.text, deadline)


class _Batch:
    """One batch on its way: by key and partition, cut to what the link takes, an answer for each message."""

    def __init__(self, batch: Sequence[Message], client: Any, place: str, deadline: float) -> None:  # noqa: ANN401
        self._batch = batch
        self._client = client
        self._place = place
        self._deadline = deadline
        self.results: list[PublishResult | None] = [None] * len(batch)

    def run(self) -> None:
        """Send everything, group by group; a group that fails does not stop the others."""
        groups: dict[tuple[str | None, str | None], list[tuple[int, Event]]] = {}
        for index, message in enumerate(self._batch):
            try:
                event = outgoing(message)
            except InvalidMessageError as error:
                self.results[index] = PublishResult(None, error)
                continue
            partition = message.options.get("partition")
            where = message.key, None if partition is None else str(partition)
            groups.setdefault(where, []).append((index, event))
        for (key, partition), events in groups.items():
            where_to = {"partition_key": key} if key is not None else {"partition_id": partition} if partition else {}
            try:
                self._send_group(events, where_to)
            except Exception as error:  # noqa: BLE001 - each error of the client is the answer of what is not sent
                ours = error if isinstance(error, BrokerError) else translate(error, self._place, PUBLISH)
                for index, _ in events:
                    self.results[index] = self.results[index] or PublishResult(None, ours)

    def _send_group(self, events: Sequence[tuple[int, Event]], where: Mapping[str, str]) -> None:
        envelope, pending = self._client.create_batch(**where), list[tuple[int, Event]]()
        for index, event in events:
            if not _added(envelope, event):
                if pending:
                    self._flush(envelope, pending, where)
                    envelope, pending = self._client.create_batch(**where), []
                if not _added(envelope, event):
                    self.results[index] = PublishResult(None, self._too_large(envelope))
                    continue
            pending.append((index, event))
        if pending:
            self._flush(envelope, pending, where)

    def _too_large(self, envelope: Any) -> TooLargeError:  # noqa: ANN401 - the client's batch
        return TooLargeError(f"{self._place}: this link takes {envelope.max_size_in_bytes} bytes in all.")

    def _flush(self, envelope: Any, pending: list[tuple[int, Event]], where: Mapping[str, str]) -> None:  # noqa: ANN401
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise OutcomeUnknownError(f"{self._place}: no time was left to send; nothing of it was sent.")
        error: BrokerError | None = None
        try:
            self._send(envelope, left)
        except Exception as native:  # noqa: BLE001 - the table knows it
            error = translate(native, self._place, PUBLISH)
        alone = isinstance(error, (InvalidMessageError, TooLargeError))
        if alone and len(pending) > 1:  # one of them is at fault, and the service does not say which
            for one in pending:
                single = self._client.create_batch(**where)
                single.add(one[1])
                self._flush(single, [one], where)
            return
        if error is not None and not alone:
            raise error
        for index, _ in pending:
            self.results[index] = PublishResult(None, error) if error else PublishResult(self._batch[index].id, None)

    def _send(self, envelope: Any, left: float) -> None:  # noqa: ANN401 - the client's batch
        try:
            self._client.send_batch(envelope, timeout=left)
        except Exception as error:
            if condition_of(error) != DETACHED:
                raise
            # The service detaches links that were idle for some minutes, and the client says so at the next send.
            self._client.send_batch(envelope, timeout=left)


def _added(envelope: Any, event: Event) -> bool:  # noqa: ANN401 - the client's batch
    """Add an event to a batch; false: it does not fit."""
    try:
        envelope.add(event)
    except ValueError:
        return False
    return True
