"""`$cbs`: the client shows a token for each thing that it wants to use."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote_plus

from amqp.codec import Described, Int, decode
from amqp.frames import ACCEPTED
from amqp.link import Link
from amqp.stored import section

if TYPE_CHECKING:
    from amqp.server import Broker


def reply(session_link: Link, request: dict[str, Any], values: dict[Any, Any], body: object = None) -> None:
    """Answer a request on the receiving link of the same node, in the same session."""
    links = session_link.session.links.values()
    back = next((link for link in links if link.sends and link.address == session_link.address and link.alive), None)
    if back is None:
        return
    properties = [None] * 5 + [request["message-id"]]
    payload = section(0x73, properties) + section(0x74, values) + section(0x77, body)
    back.send(payload, tag=b"%d" % id(payload))


def request(payload: bytes) -> dict[str, Any]:
    """Read a request: its message id, its application properties and its body."""
    found: dict[str, Any] = {"message-id": None, "values": {}, "body": None}
    at = 0
    while at < len(payload):
        part, at = decode(payload, at)
        if part.descriptor == 0x73:
            found["message-id"] = part.value[0] if part.value else None
        elif part.descriptor == 0x74:
            found["values"] = {str(key): value for key, value in part.value.items()}
        elif part.descriptor == 0x77:
            found["body"] = part.value
    return found


class Node:
    """What the two links of a node are attached to: requests come on one, answers go on the other."""

    def attached(self, link: Link) -> None:
        """Nothing to do."""

    def transfer(self, link: Link, payload: bytes, form: int) -> Described | None:
        """Answer a request."""
        self.answer(link, request(payload))
        return ACCEPTED

    def answer(self, link: Link, asked: dict[str, Any]) -> None:
        """Do what is asked, and reply."""
        raise NotImplementedError

    def credited(self, link: Link) -> None:
        """Nothing to do: answers are sent when there are requests."""

    def settle(self, link: Link, tag: bytes, state: Described) -> Described | None:
        """Answers are settled when they are sent."""
        return None

    def detached(self, link: Link) -> None:
        """Nothing to do."""


class Cbs(Node):
    """Takes tokens, and checks the signature of shared access ones.

    Args:
        broker: With its keys.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def answer(self, link: Link, asked: dict[str, Any]) -> None:
        """Take a token."""
        if self._broker.faults.frozen("open", "$cbs"):
            return
        why = why_not(self._broker, str(asked["body"]))
        if why is None:
            link.session.connection.tokens.add(str(asked["values"].get("name", "")))
            link.session.connection.claims.add(self._broker.claims.get(key_name(str(asked["body"])), ""))
        code, text = (202, "Accepted") if why is None else (401, why)
        reply(link, asked, {"status-code": Int(code), "status-description": text})


def why_not(broker: Broker, token: str) -> str | None:
    """Say what is wrong with a token; None: nothing."""
    if not token.startswith("SharedAccessSignature "):
        return None if token == broker.bearer else "InvalidToken: the bearer token is not known here."
    parts = {name: values[0] for name, values in parse_qs(token.partition(" ")[2]).items()}
    key = broker.keys.get(key_name(token))
    if key is None:
        return "InvalidSignature: no such key."
    if float(parts.get("se", "0")) < time.time():
        return "ExpiredToken: the token is over."
    signed = f"{quote_plus(parts.get('sr', ''))}\n{parts['se']}".encode()
    right = base64.b64encode(hmac.new(key.encode(), signed, hashlib.sha256).digest()).decode()
    return None if hmac.compare_digest(right, parts.get("sig", "")) else "InvalidSignature: the signature is wrong."


def key_name(token: str) -> str:
    """Give the name of the key that signed a token; empty: none did."""
    return parse_qs(token.partition(" ")[2]).get("skn", [""])[0]
