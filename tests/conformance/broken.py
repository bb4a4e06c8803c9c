"""Adapters with one thing wrong each: the suite must find exactly that."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Self

from eventflows.errors import ClosedError, ConnectionFailedError, LeaseLostError
from eventflows.message import Chunk, Delivery, Lane, Message
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import ExtendResult, PublishResult, SettleFailure


class Wrapped:
    """An adapter that does what another does."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Subscriber(Wrapped):
    """A subscriber that does what another does."""

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        return self.inner.receive(limit, max_bytes=max_bytes, timeout=timeout, skip=skip)

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        return self.inner.settle(settlements, durable=durable, timeout=timeout)


class _Answers:
    def __init__(self, results: Callable[[float], list[PublishResult]]) -> None:
        self.results = results


class Publisher(Wrapped):
    """A publisher that does what another does; most change a message, a batch or the results."""

    def altered(self, message: Message) -> Message:
        return message

    def outgoing(self, batch: Sequence[Message]) -> Sequence[Message]:
        return [self.altered(message) for message in batch]

    def answers(self, batch: Sequence[Message], found: list[PublishResult]) -> list[PublishResult]:
        return found

    def send(self, batch: Sequence[Message]) -> Any:
        pending = self.inner.send(self.outgoing(batch))
        return _Answers(lambda timeout: self.answers(batch, pending.results(timeout)))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        return self.answers(batch, self.inner.publish(self.outgoing(batch), timeout=timeout))


def remade(message: Message, **changes: Any) -> Message:
    """Copy a message with changes."""
    given = {name: getattr(message, name) for name in ("headers", "key", "id", "content_type", "options")}
    return Message(changes.pop("body", message.body), **{**given, **changes})


# Publishers.


class FormatsJson(Publisher):
    """Takes JSON-looking bodies apart and puts them together again."""

    def altered(self, message: Message) -> Message:
        try:
            return remade(message, body=json.dumps(json.loads(message.body or b""), separators=(",", ":")).encode())
        except ValueError:
            return message


class DropsEmptyBodies(Publisher):
    """Takes an empty body for none."""

    def altered(self, message: Message) -> Message:
        return message if message.body else remade(message, body=b" ")


class LosesOddHeaders(Publisher):
    """Drops headers without a value."""

    def altered(self, message: Message) -> Message:
        return remade(message, headers={name: value for name, value in message.headers.items() if value != ""})


class CutsHeaders(Publisher):
    """Keeps the first hundred headers."""

    def altered(self, message: Message) -> Message:
        return remade(message, headers=dict(list(message.headers.items())[:100]))


class LosesIds(Publisher):
    """Forgets the id."""

    def altered(self, message: Message) -> Message:
        return remade(message, id=None)


class Truncates(Publisher):
    """Cuts bodies at four mebibytes."""

    def altered(self, message: Message) -> Message:
        return remade(message, body=(message.body or b"")[: 4 << 20])


class DropsOneOfABatch(Publisher):
    """Says of the last of a long batch that it was published."""

    def outgoing(self, batch: Sequence[Message]) -> Sequence[Message]:
        return batch[:-1] if len(batch) > 500 else batch

    def answers(self, batch: Sequence[Message], found: list[PublishResult]) -> list[PublishResult]:
        return [*found, PublishResult("invented")] if len(batch) > 500 else found


class ReordersAKey(Publisher):
    """Sends the parts of a long batch in the wrong order."""

    def outgoing(self, batch: Sequence[Message]) -> Sequence[Message]:
        return [*batch[500:], *batch[:500]]

    def answers(self, batch: Sequence[Message], found: list[PublishResult]) -> list[PublishResult]:
        return [*found[-500:], *found[:-500]] if len(batch) > 500 else found


class SwallowsAPartialFailure(Publisher):
    """Reports success for a message that failed beside others that did not."""

    def answers(self, batch: Sequence[Message], found: list[PublishResult]) -> list[PublishResult]:
        if any(one.error is None for one in found):
            return [one if one.error is None else PublishResult("invented") for one in found]
        return found


