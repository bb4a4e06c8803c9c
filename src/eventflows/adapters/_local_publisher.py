"""The publisher of the embedded broker's queues."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from eventflows.adapters._local_able import MAX_BYTES, MAX_HEADERS, capabilities
from eventflows.adapters._local_side import Adapter
from eventflows.errors import (
    BrokerError,
    InvalidMessageError,
    OutcomeUnknownError,
    TooLargeError,
)
from eventflows.message import Batch, Message
from eventflows.protocols import (
    Location,
    Pending,
    PublishResult,
)


class Answered:
    """Results that are there already."""

    def __init__(self, results: list[PublishResult]) -> None:
        self._results = results

    def results(self, timeout: float) -> list[PublishResult]:
        """Give them."""
        return self._results


class LocalPublisher(Adapter):
    """Writes to one name.

    Args:
        location: The destination.
        options: `file`, `sync`, `seed`.
    """

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        super().__init__(location, options)
        self.capabilities = capabilities(location, options)

    def send(self, batch: Sequence[Message]) -> Pending:
        """Publish; the answers are there at once."""
        return Answered(self.publish(batch))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish; in a file the messages are on disk when this returns."""
        batch = Batch.of(batch)
        errors = _refused(batch)
        if len(errors) == len(batch) and not self._closed:
            return [PublishResult(None, errors[index]) for index in range(len(batch))]
        try:
            broker = self._enter("publish", timeout)
        except OutcomeUnknownError as error:
            return [PublishResult(None, errors.get(index, error)) for index in range(len(batch))]
        if broker.faults.set:
            for index, message in enumerate(batch):
                fault = broker.faults.of_message(message)
                if fault is not None:
                    errors[index] = fault
        if not errors:
            # One tuple.__new__ for each, in C: this is the hot path of every flow that publishes.
            ids = broker.store.publish(batch)
            return list(map(tuple.__new__, itertools.repeat(PublishResult), zip(ids, itertools.repeat(None))))
        good = iter(broker.store.publish([m for index, m in enumerate(batch) if index not in errors]))
        return [
            PublishResult(None, errors[index]) if index in errors else PublishResult(next(good), None)
            for index in range(len(batch))
        ]


def _refused(batch: Batch) -> dict[int, BrokerError]:
    """Find the faulty ones; looks closer only where a column has something that may be faulty: most have not."""
    try:
        plain = (
            set(map(type, batch.bodies)) <= {bytes}
            and max(map(len, cast("Sequence[bytes]", batch.bodies)), default=0) <= MAX_BYTES // 2
            and not any(batch.headers)
            and not any(batch.options)
            and _short(batch.keys)
            and _short(batch.ids)
            and _short(set(batch.content_types))
        )
    except TypeError:  # something that should be text is not
        plain = False
    faults = {} if plain else {index: _fault(message) for index, message in enumerate(batch)}
    return {index: fault for index, fault in faults.items() if fault is not None}


def _short(texts: Iterable[str | None]) -> bool:
    """Say whether all of them together are short, and bytes as they are."""
    joined = "".join(filter(None, texts))
    return len(joined) <= MAX_BYTES // 2 and joined.isascii()


def _fault(message: Message) -> BrokerError | None:
    if message.body is None:
        return InvalidMessageError("the embedded broker takes no tombstone (a body of None); publish b'' instead.")
    if not isinstance(message.body, bytes):
        return InvalidMessageError(f"a body is bytes; this one is {type(message.body).__name__}.")
    if message.options:
        return InvalidMessageError(f"the embedded broker has no message option {sorted(message.options)[0]!r}.")
    if len(message.headers) > MAX_HEADERS:
        return InvalidMessageError(f"{len(message.headers)} headers; the embedded broker takes {MAX_HEADERS}.")
    texts = [*message.headers, *message.headers.values(), message.key or ""]
    try:
        size = len(message.body) + sum(len(text.encode("utf-8")) for text in texts)
        _ = [text.encode("utf-8") for text in (message.id, message.content_type) if text is not None]
    except (AttributeError, UnicodeEncodeError):
        return InvalidMessageError(
            "headers, key, id and content type are text that UTF-8 can write; one of them is not."
        )
    if size > MAX_BYTES:
        return TooLargeError(
            f"a message of {size} bytes, body, key and headers together; the embedded broker takes {MAX_BYTES}."
        )
    return None
