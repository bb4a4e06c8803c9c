"""`<entity>/$management` of Service Bus: renewing, peeking, scheduling, sessions, deferred messages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from amqp.cbs import Node, reply
from amqp.codec import Array, Int, Long, Symbol, Timestamp
from amqp.entities import Queue, Topic
from amqp.frames import ACCEPTED, modified
from amqp.link import Link
from amqp.servicebus import LOST, apply
from amqp.stored import DEFERRED, WAITING, Lock, Stored

if TYPE_CHECKING:
    from amqp.server import Broker

VENDOR: Final = "com.microsoft:"
SESSION_LOST: Final = "com.microsoft:session-lock-lost"


class RefusedError(Exception):
    """A request that is not carried out."""

    def __init__(self, code: int, condition: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.condition = condition


class Management(Node):
    """Answers requests on one entity.

    Args:
        broker: With its faults.
        entity: A queue, subscription, their dead letters, or a topic.
    """

    def __init__(self, broker: Broker, entity: Queue | Topic) -> None:
        self._broker = broker
        self._entity = entity
        self._asking: Link | None = None
        self._operations: dict[str, tuple[str, Callable[[dict[str, Any]], tuple[int, Any]]]] = {
            "renew-lock": ("extend", self._renew_lock),
            "renew-session-lock": ("extend", self._renew_session_lock),
            "update-disposition": ("settle", self._update_disposition),
            "peek-message": ("peek", self._peek),
            "schedule-message": ("publish", self._schedule),
            "cancel-scheduled-message": ("publish", self._cancel),
            "receive-by-sequence-number": ("receive", self._receive_deferred),
            "get-session-state": ("peek", self._get_session_state),
            "set-session-state": ("settle", self._set_session_state),
            "get-message-sessions": ("peek", self._sessions),
        }

    @property
    def _queue(self) -> Queue:
        if isinstance(self._entity, Topic):
            raise RefusedError(400, "amqp:not-allowed", "A topic cannot do this; its subscriptions can.")
        return self._entity

    def answer(self, link: Link, asked: dict[str, Any]) -> None:
        """Carry a request out, and say what came of it."""
        name = str(asked["values"].get("operation", ""))
        kind, work = self._operations.get(name.removeprefix(VENDOR), ("", self._unknown))
        if self._broker.faults.frozen(kind, self._entity.name):
            return
        self._asking = link
        condition = None
        text = "OK"
        body: Any = None
        try:
            if (refused := self._broker.faults.meets(kind, self._entity.name)) is not None:
                raise RefusedError(410, *refused)
            code, body = work(asked["body"] or {})
        except RefusedError as why:
            code, condition, text = why.code, why.condition, str(why)
        values: dict[Any, Any] = {"statusCode": Int(code), "statusDescription": text}
        if condition is not None:
            values["errorCondition"] = Symbol(condition)
        self._broker.faults.later(lambda: reply(link, asked, values, body))

    def _unknown(self, body: dict[str, Any]) -> tuple[int, Any]:
        raise RefusedError(501, "amqp:not-implemented", "The stand-in does not know this operation.")

    def _held(self, token: object) -> Stored:
        message = self._queue.held(uuid.UUID(str(token)))
        if message is None:
            raise RefusedError(410, LOST, "The lock supplied is invalid, or has expired.")
        return message

    def _renew_lock(self, body: dict[str, Any]) -> tuple[int, Any]:
        held = [self._held(token) for token in body["lock-tokens"]]
        return 200, {"expirations": Array(Timestamp(int(self._queue.renew(one) * 1000)) for one in held)}

    def _owned(self, body: dict[str, Any]) -> str:
        name = str(body["session-id"])
        state = self._queue.sessions.get(name)
        there = None if state is None else getattr(state.owner, "link", None)
        ours = there is not None and self._asking is not None
        ours = ours and there.session.connection is self._asking.session.connection  # type: ignore[union-attr]
        if state is None or not ours or state.until <= time.time():
            raise RefusedError(410, SESSION_LOST, "The session lock has expired.")
        return name

    def _renew_session_lock(self, body: dict[str, Any]) -> tuple[int, Any]:
        until = self._queue.renew_session(self._owned(body))
        return 200, {"expiration": Timestamp(int(until * 1000))}

    def _update_disposition(self, body: dict[str, Any]) -> tuple[int, Any]:
        if self._queue.has_sessions:
            self._owned(body)
        word = str(body["disposition-status"])
        held = [self._held(token) for token in body["lock-tokens"]]
        for message in held:
            if word == "completed":
                apply(self._queue, message, ACCEPTED)
            elif word == "suspended":
                reason = str(body.get("deadletter-reason") or "")
                self._queue.bury(message, reason, str(body.get("deadletter-description") or ""))
            elif word in ("abandoned", "defered"):  # the client's own spelling
                apply(self._queue, message, modified(failed=True, elsewhere=word == "defered"))
            else:
                raise RefusedError(400, "amqp:invalid-field", f"No disposition {word!r}.")
        return 200, None

    def _peek(self, body: dict[str, Any]) -> tuple[int, Any]:
        first, most = int(body["from-sequence-number"]), int(body["message-count"])
        session = body.get("session-id")
        found = [
            {"message": message.payload()}
            for sequence, message in sorted(self._queue.messages.items())
            if sequence >= first and (session is None or message.session_id == session)
        ]
        return (200, {"messages": found[:most]}) if found else (204, None)

    def _schedule(self, body: dict[str, Any]) -> tuple[int, Any]:
        messages = [Stored(one["message"]) for one in body["messages"]]
        return 200, {"sequence-numbers": Array(Long(self._entity.put(message)) for message in messages)}

    def _cancel(self, body: dict[str, Any]) -> tuple[int, Any]:
        found = [self._queue.messages.get(int(number)) for number in body["sequence-numbers"]]
        if any(message is None or message.state != WAITING for message in found):
            raise RefusedError(404, "com.microsoft:message-not-found", "No such scheduled message.")
        for message in found:
            if message is not None:
                self._queue.remove(message)
        return 200, None

    def _receive_deferred(self, body: dict[str, Any]) -> tuple[int, Any]:
        queue, found = self._queue, []
        for number in body["sequence-numbers"]:
            message = queue.messages.get(int(number))
            if message is None or message.state != DEFERRED or message.lock is not None:
                raise RefusedError(404, "com.microsoft:message-not-found", f"No deferred message {int(number)}.")
            found.append(message)
        answers = []
        for message in found:
            message.lock = Lock(time.time() + queue.lock_seconds, None)
            queue.locked[message.lock.token] = message
            answers.append({"lock-token": message.lock.token, "message": message.payload(message.lock)})
        return 200, {"messages": answers}

    def _get_session_state(self, body: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"session-state": self._queue.sessions[self._owned(body)].kept}

    def _set_session_state(self, body: dict[str, Any]) -> tuple[int, Any]:
        self._queue.sessions[self._owned(body)].kept = body.get("session-state")
        return 200, None

    def _sessions(self, body: dict[str, Any]) -> tuple[int, Any]:
        skip, top = int(body["skip"]), int(body["top"])
        names = [name for name, state in self._queue.sessions.items() if state.ready or state.kept is not None]
        page = names[skip : skip + top]
        return (200, {"skip": Int(skip + len(page)), "sessions-ids": Array(page)}) if page else (204, None)
