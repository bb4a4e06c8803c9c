"""A gate in front of an SQS server: it passes requests on, and breaks those it is told to.

The vendor's own client talks to it; nothing of the adapter is replaced.
"""

from __future__ import annotations

import http.client
import http.server
import json
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eventflows.adapters._sqs_wire import read, read_body
from eventflows.errors import (
    AuthenticationError,
    BrokerError,
    InvalidMessageError,
    LeaseLostError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    ThrottledError,
    TooLargeError,
)
from eventflows.message import Delivery, Message

OPERATIONS = {
    "open": ("GetQueueAttributes", "GetQueueUrl"),
    "publish": ("SendMessageBatch",),
    "receive": ("ReceiveMessage",),
    "settle": ("DeleteMessageBatch", "ChangeMessageVisibilityBatch"),
    "extend": ("ChangeMessageVisibilityBatch",),
    "peek": ("ReceiveMessage",),
}
Answer = tuple[int, bytes] | None
"""Status and body; None: the connection is cut."""
EntryRule = Callable[[str, Mapping[str, Any]], str | None]
"""Gives the error code of an entry of a batch, or None; asked with the action, the entry and, in it, its Queue."""


class Gate:
    """Listens on loopback and passes on to a server.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self._upstream = port
        self.lock = threading.RLock()
        self.calls: list[str] = []
        """Every action that came in, in order."""
        self.asked: list[dict[str, Any]] = []
        """Their parameters, and who signed them."""
        self.on_call: list[Callable[[str, str], Answer | bool]] = []
        """Asked for each request, with queue and action; True passes it on."""
        self.on_entry: list[EntryRule] = []
        self.on_answer: list[Callable[[str, bytes], bytes]] = []
        """Changes what the server answered, by action."""
        self.frozen: dict[tuple[str, str], threading.Event] = {}
        self.received: dict[str, dict[str, Any]] = {}
        """By receipt handle: what the server gave, with its queue."""
        self._sockets: set[socket.socket] = set()
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self.onward = http.client.HTTPConnection("127.0.0.1", gate._upstream, timeout=60)
                gate._sockets.add(self.connection)

            def finish(self) -> None:
                gate._sockets.discard(self.connection)
                self.onward.close()
                super().finish()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                answer = gate.answer(self.headers, body, self.onward)
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, content = answer
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Listener(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that went away is no news."""

        self._server = Listener(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True, name="gate").start()

    def close(self) -> None:
        """Stop listening."""
        for event in self.frozen.values():
            event.set()
        self._server.shutdown()
        self._server.server_close()
        self.disconnect()

    def disconnect(self) -> None:
        """Cut every connection now."""
        for one in list(self._sockets):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def answer(self, headers: Mapping[str, str], body: bytes, onward: http.client.HTTPConnection) -> Answer:
        """Answer one request."""
        action = headers.get("X-Amz-Target", "").rpartition(".")[2]
        if action:
            asked = json.loads(body or b"{}")
        else:  # STS speaks forms
            asked = dict(urllib.parse.parse_qsl(body.decode()))
            action = str(asked.get("Action", ""))
        self.asked.append({**asked, "Authorization": headers.get("Authorization", "")})
        queue = str(asked.get("QueueUrl", asked.get("QueueName", ""))).rsplit("/", 1)[-1]
        self.calls.append(action)
        event = self.frozen.get((queue, action))
        if event is not None:
            event.wait(120)
            return None
        for rule in list(self.on_call):
            found = rule(queue, action)
            if found is not True:
                assert found is not False
                return found
        refused: list[tuple[dict[str, Any], str]] = []
        if "Entries" in asked and self.on_entry:
            passed = []
            for entry in asked["Entries"]:
                code = next(
                    filter(None, (rule(action, {**entry, "Queue": queue}) for rule in list(self.on_entry))), None
                )
                if code is None:
                    passed.append(entry)
                else:
                    refused.append((entry, code))
            asked["Entries"] = passed
            body = json.dumps(asked).encode()
        if refused and not asked["Entries"]:
            status, content = 200, b"{}"
        else:
            status, content = self._pass_on(headers, body, onward)
        if refused and status == 200:
            content = _with_failures(content, refused)
        for change in list(self.on_answer):
            content = change(action, content)
        if action == "ReceiveMessage" and status == 200:
            for message in json.loads(content).get("Messages", ()):
                self.received[message["ReceiptHandle"]] = {**message, "queue": queue}
        return status, content

    @staticmethod
    def _pass_on(headers: Mapping[str, str], body: bytes, onward: http.client.HTTPConnection) -> tuple[int, bytes]:
        kept = {name: value for name, value in headers.items() if name.lower() not in ("content-length", "host")}
        try:
            onward.request("POST", "/", body, kept)
            reply = onward.getresponse()
        except (http.client.HTTPException, OSError):
            onward.close()
            onward.request("POST", "/", body, kept)
            reply = onward.getresponse()
        return reply.status, reply.read()


