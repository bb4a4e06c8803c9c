"""Subscriber and publisher of the embedded broker as a log: `emulate=kafka` and `emulate=eventhubs`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from eventflows.adapters._local_broker import LocalBroker
from eventflows.adapters._local_emulate import Profile
from eventflows.adapters._local_log import LogStore
from eventflows.adapters._local_member import LogChunk, Member, peek
from eventflows.adapters._local_publisher import Answered
from eventflows.adapters._local_side import Adapter
from eventflows.errors import BrokerError, CapabilityError, OutcomeUnknownError
from eventflows.message import Delivery, Lane, Message
from eventflows.policy import Settlement
from eventflows.protocols import Backlog, Capabilities, ExtendResult, Location, Pending, PublishResult, SettleFailure


class LogSubscriber(Adapter):
    """Reads one group of one log, as one of its members.

    Args:
        location: The source.
        options: `file`, `group`, `partitions`, `sync`, `seed`.
        capabilities: Of what is emulated.
    """

    def __init__(self, location: Location, options: Mapping[str, object], capabilities: Capabilities) -> None:
        super().__init__(location, options)
        self.capabilities = capabilities
        self._group = str(options.get("group", "default"))
        self.ready = False
        self._member: Member | None = None
        self._woken = False

    @property
    def _log(self) -> LogStore:
        return self._broker.log

    def open(self, *, timeout: float = 30.0) -> None:
        """Join the group; what an earlier membership had is lost."""
        self._leave()
        super().open(timeout=timeout)
        self._member = Member(self._log, self._location.authority, self._group, self._location.text)
        self._follow(self._member)

    def _follow(self, member: Member) -> None:
        member.follow()
        self.ready = member.ready

    def _leave(self) -> None:
        member, self._member, self.ready = self._member, None, False
        if member is not None:
            member.leave()

    def _joined(self, operation: str, timeout: float) -> tuple[LocalBroker, Member]:
        broker = self._enter(operation, timeout)
        assert self._member is not None  # noqa: S101 - for the type checker: open made it
        return broker, self._member

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[LogChunk]:
        """Read on, in whatever partitions are this member's."""
        broker, member = self._joined("receive", timeout)
        log, deadline = self._log, time.monotonic() + timeout
        while True:
            seen = log.version
            self._follow(member)
            chunks = member.read(limit, max(max_bytes, 1), skip) if limit > 0 else []
            if chunks:
                return chunks
            left = deadline - time.monotonic()
            if self._woken or left <= 0:
                self._woken = False
                return []
            log.wait(left, lambda: self._woken, seen)
            broker.faults.cut(self._epoch)

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Commit the unbroken prefix of what is done; it is committed when this returns."""
        broker, member = self._joined("settle", timeout)
        return member.settle(settlements, broker.faults)

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Refuse: a log has no leases."""
        raise CapabilityError(f"{self._location.text} is a log: it has no lease to extend; a claim lasts.")

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Nothing waits: what was settled is committed."""
        return []

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits."""
        return self._joined("backlog", timeout)[1].backlog()

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at what the group has not finished; joins nothing."""
        broker = self._broker
        if broker.faults.set:
            broker.faults.meet("peek", timeout)
        return peek(self._log, self._location.authority, self._group, self._location.text, limit, start)

    def wake(self) -> None:
        """Let a blocked `receive`, or the next one, return early."""
        self._woken = True
        if self._found is not None:
            self._log.wake()

    def close(self, *, timeout: float = 30.0) -> None:
        """Hand every partition back in good order, and leave."""
        self._leave()
        super().close(timeout=timeout)
        if self._found is not None:
            self._log.wake()


class LogPublisher(Adapter):
    """Writes to one log.

    Args:
        location: The destination.
        options: `file`, `partitions`, `sync`, `seed`.
        capabilities: Of what is emulated.
        profile: What it takes.
    """

    def __init__(
        self, location: Location, options: Mapping[str, object], capabilities: Capabilities, profile: Profile
    ) -> None:
        super().__init__(location, options)
        self.capabilities = capabilities
        self._profile = profile

    def send(self, batch: Sequence[Message]) -> Pending:
        """Publish; the answers are there at once."""
        return Answered(self.publish(batch))

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish; in a file the messages are on disk when this returns."""
        errors: list[BrokerError | None] = [self._profile.fault(message) for message in batch]
        if all(errors) and batch and not self._closed:
            return [PublishResult(None, error) for error in errors]
        try:
            broker = self._enter("publish", timeout)
        except OutcomeUnknownError as unknown:
            return [PublishResult(None, error or unknown) for error in errors]
        if broker.faults.set:
            errors = [error or broker.faults.of_message(m) for m, error in zip(batch, errors, strict=True)]
        good = [message for message, error in zip(batch, errors, strict=True) if error is None]
        positions = iter(broker.log.append(good) if good else [])
        return [
            PublishResult(message.id or next(positions), None) if error is None else PublishResult(None, error)
            for message, error in zip(batch, errors, strict=True)
        ]
