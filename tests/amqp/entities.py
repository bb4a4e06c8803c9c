"""Queues, subscriptions and topics: what is locked, what is ready, what is dead.

Nothing here knows of links or frames. Times are seconds since 1970: the vendor's client looks at the clock on the
wall, too. What could not be asked of the real service is in the comments.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from amqp.stored import ACTIVE, DEFERRED, WAITING, Lock, Stored

DEAD = "$DeadLetterQueue"


class Taker(Protocol):
    """A receiver."""

    deletes: bool
    """Whether what it is given is gone (receive and delete)."""

    def wants(self) -> bool:
        """Whether it has credit."""

    def give(self, message: Stored, lock: Lock | None) -> None:
        """Send a message to it."""


class SessionState:
    """One session of a queue."""

    def __init__(self) -> None:
        self.ready: list[int] = []
        self.owner: Taker | None = None
        self.until = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.kept: bytes | None = None


class Queue:
    """A queue, or a subscription of a topic.

    Args:
        name: Its path.
        lock: Seconds of a lock.
        max_delivery: Failed deliveries after which a message is dead.
        sessions: Whether every message belongs to a session.
        duplicates: Seconds in which a message id that comes again is dropped; 0: not.
        frees_cut: Whether a session whose owner was cut is free at once, at no cost; else when its lock has ended.
    """

    def __init__(
        self,
        name: str,
        *,
        lock: float = 30.0,
        max_delivery: int = 10,
        sessions: bool = False,
        duplicates: float = 0.0,
        frees_cut: bool = False,
        dead: Queue | None = None,
    ) -> None:
        self.name = name
        self.lock_seconds = lock
        self.max_delivery = max_delivery
        self.has_sessions = sessions
        self.duplicates = duplicates
        self.frees_cut = frees_cut
        self.disabled = False
        self.is_dead = dead is not None
        self.dead: Queue = self if self.is_dead else Queue(f"{name}/{DEAD}", lock=lock, dead=self)
        self.messages: dict[int, Stored] = {}
        self.locked: dict[uuid.UUID, Stored] = {}
        self.sessions: dict[str, SessionState] = {}
        self.takers: list[Taker] = []
        self.waiters: list[Callable[[], bool]] = []
        """Who waits for the next session; true: got one."""
        self._ready: list[int] = []
        self._numbers = 0
        self._seen: dict[str, float] = {}

    # In.

    def put(self, message: Stored) -> int:
        """Take a message; gives its sequence number, 0 for a duplicate that was dropped."""
        now = time.time()
        if self.duplicates and message.message_id is not None:
            self._seen = {name: at for name, at in self._seen.items() if at > now - self.duplicates}
            if message.message_id in self._seen:
                return 0
            self._seen[message.message_id] = now
        self._numbers += 1
        message.number(self._numbers, now)
        lives = message.lives
        if lives is not None and not self.is_dead:
            message.expires = max(now, message.due) + lives
        self.messages[message.sequence] = message
        if message.due > now:
            message.state = WAITING
            asyncio.get_running_loop().call_later(message.due - now, self._wake, message)
        else:
            self.offer(message)
        return message.sequence

    def _wake(self, message: Stored) -> None:
        if message.sequence in self.messages and message.state == WAITING:
            message.state = ACTIVE
            message.number(message.sequence, time.time())
            self.offer(message)

    def _line(self, message: Stored) -> list[int]:
        if not self.has_sessions:
            return self._ready
        return self.sessions.setdefault(message.session_id or "", SessionState()).ready

    def offer(self, message: Stored) -> None:
        """Put a message in its place among those that can be delivered, and deliver what can be."""
        message.lock = None
        heapq.heappush(self._line(message), message.sequence)
        self.pump()

    # Out.

    def _next(self, line: list[int]) -> Stored | None:
        now = time.time()
        while line:
            message = self.messages.get(line[0])
            if message is None or message.lock is not None or message.state != ACTIVE:
                heapq.heappop(line)
            elif message.expires is not None and message.expires <= now:
                heapq.heappop(line)
                self.bury(message, "TTLExpiredException", "The message expired and was dead lettered.")
            else:
                return message
        return None

    def pump(self) -> None:
        """Deliver what is ready to those who want it, in turns."""
        if self.has_sessions:
            for state in list(self.sessions.values()):
                if state.owner is not None:
                    self._hand(state.ready, [state.owner], state)
            self.waiters = [waiter for waiter in self.waiters if not waiter()]
        else:
            self._hand(self._ready, self.takers, None)

    def _hand(self, line: list[int], takers: list[Taker], state: SessionState | None) -> None:
        while line:
            taker = next((one for one in takers if one.wants()), None)
            message = None if taker is None else self._next(line)
            if taker is None or message is None:
                return
            heapq.heappop(line)
            if taker in self.takers:  # the next one's turn
                self.takers.remove(taker)
                self.takers.append(taker)
            if taker.deletes:
                del self.messages[message.sequence]
                taker.give(message, None)
                continue
            until = time.time() + self.lock_seconds if state is None else state.until
            message.lock = Lock(until, taker)
            self.locked[message.lock.token] = message
            if state is None:
                self._expire_at(message.lock)
            taker.give(message, message.lock)

    def _expire_at(self, lock: Lock) -> None:
        delay = max(lock.until - time.time(), 0.0)
        asyncio.get_running_loop().call_later(delay, self._expire, lock)

    def _expire(self, lock: Lock) -> None:
        if lock.token not in self.locked:
            return
        if lock.until > time.time() + 0.001:
            self._expire_at(lock)  # renewed meanwhile
        else:
            self.unlock(self.locked[lock.token], failed=True)

    # What becomes of a delivery.

    def held(self, token: uuid.UUID) -> Stored | None:
        """Find what is locked by a token; None: the lock is lost."""
        message = self.locked.get(token)
        if message is not None and message.lock is not None and message.lock.until <= time.time():
            self.unlock(message, failed=True)
            return None
        return message

    def unlock(self, message: Stored, *, failed: bool) -> None:
        """Hand a message back; a failed delivery counts, and too many of them kill it.

        A message comes back to its original place by sequence number (not checked against the real service).
        """
        self._let_go(message)
        if failed:
            message.count += 1
        if failed and message.count >= self.max_delivery and not self.is_dead:
            self.bury(
                message,
                "MaxDeliveryCountExceeded",
                f"Message could not be consumed after {message.count} delivery attempts.",
            )
        elif message.state == ACTIVE:
            self.offer(message)

    def _let_go(self, message: Stored) -> None:
        if message.lock is not None:
            self.locked.pop(message.lock.token, None)
            message.lock = None

    def remove(self, message: Stored) -> None:
        """Be done with a message."""
        self._let_go(message)
        self.messages.pop(message.sequence, None)

    def defer(self, message: Stored) -> None:
        """Set a message aside, to be asked for by its number."""
        self._let_go(message)
        message.count += 1
        message.state = DEFERRED

    def bury(self, message: Stored, reason: str, text: str) -> None:
        """Move a message to the dead letters."""
        self.remove(message)
        dead = message.copy()
        dead.count = message.count
        given = {"DeadLetterReason": reason, "DeadLetterErrorDescription": text}
        dead.values = {**(dead.values or {}), **{name: value for name, value in given.items() if value}}
        self.dead.put(dead)

    def renew(self, message: Stored) -> float:
        """Begin a lock anew; gives its end."""
        assert message.lock is not None
        message.lock.until = time.time() + self.lock_seconds
        return message.lock.until

    def expire_all(self) -> None:
        """End every lock now."""
        for message in list(self.locked.values()):
            self.unlock(message, failed=True)
        for name, state in list(self.sessions.items()):
            if state.owner is not None:
                self.close_session(name, lost=True)

    # Sessions.

    def free_session(self) -> str | None:
        """Find a session that has messages and no owner."""
        for name, state in self.sessions.items():
            if state.owner is None and self._next(state.ready) is not None:
                return name
        return None

    def open_session(self, name: str, owner: Taker) -> float | None:
        """Lock a session; gives the lock's end, None when another has it."""
        state = self.sessions.setdefault(name, SessionState())
        if state.owner is not None:
            return None
        state.owner = owner
        return self.renew_session(name)

    def renew_session(self, name: str) -> float:
        """Begin a session's lock anew; gives its end."""
        state = self.sessions[name]
        state.until = time.time() + self.lock_seconds
        if state.timer is not None:
            state.timer.cancel()
        end = functools.partial(self.close_session, name, lost=True)
        state.timer = asyncio.get_running_loop().call_later(self.lock_seconds, end)
        for message in self.locked.values():
            if message.lock is not None and message.lock.holder is state.owner:
                message.lock.until = state.until
        return state.until

    def close_session(self, name: str, *, lost: bool) -> None:
        """Unlock a session, and everything that its owner holds; only a lost lock counts as failed deliveries."""
        state = self.sessions[name]
        owner, state.owner = state.owner, None
        if state.timer is not None:
            state.timer.cancel()
        for message in list(self.locked.values()):
            if message.lock is not None and message.lock.holder is owner:
                self.unlock(message, failed=lost)
        if lost and owner is not None:
            end = getattr(owner, "session_lost", None)
            if end is not None:
                end()
        self.pump()

    def of(self, state: int) -> list[Stored]:
        """Give the messages of a state, in order."""
        return [message for _, message in sorted(self.messages.items()) if message.state == state]


class Topic:
    """A topic: what is sent to it goes to each of its subscriptions.

    Args:
        name: Its path.
    """

    def __init__(self, name: str, *, duplicates: float = 0.0) -> None:
        self.name = name
        self.disabled = False
        self.subscriptions: dict[str, Queue] = {}
        self._gate = Queue(name, duplicates=duplicates)

    def put(self, message: Stored) -> int:
        """Take a message; gives the topic's number of it, 0 for a duplicate that was dropped."""
        payload = message.payload()
        number = self._gate.put(message)
        self._gate.messages.clear()
        if number:
            for queue in self.subscriptions.values():
                queue.put(Stored(payload))
        return number
