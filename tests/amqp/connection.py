"""One client's connection and its sessions: frames in, frames out, windows kept.

Source: OASIS AMQP 1.0, part 2 (transport).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from typing import TYPE_CHECKING, Final

from amqp.codec import CodecError, Described, Symbol, UInt
from amqp.frames import AMQP, MAX_FRAME, SASL, Performative, error, frame, performative, read_frame
from amqp.link import Link

if TYPE_CHECKING:
    from amqp.server import Broker

WINDOW: Final = 2**31 - 1
MECHANISMS: Final = ("ANONYMOUS", "MSSBCBS", "EXTERNAL")


class Connection:
    """One TCP connection.

    Args:
        broker: Says what links may be attached to.
        reader: Of the socket.
        writer: Of the socket.
    """

    def __init__(self, broker: Broker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.broker = broker
        self.reader = reader
        self.writer = writer
        self.sessions: dict[int, Session] = {}
        self.container = ""
        self.host = ""
        self.max_frame = MAX_FRAME
        self.tokens: set[str] = set()
        self.claims: set[str] = set()
        """What the tokens that `$cbs` was shown allow; an empty one allows everything."""
        self.task: asyncio.Task[None] | None = None
        """What serves it; the loop itself would let the collector have it."""
        self._heart: asyncio.TimerHandle | None = None

    async def serve(self) -> None:
        """Serve until one side ends it."""
        try:
            await self._greet()
            while True:
                _, channel, body = await read_frame(self.reader)
                if not body:
                    continue  # a heartbeat
                said, payload = performative(body)
                if self.broker.faults.trace is not None:
                    self.broker.faults.trace(self.container, channel, said)
                if self._handle(channel, said, payload):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, CodecError):
            self.drop(cut=True)
        finally:
            self.drop()

    async def _greet(self) -> None:
        head = await self.reader.readexactly(8)
        if head == SASL:
            mechanisms = Performative("sasl_mechanisms", mechanisms=_symbols(MECHANISMS))
            self.writer.write(SASL + frame(0, mechanisms.encode(), kind=1))
            await read_frame(self.reader)
            self.writer.write(frame(0, Performative("sasl_outcome", code=0).encode(), kind=1))
            head = await self.reader.readexactly(8)
        self.writer.write(AMQP)
        if head != AMQP:
            raise CodecError("not the AMQP 1.0 header")

    def _handle(self, channel: int, said: Performative, payload: bytes) -> bool:
        """Do what one frame says; true when it was the last."""
        session = self.sessions.get(channel)
        if said.kind == "open":
            self._open(said)
        elif said.kind == "begin":
            self.sessions[channel] = Session(self, channel, said)
        elif said.kind == "close":
            self.send(0, Performative("close"))
            return True
        elif session is None:
            self.fail("amqp:not-allowed", f"no session on channel {channel}")
            return True
        elif said.kind == "end":
            session.drop()
            del self.sessions[channel]
            self.send(channel, Performative("end"))
        else:
            session.handle(said, payload)
        return False

    def _open(self, said: Performative) -> None:
        self.container, self.host = str(said.container_id), str(said.hostname)
        self.max_frame = min(int(said.max_frame_size or 2**32 - 1), MAX_FRAME)
        answer = Performative("open", container_id="stand-in", max_frame_size=self.broker.max_frame, channel_max=65535)
        self.send(0, answer)
        if said.idle_time_out:
            self._beat(int(said.idle_time_out) / 2000)

    def _beat(self, every: float) -> None:
        self.writer.write(frame(0, b""))
        self._heart = asyncio.get_running_loop().call_later(every, self._beat, every)

    def send(self, channel: int, said: Performative, payload: bytes = b"") -> None:
        """Write one frame; to a client that is gone, none."""
        if not self.writer.is_closing():
            self.writer.write(frame(channel, said.encode() + payload))

    def fail(self, condition: str, text: str) -> None:
        """Close with an error."""
        self.send(0, Performative("close", error=error(condition, text)))

    def drop(self, *, cut: bool = False) -> None:
        """Forget it; every link is detached, or cut: nobody closed anything."""
        if self._heart is not None:
            self._heart.cancel()
        for session in self.sessions.values():
            session.drop(cut=cut)
        self.sessions = {}
        self.broker.connections.discard(self)
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.writer.close()

    def reset(self) -> None:
        """Cut the socket, as a network does."""
        self.writer.transport.abort()


def _symbols(names: tuple[str, ...]) -> object:
    from amqp.codec import Array

    return Array(map(Symbol, names))


class Session:
    """One session: numbers of deliveries, and windows.

    Args:
        connection: Its connection.
        channel: Used in both directions.
        begun: The client's `begin`.
    """

    def __init__(self, connection: Connection, channel: int, begun: Performative) -> None:
        self.connection = connection
        self.channel = channel
        self.links: dict[int, Link] = {}
        self.unsettled: dict[int, tuple[Link, bytes]] = {}
        """What we sent and the client has not settled: by delivery id, the link and the tag."""
        self._next_in = int(begun.next_outgoing_id)
        self._next_out = 0
        self._room = int(begun.incoming_window)
        self._held: deque[tuple[Performative, bytes]] = deque()
        self._deliveries = 0
        answer = Performative("begin", remote_channel=channel, next_outgoing_id=0, handle_max=255)
        answer.incoming_window = answer.outgoing_window = WINDOW
        self.send(answer)

    def send(self, said: Performative, payload: bytes = b"") -> None:
        """Write one frame on its channel."""
        self.connection.send(self.channel, said, payload)

    def handle(self, said: Performative, payload: bytes) -> None:
        """Do what one frame says."""
        if said.kind == "attach":
            link = Link(self, said)
            self.links[link.handle] = link
            self.connection.broker.attach(link)
        elif said.kind == "flow":
            self._flow(said)
        elif said.kind == "disposition":
            self._disposition(said)
        elif said.kind == "transfer":
            self._next_in = (self._next_in + 1) % 2**32
            if said.handle in self.links:
                self.links[said.handle].arrived(said, payload)
        elif said.kind == "detach" and said.handle in self.links:
            link = self.links.pop(said.handle)
            link.gone()
            if not link.refused:
                self.send(Performative("detach", handle=link.handle, closed=True))

    def _flow(self, said: Performative) -> None:
        if said.next_incoming_id is not None:
            self._room = int(said.next_incoming_id) + int(said.incoming_window) - self._next_out
        while self._held and self._room > 0:
            self._put(*self._held.popleft())
        if said.handle is not None and said.handle in self.links:
            self.links[said.handle].flowed(said)
        elif said.echo:
            self.flow()

    def flow(self, **link: object) -> None:
        """Tell the client our windows, and perhaps one link's credit."""
        said = Performative("flow", next_incoming_id=self._next_in, next_outgoing_id=self._next_out, **link)
        said.incoming_window = said.outgoing_window = WINDOW
        self.send(said)

    def deliver(self, link: Link, payload: bytes, *, tag: bytes, settled: bool, form: int) -> int:
        """Send one delivery, in as many frames as it needs; gives its id."""
        number, self._deliveries = self._deliveries, self._deliveries + 1
        if not settled:
            self.unsettled[number] = (link, tag)
        most = self.connection.max_frame - 512  # room for the performative
        for at in range(0, max(len(payload), 1), most):
            said = Performative("transfer", handle=link.handle, delivery_id=number, delivery_tag=tag)
            said.message_format, said.settled, said.more = UInt(form), settled, at + most < len(payload)
            if self._room > 0 and not self._held:
                self._put(said, payload[at : at + most])
            else:
                self._held.append((said, payload[at : at + most]))
        return number

    def _put(self, said: Performative, payload: bytes) -> None:
        self.send(said, payload)
        self._next_out = (self._next_out + 1) % 2**32
        self._room -= 1

    def _disposition(self, said: Performative) -> None:
        if not said.role:
            return  # the client, as the sender, says that it forgets: we have already
        for number in range(said.first, (said.first if said.last is None else said.last) + 1):
            found = self.unsettled.get(number)
            if found is None or said.state is None:
                continue
            link, tag = found
            del self.unsettled[number]
            answer = link.endpoint.settle(link, tag, said.state) if link.endpoint else None
            if not said.settled and answer is not None:
                self.connection.broker.faults.later(functools.partial(self.settle, number, answer, sent=True))

    def settle(self, number: int, state: Described, *, sent: bool) -> None:
        """Tell the client that a delivery is settled: one that we sent, or one that came."""
        self.send(Performative("disposition", role=not sent, first=UInt(number), settled=True, state=state))

    def forget(self, link: Link) -> None:
        """Forget the deliveries of a link that is gone: a late word on one must find nothing."""
        self.unsettled = {number: held for number, held in self.unsettled.items() if held[0] is not link}

    def drop(self, *, cut: bool = False) -> None:
        """Detach every link, or have it cut."""
        for link in self.links.values():
            link.gone(cut=cut)
        self.links, self.unsettled = {}, {}

    def end(self, condition: str, text: str) -> None:
        """End it, with an error."""
        self.drop()
        self.connection.sessions.pop(self.channel, None)
        self.send(Performative("end", error=error(condition, text)))