def refusal(code: str, text: str = "an injected failure", status: int = 400) -> tuple[int, bytes]:
    """Make an error answer of the JSON protocol."""
    return status, json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": text}).encode()


def _with_failures(content: bytes, refused: Sequence[tuple[dict[str, Any], str]]) -> bytes:
    answer = json.loads(content)
    failed = answer.setdefault("Failed", [])
    for entry, code in refused:
        sender = code not in _THEIR_FAULT
        failed.append({"Id": entry["Id"], "Code": code, "SenderFault": sender, "Message": "an injected failure"})
    return json.dumps(answer).encode()


_CODE_OF: Mapping[type[BrokerError], str] = {
    AuthenticationError: "InvalidClientTokenId",
    InvalidMessageError: "InvalidMessageContents",
    LeaseLostError: "ReceiptHandleIsInvalid",
    NotFoundError: "QueueDoesNotExist",
    OutcomeUnknownError: "RequestTimeout",
    PermissionDeniedError: "AccessDenied",
    ThrottledError: "RequestThrottled",
    TooLargeError: "MessageTooLong",
}
_THEIR_FAULT = ("InternalError", "RequestThrottled", "RequestTimeout", "ThrottlingException", "NewAndTheirs")


def _code_of(error: BrokerError) -> str:
    return _CODE_OF.get(type(error), "InternalError")


class SqsFaults:
    """Ways to make one queue misbehave.

    Args:
        gate: In front of the server.
        queue: Its name.
        direct: A boto3 client of the server itself.
        url: Of the queue, at the server itself.
    """

    def __init__(self, gate: Gate, queue: str, direct: Any, url: str) -> None:
        self._gate, self._queue, self._direct, self._url = gate, queue, direct, url

    def fail(self, operation: str, error: BrokerError, *, times: int = 1) -> None:
        """Refuse the next calls, or cut them off."""
        left = [times]

        def rule(queue: str, action: str) -> Answer | bool:
            with self._gate.lock:
                if queue != self._queue or action not in OPERATIONS[operation] or not left[0]:
                    return True
                left[0] -= 1
            code = _code_of(error)
            return None if code == "InternalError" else refusal(code)

        self._gate.on_call.append(rule)

    def _entries(self, actions: Sequence[str], match: Callable[[Any], bool], error: BrokerError, times: int) -> None:
        left = [times]

        def rule(action: str, entry: Mapping[str, Any]) -> str | None:
            with self._gate.lock:
                if entry["Queue"] != self._queue or action not in actions or not left[0] or not match(entry):
                    return None
                left[0] -= 1
                return _code_of(error)

        self._gate.on_entry.append(rule)

    def fail_message(self, match: Callable[[Message], bool], error: BrokerError, *, times: int = 1) -> None:
        """Refuse entries of SendMessageBatch."""

        def fits(entry: Mapping[str, Any]) -> bool:
            native = {**entry, "Body": entry["MessageBody"], "MessageId": "unknown"}
            return match(read(native, read_body(native), fifo=False))

        self._entries(("SendMessageBatch",), fits, error, times)

    def refuse_settlement(self, match: Callable[[Delivery], bool], error: BrokerError, *, times: int = 1) -> None:
        """Refuse entries of DeleteMessageBatch and ChangeMessageVisibilityBatch."""

        def fits(entry: Mapping[str, Any]) -> bool:
            native = self._gate.received.get(entry["ReceiptHandle"])
            if native is None:
                return False
            message = read(native, read_body(native), fifo=False)
            return match(Delivery(message=message, source="", position="", identity=""))

        self._entries(OPERATIONS["settle"], fits, error, times)

    def refuse_extension(self, error: BrokerError, *, times: int = 1) -> None:
        """Refuse entries of ChangeMessageVisibilityBatch."""
        self._entries(OPERATIONS["extend"], lambda _: True, error, times)

    def freeze(self, operation: str) -> None:
        """Answer no call of an operation."""
        for action in OPERATIONS[operation]:
            self._gate.frozen[self._queue, action] = threading.Event()

    def thaw(self, operation: str) -> None:
        """Answer again."""
        for action in OPERATIONS[operation]:
            event = self._gate.frozen.pop((self._queue, action), None)
            if event is not None:
                event.set()

    def disconnect(self) -> None:
        """Cut every connection."""
        self._gate.disconnect()

    def expire_leases(self) -> None:
        """End every lease, and spoil the receipt handles as the next receive of somebody else does."""
        with self._gate.lock:
            handles = [handle for handle, one in self._gate.received.items() if one["queue"] == self._queue]
            self._show(reversed(handles))
            taken = []
            while more := self._direct.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=10, VisibilityTimeout=30
            ).get("Messages", []):
                taken += [message["ReceiptHandle"] for message in more]
            self._show(reversed(taken))

    def _show(self, handles: Any) -> None:
        for handle in handles:
            self._direct.change_message_visibility_batch(
                QueueUrl=self._url, Entries=[{"Id": "0", "ReceiptHandle": handle, "VisibilityTimeout": 0}]
            )
