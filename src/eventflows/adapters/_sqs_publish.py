"""Publishing: batches by count and bytes, each message with its own answer."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import attrs

from eventflows.adapters._entered import Entered
from eventflows.adapters._split import split
from eventflows.adapters._sqs_client import installed
from eventflows.adapters._sqs_errors import of_code, translate
from eventflows.adapters._sqs_line import BATCH, Line, Part
from eventflows.adapters._sqs_options import capabilities
from eventflows.adapters._sqs_place import place_of
from eventflows.adapters._sqs_queue import Queue, connect
from eventflows.adapters._sqs_threads import Threads, until
from eventflows.adapters._sqs_wire import MAX_BYTES, Written, write
from eventflows.errors import BrokerError, ClosedError, ConnectionFailedError, InvalidMessageError, OutcomeUnknownError
from eventflows.message import Message
from eventflows.protocols import Finding, Location, Pending, PublishResult

AT_ONCE: Final = 4
DEDUPLICATION: Final = 300.0
"""Seconds for which a FIFO queue remembers an id. Source: Amazon SQS developer guide, exactly-once processing."""

Lined = tuple[Part, int, Written]
"""A message, of which part, and its place there."""


class SqsPublisher(Entered):
    """Writes to one queue; safe from any thread, and in a child after a fork.

    Args:
        location: The destination.
        options: `profile`, `region`, `endpoint`, `role_arn`, `external_id`.
    """

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        installed()
        self._location = location
        self._options = options
        self._place = place_of(location, options)
        self.capabilities = capabilities(location, options)
        self._closed = False
        self._fresh()

    def _fresh(self) -> None:
        """Begin without connections: at the start, and in a forked child, which must not share its parent's."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._queue: Queue | None = None
        self._line: Line | None = None
        self._going: set[Future[None]] = set()
        self._again: dict[str, tuple[int, float]] = {}

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect, find the queue, read its limit."""
        self._here()
        queue = connect(self._place, self._options, timeout=timeout)
        # One call at a time keeps the order of a FIFO queue's groups.
        threads = Threads(1 if self._place.fifo else AT_ONCE, "eventflows sqs publish")
        with self._lock:
            former, self._queue = self._queue, queue
            if self._line is not None:
                self._line.close()
            self._line = Line(threads, functools.partial(self._deliver, queue))
            self._closed = False
        self.capabilities = attrs.evolve(self.capabilities, max_publish_bytes=queue.largest or MAX_BYTES)
        if former is not None:
            former.client.close()

    def _here(self) -> None:
        if self._pid != os.getpid():
            self._fresh()

    def _opened(self, timeout: float) -> tuple[Queue, Line]:
        self._here()
        if self._closed:
            raise ClosedError(f"{self._location.text} was closed; open it again, or make a new one.")
        if self._queue is None or self._line is None:
            self.open(timeout=timeout)
        assert self._queue is not None  # noqa: S101 - for the type checker: open has set both
        assert self._line is not None  # noqa: S101
        return self._queue, self._line

    def send(self, batch: Sequence[Message]) -> Pending:
        """Start to publish."""
        return self._send(batch, 30.0)

    def _send(self, batch: Sequence[Message], timeout: float) -> _Pending:
        queue, line = self._opened(timeout)
        pending = _Pending(len(batch), self._location.text)
        limit = min(queue.largest or MAX_BYTES, MAX_BYTES)
        good: list[tuple[int, Written]] = []
        for index, message in enumerate(batch):
            written = write(message, fifo=self._place.fifo, limit=limit)
            if isinstance(written, BrokerError):
                pending.answer(index, PublishResult(None, written))
            else:
                good.append((index, written))
        if self._place.fifo:  # as one, so that nothing comes between
            parts = [good] if good else []
        else:
            parts = [good[part] for part in split([one.size for _, one in good], most=BATCH, most_bytes=MAX_BYTES)]
        for messages in parts:
            part = Part(messages, pending.answer)
            pending.parts.append(part.done)
            with self._lock:
                self._going.add(part.done)
            part.done.add_done_callback(self._going.discard)
            line.put(part)
        return pending

    def _deliver(self, queue: Queue, parts: list[Part]) -> None:
        """Send parts, in order; in a part of a FIFO queue nothing of a group follows a failure of that group."""
        lined = [(part, index, written) for part in parts for index, written in part.messages]
        broken: set[tuple[Part, str | None]] = set()
        held = ConnectionFailedError(f"{self._location.text}: not sent, since a message before it was not.")
        for stretch in split([written.size for _, _, written in lined], most=BATCH, most_bytes=MAX_BYTES):
            kept: list[Lined] = []
            for one in lined[stretch]:
                if (one[0], one[2].group) in broken:
                    one[0].answer(one[1], PublishResult(None, held))
                else:
                    kept.append(one)
            results = self._call(queue, kept) if kept else []
            if self._place.fifo:
                self._note_overtaken(kept, results, broken)
            for (part, index, _), result in zip(kept, results, strict=True):
                part.answer(index, result)

    def _note_overtaken(
        self, sent: list[Lined], results: list[PublishResult], broken: set[tuple[Part, str | None]]
    ) -> None:
        """Note what the queue took although a message of its group, and its part, before it failed.

        Those are sent again, after the one that failed, and then must not count as known already.
        """
        late = time.monotonic() - DEDUPLICATION
        with self._lock:
            self._again = {id: known for id, known in self._again.items() if known[1] > late} if self._again else {}
            for (part, _, one), result in zip(sent, results, strict=True):
                error = result.error
                if error is not None:
                    if error.retryable:
                        broken.add((part, one.group))
                elif (part, one.group) in broken:
                    plain = one.entry["MessageDeduplicationId"].partition("~")[0]
                    self._again[plain] = (self._again.get(plain, (0, 0.0))[0] + 1, time.monotonic())

    def _renumber(self, one: Written) -> None:
        plain = one.entry["MessageDeduplicationId"]
        if plain in self._again:
            one.entry["MessageDeduplicationId"] = f"{plain[:110]}~{self._again[plain][0]}"

    def _call(self, queue: Queue, sent: list[Lined]) -> list[PublishResult]:
        """Make one call; when it fails, each message has that as its answer."""
        if self._place.fifo:
            for _, _, one in sent:
                self._renumber(one)
        entries = [{"Id": str(number), **one.entry} for number, (_, _, one) in enumerate(sent)]
        try:
            response = queue.client.send_message_batch(QueueUrl=queue.url, Entries=entries)
        except Exception as error:  # noqa: BLE001 - it is the answer
            return [PublishResult(None, translate(error, self._location.text, "SendMessageBatch"))] * len(sent)
        unknown = OutcomeUnknownError(f"{self._location.text}: the answer leaves a message out. It is sent again.")
        results = [PublishResult(None, unknown)] * len(sent)
        for done in response.get("Successful", ()):
            results[int(done["Id"])] = PublishResult(str(done["MessageId"]), None)
        for failed in response.get("Failed", ()):
            results[int(failed["Id"])] = PublishResult(None, self._refused(failed))
        return results

    def _refused(self, failed: Mapping[str, Any]) -> BrokerError:
        own = bool(failed.get("SenderFault", True))
        error = of_code(
            str(failed.get("Code", "")),
            str(failed.get("Message", "")),
            self._location.text,
            "SendMessageBatch",
            own=own,
        )
        if own and type(error) is BrokerError and not error.retryable:
            return InvalidMessageError(str(error))  # of one entry alone: the message's fault, not the destination's
        return error

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish and wait for the answers."""
        deadline = time.monotonic() + timeout
        pending = self._send(batch, timeout)
        return pending.results(max(deadline - time.monotonic(), 0.0))

    def check(self) -> Sequence[Finding]:
        """Look at credentials, permissions and FIFO settings; sends nothing."""
        from eventflows.adapters._sqs_check import check_destination

        return check_destination(self._place, self._options, self._location.text)

    def entities(self) -> Sequence[str]:
        """Give the names of the region's queues that the caller may list."""
        from eventflows.adapters._sqs_look import entities

        return entities(self._place, self._options)

    def close(self, *, timeout: float = 30.0) -> None:
        """Wait for what was given to `send`, then disconnect; the second call does nothing."""
        self._here()
        deadline = time.monotonic() + timeout
        with self._lock:
            self._closed = True
            queue, self._queue = self._queue, None
            line, self._line = self._line, None
            going = list(self._going)
        if queue is None or line is None:
            return
        until(going, deadline)
        line.close()
        queue.client.close()

    def __repr__(self) -> str:
        """Show the URL."""
        return f"SqsPublisher({self._location.text!r})"


class _Pending:
    """Answers as they come.

    Args:
        count: Messages of the batch.
        place: The queue, as shown.
    """

    def __init__(self, count: int, place: str) -> None:
        self._place = place
        self._answers: list[PublishResult | None] = [None] * count
        self.parts: list[Future[None]] = []
        """Their ends."""

    def answer(self, index: int, result: PublishResult) -> None:
        """Note an answer; from any thread."""
        self._answers[index] = result

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the answers; without one in time the outcome is unknown."""
        until(self.parts, time.monotonic() + timeout)
        late = OutcomeUnknownError(f"{self._place}: not answered within {timeout:g} s. It is sent again.")
        return [PublishResult(None, late) if one is None else one for one in self._answers]