class RetriesInSilence(Publisher):
    """Publishes again what failed, and says nothing."""

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        for _ in range(3):
            try:
                found = self.inner.publish(batch, timeout=timeout)
            except ConnectionFailedError:
                continue
            if not any(isinstance(one.error, ConnectionFailedError) for one in found):
                return found
        return self.inner.publish(batch, timeout=timeout)


class PublishesPastItsTimeout(Publisher):
    """Waits for the broker's answer for as long as it takes."""

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        return self.inner.publish(batch, timeout=30.0)


class PublishesAfterClose(Publisher):
    """Opens itself again."""

    def outgoing(self, batch: Sequence[Message]) -> Sequence[Message]:
        try:
            self.inner.publish([])
        except ClosedError:
            self.inner.open()
        return batch


class ForgetsWhatWasSent(Publisher):
    """Sends in the background, and drops it when it is closed first."""

    def send(self, batch: Sequence[Message]) -> Any:
        self.inner.publish([])  # a closed one still says so
        return _Answers(lambda _: [PublishResult("invented")] * len(batch))


# Subscribers.


class AcksOnClose(Subscriber):
    """Acknowledges everything it holds when it is closed."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.held: list[Chunk] = []

    def receive(self, limit: int, **how: Any) -> Sequence[Chunk]:
        chunks = self.inner.receive(limit, **how)
        self.held += chunks
        return chunks

    def close(self, *, timeout: float = 30.0) -> None:
        spans = [(chunk, slice(0, len(chunk))) for chunk in self.held]
        self.held = []
        if spans:
            self.inner.settle([Settlement(verdict=Verdict.ACK, spans=spans)], timeout=timeout)
        self.inner.close(timeout=timeout)


class IgnoresTheLimit(Subscriber):
    """Takes what there is."""

    def receive(self, limit: int, **how: Any) -> Sequence[Chunk]:
        return self.inner.receive(limit * 10, **how)


class IgnoresTheBytes(Subscriber):
    """Takes any number of bytes."""

    def receive(self, limit: int, *, max_bytes: int, **how: Any) -> Sequence[Chunk]:
        return self.inner.receive(limit, max_bytes=1 << 30, **how)


class DeliversOnZero(Subscriber):
    """Takes one message where none was asked for."""

    def receive(self, limit: int, **how: Any) -> Sequence[Chunk]:
        return self.inner.receive(max(limit, 1), **how)


class BlocksPastItsTimeout(Subscriber):
    """Waits for longer than it was told."""

    def receive(self, limit: int, *, timeout: float, **how: Any) -> Sequence[Chunk]:
        begun = time.monotonic()
        chunks = self.inner.receive(limit, timeout=timeout, **how)
        if not chunks and limit == 10 and timeout >= 0.2 and time.monotonic() - begun >= timeout:
            threading.Event().wait(1.6)
        return chunks


class SpinsWhenIdle(Subscriber):
    """Returns at once when nothing waits."""

    def receive(self, limit: int, *, timeout: float, **how: Any) -> Sequence[Chunk]:
        return self.inner.receive(limit, timeout=0.0 if limit == 10 else timeout, **how)


class ReceivesAfterClose(Subscriber):
    """Finds nothing once it is closed, and says no more."""

    def receive(self, limit: int, **how: Any) -> Sequence[Chunk]:
        try:
            return self.inner.receive(limit, **how)
        except ClosedError:
            return []


class RetriesAReceiveInSilence(Subscriber):
    """Receives again after a failure, and says nothing."""

    def receive(self, limit: int, **how: Any) -> Sequence[Chunk]:
        try:
            return self.inner.receive(limit, **how)
        except ConnectionFailedError:
            return self.inner.receive(limit, **how)


class SwallowsAPartialSettleFailure(Subscriber):
    """Reports no failure when anything was settled."""

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        failures = self.inner.settle(settlements, **how)
        count = sum(len(range(*span.indices(len(chunk)))) for one in settlements for chunk, span in one.spans)
        return failures if len(failures) == count else []


class RaisesOnASecondAck(Subscriber):
    """Raises when a delivery is settled that it has settled before."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.settled: set[str] = set()

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        failures = self.inner.settle(settlements, **how)
        for failure in failures:
            if failure.delivery.identity in self.settled:
                raise failure.error
        failed = {one.delivery.identity for one in failures}
        said = {one.identity for each in settlements for chunk, span in each.spans for one in chunk[span]}
        self.settled |= said - failed
        return failures


