"""Last words and longer leases, in batches of ten, each entry with its own answer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventflows.adapters._split import split
from eventflows.adapters._sqs_errors import of_code, translate
from eventflows.adapters._sqs_held import Entry
from eventflows.adapters._sqs_threads import Threads, until
from eventflows.adapters._sqs_wire import MAX_BYTES
from eventflows.errors import BrokerError, OutcomeUnknownError

BATCH: Final = 10
"""Entries of one batch. Source: Amazon SQS API reference, DeleteMessageBatch."""
AT_ONCE: Final = 4

Answers = list[BrokerError | None]


class Batches:
    """Calls that carry up to ten entries; safe from any thread.

    Args:
        client: Of boto3.
        url: Of the queue.
        place: The queue, as shown.
    """

    def __init__(self, client: Any, url: str, place: str) -> None:  # noqa: ANN401 - boto3 has no types
        self._client = client
        self._url = url
        self._place = place
        self._threads = Threads(AT_ONCE, "eventflows sqs settle")

    def delete(self, entries: Sequence[Entry], deadline: float) -> Answers:
        """Delete messages; gives an error, or None, for each."""
        return self._do("delete_message_batch", [{"ReceiptHandle": entry.handle} for entry in entries], deadline)

    def hide(self, entries: Sequence[tuple[Entry, int]], deadline: float) -> Answers:
        """Set how long messages stay hidden, from now; gives an error, or None, for each."""
        words = [{"ReceiptHandle": entry.handle, "VisibilityTimeout": seconds} for entry, seconds in entries]
        return self._do("change_message_visibility_batch", words, deadline)

    def send(self, url: str, entries: Sequence[dict[str, Any]], sizes: Sequence[int], deadline: float) -> Answers:
        """Send messages to another queue; gives an error, or None, for each."""
        return self._do("send_message_batch", entries, deadline, url=url, sizes=sizes)

    def hand_back(self, entries: Sequence[Entry]) -> None:
        """Make messages visible again, in the background; one for which that fails comes when its lease ends."""
        for part in split([1] * len(entries), most=BATCH):
            words = [{"ReceiptHandle": entry.handle, "VisibilityTimeout": 0} for entry in reversed(entries[part])]
            self._threads.start(functools.partial(self._one, "change_message_visibility_batch", self._url, words))

    def give_up(self, entries: Sequence[Entry]) -> None:
        """Make messages visible again, before this returns."""
        for part in reversed(list(split([1] * len(entries), most=BATCH))):
            words = [{"ReceiptHandle": entry.handle, "VisibilityTimeout": 0} for entry in reversed(entries[part])]
            self._one("change_message_visibility_batch", self._url, words)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()

    def _do(
        self,
        action: str,
        words: Sequence[dict[str, Any]],
        deadline: float,
        *,
        url: str | None = None,
        sizes: Sequence[int] | None = None,
    ) -> Answers:
        limit = None if sizes is None else MAX_BYTES
        parts = [words[part] for part in split(sizes or [1] * len(words), most=BATCH, most_bytes=limit)]
        call = functools.partial(self._one, action, url or self._url)
        results = until([self._threads.start(functools.partial(call, part)) for part in parts], deadline)
        answers: Answers = []
        for part, result in zip(parts, results, strict=True):
            if isinstance(result, list):
                answers += result
            elif result is None:
                late = OutcomeUnknownError(f"{self._place}: {action} was not answered in time. It is tried again.")
                answers += [late] * len(part)
            else:
                answers += [translate(result, self._place, action)] * len(part)
        return answers

    def _one(self, action: str, url: str, words: Sequence[dict[str, Any]]) -> Answers:
        entries = [{"Id": str(index), **word} for index, word in enumerate(words)]
        call: Callable[..., dict[str, Any]] = getattr(self._client, action)
        return answers_of(call(QueueUrl=url, Entries=entries), len(entries), self._place, action)


def answers_of(response: dict[str, Any], count: int, place: str, action: str) -> Answers:
    """Read what became of each entry of a batch; one that the answer leaves out counts as unknown."""
    unknown = OutcomeUnknownError(f"{place}: {action} said nothing of an entry. It is tried again.")
    answers: Answers = [unknown] * count
    for done in response.get("Successful", ()):
        answers[int(done["Id"])] = None
    for failed in response.get("Failed", ()):
        answers[int(failed["Id"])] = of_code(
            str(failed.get("Code", "")), str(failed.get("Message", "")), place, action,
            own=bool(failed.get("SenderFault", True)),
        )  # fmt: skip
    return answers
