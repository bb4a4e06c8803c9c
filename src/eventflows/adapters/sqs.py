"""Amazon SQS: `sqs://`, standard and FIFO queues, through boto3.

Names:
    A *queue* is a queue. A *lease* is the visibility timeout, the *attempt* ApproximateReceiveCount, a *lane* a FIFO
    message group, and so is a *key*. RETRY sets the visibility, RELEASE sets it to 0, ACK deletes. A *dead letter*
    is a copy in the queue that the redrive policy names.

Guarantees:
    At least once. What is held is one entry for each message id: a message that is received again while it is held
    gets its newest receipt handle and no second delivery. FIFO keeps the order of a message group; when the lease of
    one of its messages is lost, everything of the group that is held is lost with it, and comes again in order.

Cannot:
    Groups of subscribers, replay, transactions. Order on standard queues. A RELEASE, and a look, count as a receive.
    Reads of a standard queue's length are approximate. `peek` on a FIFO queue sees nothing of groups that are held.

Limits:
    1 MiB for a message and for a batch of ten, or the queue's MaximumMessageSize; ten attributes (what does not fit
    is packed into one); 12 hours for a delivery; 15 minutes for a delay (Amazon SQS developer guide, quotas).

Native access:
    `Delivery.native` is the `dict` that boto3's `receive_message` gave, its ReceiptHandle always the newest.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows.adapters import _sqs_look as look
from eventflows.adapters._entered import Entered
from eventflows.adapters._sqs_client import installed
from eventflows.adapters._sqs_dead import send_copies
from eventflows.adapters._sqs_held import Entry, Holding, SqsChunk
from eventflows.adapters._sqs_options import CAPABILITIES, DESTINATION, FORM, SOURCE, number, validate
from eventflows.adapters._sqs_options import capabilities as capabilities_of
from eventflows.adapters._sqs_place import place_of
from eventflows.adapters._sqs_polls import Polls
from eventflows.adapters._sqs_publish import SqsPublisher
from eventflows.adapters._sqs_queue import Queue, connect
from eventflows.adapters._sqs_settle import Answers, Batches
from eventflows.errors import BrokerError, CapabilityError, ClosedError, LeaseLostError
from eventflows.message import Chunk, Delivery, Lane
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import (
    AdapterSpec,
    Backlog,
    ExtendResult,
    Finding,
    Location,
    SettleFailure,
    Subscriber,
)

__all__ = ["ADAPTER", "CAPABILITIES", "SqsPublisher", "SqsSubscriber"]

SETTLE_DOWN: Final = 4.0
"""Seconds that a release waits, at most, for the polls that are out; they last one while something is held. What they
would receive of it again would count as an attempt more."""

_Said = list[tuple[Entry, Settlement]]


class SqsSubscriber(Entered):
    """Reads one queue. `receive` may be called from several threads, beside `settle` and `extend`.

    Args:
        location: The source.
        options: `visibility`, `receivers`, `profile`, `region`, `endpoint`, `role_arn`, `external_id`, `dead-letter`.
    """

    def __init__(self, location: Location, options: Mapping[str, object]) -> None:
        installed()
        self._location = location
        self._options = options
        self._place = place_of(location, options)
        self._dead = "dead-letter" in options
        self._visibility = number(options, "visibility")
        self.capabilities = capabilities_of(location, options)
        self.ready = False
        self._closed = False
        self._queue: Queue | None = None

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect, find the queue, read its attributes."""
        deadline = time.monotonic() + timeout
        if self._queue is not None:
            self._leave(deadline, hand_back=True)
            self._queue, self.ready = None, False
        queue = connect(self._place, self._options, timeout=deadline - time.monotonic(), dead=self._dead)
        fifo = queue.url.endswith(".fifo")
        self._batches = Batches(queue.client, queue.url, self._location.text)
        self._holding = Holding(self._location.text, queue.url, fifo)
        self._polls = Polls(
            self._receive,
            self._hand_back,
            self._batches.give_up,
            self._holding,
            most=int(number(self._options, "receivers")),
            visibility=self._visibility,
            place=self._location.text,
        )
        self.capabilities = attrs.evolve(
            self.capabilities,
            dead_letter=queue.dead_letter_url is not None,
            max_deliveries=queue.max_receives,
        )
        self._queue, self._closed, self.ready = queue, False, True

    def _opened(self, timeout: float) -> Queue:
        if self._closed:
            raise ClosedError(f"{self._location.text} was closed; open it again, or make a new one.")
        if self._queue is None:
            self.open(timeout=timeout)
        assert self._queue is not None  # noqa: S101 - for the type checker: open has set it
        return self._queue

    def _receive(self, count: int, seconds: int) -> list[dict[str, Any]]:
        queue = self._queue
        assert queue is not None  # noqa: S101 - for the type checker: polls begin after open
        answer = queue.client.receive_message(
            QueueUrl=queue.url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=seconds,
            VisibilityTimeout=int(self._visibility),
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages; what the polls that are out may bring counts against `limit`."""
        deadline = time.monotonic() + timeout
        self._opened(timeout)
        taken = self._polls.receive(limit, max_bytes, max(deadline - time.monotonic(), 0.0), skip)
        return self._holding.chunks(taken) if taken else []

    def _hand_back(self, entries: list[Entry]) -> None:
        self._holding.drop(entries)
        self._batches.hand_back(entries)

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Carry out verdicts; they are confirmed by the service when this returns.

        Raises:
            CapabilityError: DEAD_LETTER without a redrive policy that can be read. Nothing was attempted.
            BrokerError: The service could not be reached. Nothing was attempted.
        """
        deadline = time.monotonic() + timeout
        queue = self._opened(timeout)
        if queue.dead_letter_url is None and any(one.verdict is Verdict.DEAD_LETTER for one in settlements):
            raise CapabilityError(
                f"{self._location.text} has no redrive policy that can be read, so it keeps no dead letters. "
                "Set one, allow sqs:GetQueueAttributes, or give the flow dead_letter=."
            )
        if any(one.verdict is Verdict.RELEASE for one in settlements):
            # Else a poll that is out would take at once what is handed back here.
            self._polls.settle_down(min(SETTLE_DOWN, timeout / 2))
        said, failures = self._ours(settlements)
        self._holding.drop(entry for entry, _ in said)
        answers = self._carry_out(queue, said, deadline)
        again = [entry for (entry, _), error in zip(said, answers, strict=True) if error is not None]
        self._holding.keep(entry for entry in again)
        failed = [(entry, error) for (entry, _), error in zip(said, answers, strict=True) if error is not None]
        if failed and len(failed) == len(said) and not failures:
            _raise_if_unreachable(failed)
        for entry, error in failed:
            if isinstance(error, LeaseLostError):
                self._lose(entry)
            failures.append(SettleFailure(_delivery(entry), error))
        return failures

    def _ours(self, settlements: Sequence[Settlement]) -> tuple[_Said, list[SettleFailure]]:
        said: _Said = []
        failures = []
        seen: set[int] = set()
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, SqsChunk)  # noqa: S101 - for the type checker: chunks come from receive
                for index in range(*stretch.indices(len(chunk))):
                    entry = chunk.entries[index]
                    if id(entry) not in seen and self._holding.ours(entry):
                        seen.add(id(entry))
                        said.append((entry, settlement))
                    else:
                        failures.append(SettleFailure(chunk[index], self._lease_lost(entry)))
                        self._lose(entry)
        return said, failures

    def _lose(self, entry: Entry) -> None:
        self._batches.hand_back(self._holding.lose(entry))

    def _lease_lost(self, entry: Entry) -> LeaseLostError:
        return LeaseLostError(
            f"{self._location.text} has taken {entry.id} back: its lease ended, or it was settled before."
        )

    def _carry_out(self, queue: Queue, said: _Said, deadline: float) -> Answers:
        answers: dict[int, BrokerError | None] = {}
        gone = [entry for entry, one in said if one.verdict is Verdict.ACK]
        dead = [(entry, one) for entry, one in said if one.verdict is Verdict.DEAD_LETTER]
        if dead:
            copied = send_copies(queue, self._batches, dead, self._location.text, deadline)
            answers.update({id(entry): error for (entry, _), error in zip(dead, copied, strict=True)})
            gone += [entry for (entry, _), error in zip(dead, copied, strict=True) if error is None]
        for entry, error in zip(gone, self._batches.delete(gone, deadline) if gone else [], strict=True):
            answers[id(entry)] = error
        now = time.monotonic()
        # Last first: of a message group, the head becomes visible when nothing behind it can overtake it.
        shown = [
            (entry, 0 if one.verdict is Verdict.RELEASE else max(entry.seconds(one.delay, now), 0))
            for entry, one in reversed(said)
            if one.verdict in (Verdict.RETRY, Verdict.RELEASE)
        ]
        for (entry, _), error in zip(shown, self._batches.hide(shown, deadline) if shown else [], strict=True):
            answers[id(entry)] = error
        return [answers[id(entry)] for entry, _ in said]

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Keep deliveries for longer, up to 12 hours from their receipt; whole seconds, rounded up."""
        self._opened(timeout)
        entries = []
        for one in held:
            if not isinstance(one, Delivery) or not isinstance(one.native, dict):
                raise CapabilityError(f"{self._location.text} leases deliveries; this is none of its own.")
            entries.append(self._holding.entry(one))
        now = time.monotonic()
        asked = [
            (entry, entry.seconds(seconds, now))
            for entry in dict.fromkeys(entries)
            if entry is not None and self._holding.ours(entry)
        ]
        able = [(entry, length) for entry, length in asked if length > 0]
        answers = self._batches.hide(able, now + timeout) if able else []
        errors = {id(entry): error for (entry, _), error in zip(able, answers, strict=True)}
        for (entry, length), error in zip(able, answers, strict=True):
            if error is None:
                entry.renew(now + length)
            elif isinstance(error, LeaseLostError):
                self._lose(entry)
        return [self._extended(one, entry, errors) for one, entry in zip(held, entries, strict=True)]

    def _extended(
        self, one: Delivery | Lane, entry: Entry | None, errors: Mapping[int, BrokerError | None]
    ) -> ExtendResult:
        assert isinstance(one, Delivery)  # noqa: S101 - for the type checker: looked at above
        error = None if entry is None else errors.get(id(entry))
        if error is not None:
            return ExtendResult(one, None, error)
        if entry is None or not self._holding.ours(entry):
            if entry is not None:
                self._lose(entry)
            lost = LeaseLostError(f"{self._location.text} has taken {one.position} back: its lease ended.")
            return ExtendResult(one, None, lost)
        one.lease_until = entry.until
        return ExtendResult(one, entry.until)

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Nothing waits: what was settled is settled."""
        return []

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits, approximately; what other consumers hold counts, since it may come again.

        `oldest_age` is that of the oldest message held here, None where none is: SQS itself does not say.
        """
        return look.backlog(self._opened(timeout), self._location.text, self._holding, timeout)

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at what waits; on SQS that is a receive and counts as one, and a redrive policy sees it, too."""
        queue = self._queue or connect(self._place, self._options, timeout=timeout, dead=self._dead)
        try:
            return look.peek(queue, self._location.text, limit, start, timeout)
        finally:
            if queue is not self._queue:
                queue.client.close()

    def dead_letters(self) -> Subscriber:
        """Give a subscriber of the queue that the redrive policy names, not opened."""
        if self._dead:
            raise CapabilityError(f"{self._location.text} reads dead letters already.")
        mark = "&" if "?" in self._location.text else "?"
        location = attrs.evolve(self._location, text=f"{self._location.text}{mark}dead-letter")
        return SqsSubscriber(location, {**self._options, "dead-letter": True})

    def entities(self) -> Sequence[str]:
        """Give the names of the region's queues that the caller may list."""
        return look.entities(self._place, self._options)

    def check(self) -> Sequence[Finding]:
        """Look at credentials, permissions, visibility, redrive policy and FIFO settings; takes nothing."""
        from eventflows.adapters._sqs_check import check_source

        return check_source(self._place, self._options, self._location.text, self._visibility)

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        if self._queue is not None and not self._closed:
            self._polls.wake()

    def close(self, *, timeout: float = 30.0) -> None:
        """Wait for the polls that are out, hand back what is held, disconnect."""
        if self._queue is not None and not self._closed:
            self._closed, self.ready = True, False
            self._leave(time.monotonic() + timeout, hand_back=True)
            self._queue = None
        self._closed = True

    def _leave(self, deadline: float, *, hand_back: bool) -> None:
        assert self._queue is not None  # noqa: S101 - for the type checker: only what is open is left
        now = time.monotonic()
        self._polls.close(now + (deadline - now) / 2)
        held = self._holding.clear()
        if held and hand_back:
            self._batches.hide([(entry, 0) for entry in reversed(held)], deadline)
        self._batches.close()
        self._queue.client.close()

    def __repr__(self) -> str:
        """Show the URL."""
        return f"SqsSubscriber({self._location.text!r})"


def _delivery(entry: Entry) -> Delivery:
    assert entry.chunk is not None  # noqa: S101 - for the type checker: what is settled was handed over
    return entry.chunk[entry.index]


def _raise_if_unreachable(failed: Sequence[tuple[Entry, BrokerError]]) -> None:
    """Raise when no call got through: the core then waits, instead of saying it again at once."""
    first = failed[0][1]
    if first.retryable and all(type(error) is type(first) and error.__cause__ is not None for _, error in failed):
        raise first


ADAPTER: Final = AdapterSpec(
    scheme="sqs",
    form=FORM,
    capabilities=capabilities_of,
    validate=validate,
    subscriber=SqsSubscriber,
    publisher=SqsPublisher,
    source_options=SOURCE,
    destination_options=DESTINATION,
)