class KeepsALostLeaseAlive(Subscriber):
    """Keeps what it held when it is opened again: says that it was settled."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.opened = 0

    def open(self, *, timeout: float = 30.0) -> None:
        self.inner.open(timeout=timeout)
        self.opened += 1

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        failures = self.inner.settle(settlements, **how)
        if self.opened > 1:
            return [one for one in failures if not isinstance(one.error, LeaseLostError)]
        return failures


class ForgetsAcks(Subscriber):
    """Notes acknowledgements until somebody flushes, and forgets them when it is closed."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.noted: list[Settlement] = []

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        if durable or any(one.verdict is not Verdict.ACK for one in settlements):
            return self.inner.settle(settlements, durable=durable, timeout=timeout)
        self.noted += settlements
        return []

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        noted, self.noted = self.noted, []
        return self.inner.settle(noted, durable=True, timeout=timeout)


class CountsAReleaseAsAnAttempt(Subscriber):
    """Hands back by RETRY."""

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        changed = [
            Settlement(verdict=Verdict.RETRY, spans=one.spans) if one.verdict is Verdict.RELEASE else one
            for one in settlements
        ]
        return self.inner.settle(changed, **how)


class IgnoresTheDelay(Subscriber):
    """Brings a retry at once."""

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        changed = [
            Settlement(verdict=one.verdict, spans=one.spans, reason=one.reason, detail=one.detail)
            for one in settlements
        ]
        return self.inner.settle(changed, **how)


class RetriesAsAFirstAttempt(Subscriber):
    """Hands back for a retry without counting it."""

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        changed = [
            Settlement(verdict=Verdict.RELEASE, spans=one.spans)
            if one.verdict is Verdict.RETRY and not one.delay
            else one
            for one in settlements
        ]
        return self.inner.settle(changed, **how)


class LosesTheReason(Subscriber):
    """Dead-letters without saying why."""

    def settle(self, settlements: Sequence[Settlement], **how: Any) -> Sequence[SettleFailure]:
        changed = [Settlement(verdict=one.verdict, spans=one.spans, delay=one.delay) for one in settlements]
        return self.inner.settle(changed, **how)


class PretendsToExtend(Subscriber):
    """Says that a lease was extended, and extends nothing."""

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        until = time.monotonic() + seconds
        for one in held:
            if isinstance(one, Delivery):
                one.lease_until = until
        return [ExtendResult(one, until) for one in held]


class HoldsWhatItLost(Subscriber):
    """Goes on holding what it said was lost, and so gives it to nobody when it comes again."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.lost: set[str] = set()

    def extend(self, held: Sequence[Delivery | Lane], seconds: float, **how: Any) -> Sequence[ExtendResult]:
        results: list[ExtendResult] = self.inner.extend(held, seconds, **how)
        self.lost |= {getattr(one.held, "position", "") for one in results if isinstance(one.error, LeaseLostError)}
        return results

    def receive(self, limit: int, **how: Any) -> Sequence[Chunk]:
        return [one for one in self.inner.receive(limit, **how) if not self.lost & {held.position for held in one}]


class LeaksAThread(Subscriber):
    """Starts a thread whenever it is opened, and never ends it."""

    forever = threading.Event()

    def open(self, *, timeout: float = 30.0) -> None:
        threading.Thread(target=self.forever.wait, args=(60,), daemon=True).start()
        self.inner.open(timeout=timeout)


class IgnoresWake(Subscriber):
    """Waits on, whoever calls."""

    def wake(self) -> None:
        pass


class PeeksByTaking(Subscriber):
    """Looks by taking."""

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        self.inner.open()
        return [
            one for chunk in self.inner.receive(limit, max_bytes=1 << 30, timeout=min(timeout, 0.1)) for one in chunk
        ]
