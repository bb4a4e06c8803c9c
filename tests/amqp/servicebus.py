"""The links of Service Bus: one to send to, one to receive from, one to receive a session from."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Final

from amqp.codec import CodecError, Described, Long, Symbol
from amqp.entities import Queue, Topic
from amqp.frames import ACCEPTED, error, modified, rejected
from amqp.link import MAX_MESSAGE, Link
from amqp.stored import Lock, Stored, unpack

if TYPE_CHECKING:
    from amqp.server import Broker

SESSION_FILTER: Final = Symbol("com.microsoft:session-filter")
LOCKED_UNTIL: Final = Symbol("com.microsoft:locked-until-utc")
TICKS_1970: Final = 621_355_968_000_000_000
LOST: Final = "com.microsoft:message-lock-lost"


class Inlet:
    """A link on which the client sends to a queue or topic.

    Args:
        broker: With its faults.
        entity: What it writes to.
    """

    def __init__(self, broker: Broker, entity: Queue | Topic) -> None:
        self._broker = broker
        self._entity = entity
        self.writes_to = entity.name

    def attached(self, link: Link) -> None:
        """Nothing to do."""

    def transfer(self, link: Link, payload: bytes, form: int) -> Described | None:
        """Keep what was sent, all of it or nothing."""
        faults = self._broker.faults
        if len(payload) > MAX_MESSAGE:
            return rejected(error("amqp:link:message-size-exceeded", f"{len(payload)} bytes are too many"))
        try:
            messages = unpack(payload, form)
        except CodecError as cut:
            return rejected(error("amqp:decode-error", str(cut)))
        for message in messages:
            refused = faults.meets("publish", self._entity.name, message)
            if refused is None and isinstance(self._entity, Queue) and self._entity.has_sessions:
                refused = None if message.session_id else ("amqp:not-allowed", "A message here has a session id.")
            if refused is not None:
                return faults.refusal(*refused)
        for message in messages:
            self._entity.put(message)
        return ACCEPTED

    def credited(self, link: Link) -> None:
        """Nothing to do: the client sends."""

    def settle(self, link: Link, tag: bytes, state: Described) -> Described | None:
        """Nothing of ours can be settled here."""
        return None

    def detached(self, link: Link) -> None:
        """Nothing to do."""


class Outlet:
    """A link on which the client receives from a queue or subscription.

    Args:
        broker: With its faults.
        queue: What it reads.
        link: The link.
    """

    def __init__(self, broker: Broker, queue: Queue, link: Link) -> None:
        self.broker = broker
        self.queue = queue
        self.link = link
        self.deletes = link.settles_first

    def wants(self) -> bool:
        """Whether it has credit."""
        return self.link.alive and self.link.credit > 0 and not self.broker.faults.frozen("receive", self.queue.name)

    def give(self, message: Stored, lock: Lock | None) -> None:
        """Send a message."""
        if lock is None:
            self.link.send(message.payload(), tag=uuid.uuid4().bytes)
        else:
            self.link.send(message.payload(lock), tag=lock.tag, settled=False)

    def attached(self, link: Link) -> None:
        """Stand in line."""
        self.queue.takers.append(self)

    def transfer(self, link: Link, payload: bytes, form: int) -> Described | None:
        """Nothing comes here."""
        return None

    def credited(self, link: Link) -> None:
        """Give what there is."""
        self.queue.pump()

    def settle(self, link: Link, tag: bytes, state: Described) -> Described | None:
        """Do as the client says, if it still may; the answer names the same outcome."""
        faults = self.broker.faults
        message = self.queue.held(uuid.UUID(bytes_le=tag))
        if message is None:
            answer = rejected(error(LOST, "The lock supplied is invalid, or has expired."))
        elif (refused := faults.meets("settle", self.queue.name, message)) is not None:
            answer = rejected(error(*refused))
        else:
            answer = apply(self.queue, message, state)
        return None if faults.frozen("settle", self.queue.name) else answer

    def detached(self, link: Link) -> None:
        """Leave the line; what it holds stays locked until the locks end."""
        with contextlib.suppress(ValueError):
            self.queue.takers.remove(self)


def apply(queue: Queue, message: Stored, state: Described) -> Described:
    """Carry an outcome out; gives the answer."""
    fields = [*state.value, None, None, None]
    if state.descriptor == 0x24:
        queue.remove(message)
        return ACCEPTED
    if state.descriptor == 0x25:
        info = {}
        if isinstance(fields[0], Described):
            info = {str(k): str(v) for k, v in ([*fields[0].value, None, None][2] or {}).items()}
        queue.bury(message, info.get("DeadLetterReason", ""), info.get("DeadLetterErrorDescription", ""))
        return rejected()
    if state.descriptor == 0x27:
        if fields[1]:
            queue.defer(message)
        else:
            queue.unlock(message, failed=bool(fields[0]))
        return modified(failed=bool(fields[0]), elsewhere=bool(fields[1]))
    queue.unlock(message, failed=False)
    return state


class SessionOutlet(Outlet):
    """A link on which the client receives one session, of a name or the next that is free."""

    def __init__(self, broker: Broker, queue: Queue, link: Link) -> None:
        super().__init__(broker, queue, link)
        self.session: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Attach at once, or once a session is free, or refuse."""
        asked = self.link.filters[SESSION_FILTER]
        name = asked.value if isinstance(asked, Described) else asked
        if name is not None:
            if not self._take(str(name)):
                self.link.refuse("com.microsoft:session-cannot-be-locked", "Another receiver has the session.")
            return
        if self._next():
            return
        wait = int(self.link.properties.get(Symbol("com.microsoft:timeout"), 65_000)) / 1000
        self._timer = asyncio.get_running_loop().call_later(wait, self._give_up)
        self.queue.waiters.append(self._next)

    def _next(self) -> bool:
        """Take the next free session; true when there is nothing more to wait for."""
        if not self.link.alive or self.link.refused or self.session is not None:
            return True
        name = None if self.broker.faults.frozen("receive", self.queue.name) else self.queue.free_session()
        return name is not None and self._take(name)

    def _take(self, name: str) -> bool:
        until = self.queue.open_session(name, self)
        if until is None:
            return False
        self.session = name
        if self._timer is not None:
            self._timer.cancel()
        source = self.link.asked.source
        fields = [*source.value]
        fields[7] = {**fields[7], SESSION_FILTER: name}
        ticks = Long(int(until * 10_000_000) + TICKS_1970)
        self.link.accept(self, source=Described(source.descriptor, fields), properties={LOCKED_UNTIL: ticks})
        return True

    def _give_up(self) -> None:
        if self.session is None and self.link.alive:
            self.link.alive = False
            self.link.refuse("com.microsoft:timeout", "No session came in time.")

    def attached(self, link: Link) -> None:
        """It has its session: no line to stand in."""

    def settle(self, link: Link, tag: bytes, state: Described) -> Described | None:
        """Do as the client says, while the session is its own."""
        if self.session is None or self.queue.sessions[self.session].owner is not self:
            why = error("com.microsoft:session-lock-lost", "The session lock has expired.")
            return None if self.broker.faults.frozen("settle", self.queue.name) else rejected(why)
        return super().settle(link, tag, state)

    def session_lost(self) -> None:
        """Tell the client, where it is still there, that the session is no longer its own."""
        self.session = None
        if self.link.alive:
            self.link.detach("com.microsoft:session-lock-lost", "The session lock has expired.")

    def detached(self, link: Link) -> None:
        """Let the session go; a clean end costs its messages nothing.

        The vendor's documents know two ends of a session's lock: its receiver closes it, or its time is over where the
        application was unable to; only the second counts a delivery ("Message sessions", learn.microsoft.com). One
        whose connection was cut has closed nothing. Not checked against the real service; users report otherwise
        (github.com/Azure/azure-service-bus, issues 410 and 694), so a queue can be told to do as they say.
        """
        if self._timer is not None:
            self._timer.cancel()
        if link.cut and not self.queue.frees_cut:
            return
        name, self.session = self.session, None
        if name is not None and self.queue.sessions[name].owner is self:
            self.queue.close_session(name, lost=False)
