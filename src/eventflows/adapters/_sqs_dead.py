"""Dead letters: a copy in the redrive policy's queue, confirmed there before the message is deleted here."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from eventflows.adapters._sqs_held import Entry
from eventflows.adapters._sqs_queue import Queue
from eventflows.adapters._sqs_settle import Answers, Batches
from eventflows.adapters._sqs_wire import MAX_BYTES, Written, write
from eventflows.errors import BrokerError, OutcomeUnknownError, TooLargeError
from eventflows.message import Message
from eventflows.policy import Settlement

_KEPT: Final = ("ef-reason", "ef-source", "ef-position", "ef-flow")
"""What a copy that is too large keeps, once its error's text is gone and that did not help."""


def send_copies(
    queue: Queue, batches: Batches, dead: Sequence[tuple[Entry, Settlement]], source: str, deadline: float
) -> Answers:
    """Send copies; gives an error, or None, for each. One that was confirmed before is not sent again."""
    url = str(queue.dead_letter_url)
    answers: Answers = [OutcomeUnknownError(f"{source}: its dead-letter copy was not sent. It is tried again.")] * len(
        dead
    )
    places: list[int] = []
    written: list[Written] = []
    for place, (entry, settlement) in enumerate(dead):
        if entry.copied:
            answers[place] = None
            continue
        copy = _copy(entry, settlement, source, fifo=url.endswith(".fifo"))
        if isinstance(copy, BrokerError):
            answers[place] = copy
        else:
            places.append(place)
            written.append(copy)
    sent = batches.send(url, [one.entry for one in written], [one.size for one in written], deadline) if places else []
    for place, error in zip(places, sent, strict=True):
        answers[place] = error
        dead[place][0].copied = error is None
    return answers


def _copy(entry: Entry, settlement: Settlement, source: str, *, fifo: bool) -> Written | BrokerError:
    assert entry.chunk is not None  # noqa: S101 - for the type checker: what is settled was handed over
    delivery = entry.chunk[entry.index]
    added = {
        "ef-reason": settlement.reason,
        "ef-error": settlement.detail,
        "ef-attempts": str(delivery.attempt),
        "ef-source": source,
        "ef-position": delivery.position,
        "ef-failed-at": datetime.datetime.now(datetime.UTC).isoformat(),
        **settlement.headers,
    }
    # A copy's id is its own: the deduplication of a FIFO queue must not take it for the message itself.
    whole = attrs.evolve(delivery.message, options={}, key=delivery.key or ("dead" if fifo else None))
    result: Written | BrokerError = TooLargeError()
    for names in (tuple(added), tuple(name for name in added if name != "ef-error"), _KEPT):
        result = write(_with(whole, {name: added[name] for name in names if name in added}), fifo=fifo, limit=MAX_BYTES)
        if not isinstance(result, TooLargeError):
            break
    if isinstance(result, Written) and fifo:
        result.entry["MessageDeduplicationId"] = entry.id
    return result


def _with(message: Message, added: Mapping[str, str]) -> Message:
    return attrs.evolve(message, headers={**message.headers, **added})
