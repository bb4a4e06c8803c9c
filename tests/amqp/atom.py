"""The administration of a namespace: HTTP, the few reads that tell what a queue or subscription allows.

The service has it at HTTPS; loopback needs no TLS, so clients of the tests are told to speak plain HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from amqp.cbs import why_not
from amqp.entities import Queue, Topic

if TYPE_CHECKING:
    from amqp.server import Broker

_ATOM: Final = 'xmlns="http://www.w3.org/2005/Atom"'
_SCHEMA: Final = 'xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"'
_NOTHING: Final = f'<feed {_ATOM}><title type="text">Publicly Listed Services</title></feed>'
"""What the service says of an entity that is not there: 200, and no entry."""


async def serve(broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, then close."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status, body = _answer(broker, head)
        text = body.encode()
        lines = f"HTTP/1.1 {status}\r\nContent-Type: application/atom+xml\r\nContent-Length: {len(text)}\r\n"
        writer.write(f"{lines}Connection: close\r\n\r\n".encode() + text)
        await writer.drain()


def _answer(broker: Broker, head: str) -> tuple[str, str]:
    first, *rest = head.split("\r\n")
    method, target, _ = first.split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    given = fields.get("authorization", "")
    refused = why_not(broker, given.removeprefix("Bearer "))
    if refused is not None:
        return "401 Unauthorized", _error(401, refused)
    if not any(f"skn={name}" in given for name in broker.managers) and broker.bearer not in given:
        return "401 Unauthorized", _error(401, "Manage,EntityRead claims required for this operation.")
    if method != "GET":
        return "405 Method Not Allowed", _error(405, "The stand-in reads only.")
    found = broker.find(unquote(urlsplit(target).path).strip("/"))
    return "200 OK", _NOTHING if found is None else _entry(found)


def _error(code: int, text: str) -> str:
    return f"<Error><Code>{code}</Code><Detail>{text}</Detail></Error>"


def _entry(found: Queue | Topic) -> str:
    if isinstance(found, Topic):
        inner, kind = "", "TopicDescription"
    else:
        kind = "SubscriptionDescription" if "/Subscriptions/" in found.name else "QueueDescription"
        inner = (
            f"<LockDuration>PT{found.lock_seconds:g}S</LockDuration>"
            f"<RequiresSession>{str(found.has_sessions).lower()}</RequiresSession>"
            f"<MaxDeliveryCount>{found.max_delivery}</MaxDeliveryCount>"
        )
    described = f"<{kind} {_SCHEMA}>{inner}</{kind}>"
    title = f'<title type="text">{found.name}</title>'
    return f'<entry {_ATOM}>{title}<content type="application/xml">{described}</content></entry>'
