"""A gate in front of a Kafka listener: it reads the requests that pass, and cuts the connections it is told to cut.

The vendor's own client talks to it, and the real broker answers; nothing of the adapter is replaced.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from typing import BinaryIO, Final

import attrs
from kafka.protocol.consumer.group import HeartbeatRequest, OffsetCommitRequest, SyncGroupRequest
from kafka.protocol.metadata.find_coordinator import FindCoordinatorRequest, FindCoordinatorResponse
from kafka.protocol.producer.produce import ProduceRequest, ProduceResponse
from kafka.protocol.producer.transaction import EndTxnResponse
from kafka.record import MemoryRecords

PRODUCE: Final = 0
FETCH: Final = 1
LIST_OFFSETS: Final = 2
COMMIT: Final = 8
OFFSET_FETCH: Final = 9
FIND: Final = 10
"""Who coordinates a group."""
JOIN: Final = 11
END_TRANSACTION: Final = 26
_MEMBERS: Final = {COMMIT: OffsetCommitRequest, 12: HeartbeatRequest, 14: SyncGroupRequest}
_HEADER: Final = struct.Struct(">hhi")
_VERSIONS: Final = struct.Struct(">hhih")
"""A whole request for the versions that the broker speaks: kind, version, number, no name of the client."""
AT_ONCE: Final = 64 * 1024
"""Bytes that a connection holds of an answer."""


@attrs.frozen
class Request:
    """A request that is about to pass."""

    api: int
    version: int
    frame: bytes
    """Without its length."""
    refusal: int = 0
    """The number of the error that is its answer, and it did not pass; 0: it passed."""

    def values(self) -> list[tuple[bytes | None, bytes | None]]:
        """Give key and value of each record that it would publish."""
        if self.api != PRODUCE:
            return []
        found = []
        topics = ProduceRequest.decode(self.frame, version=self.version, header=True).topic_data
        for batches in (MemoryRecords(bytes(part.records)) for topic in topics for part in topic.partition_data):
            while (batch := batches.next_batch()) is not None:
                found += [(record.key, record.value) for record in batch]
        return found


class KafkaGate:
    """Listens on loopback and passes on to a listener of the broker.

    Args:
        port: Where it listens: what the broker advertises.
        upstream: The broker's own port.
    """

    def __init__(self, port: int, upstream: int) -> None:
        self._upstream = upstream
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self.rules: list[Callable[[Request], bool]] = []
        """Asked before a request passes; one that says True cuts its connection instead."""
        self.answer_rules: list[Callable[[Request], bool]] = []
        """Asked before the answer to a request passes; one that says True cuts the connection, and it is lost."""
        self.refusals: list[Callable[[Request], int]] = []
        """Asked before a request to publish, for a coordinator, or to end a transaction passes; one that gives the
        number of an error has all that is asked answered so, and it does not pass. 0: let it pass."""
        self.requests: Counter[int] = Counter()
        """How many of each kind passed."""
        self.fetched = 0
        """Bytes of all answers to fetches."""
        self.generations: dict[str, int] = {}
        """The newest generation that a member of a group spoke of."""
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True, name="gate").start()

    def disconnect(self) -> None:
        """Cut every connection; new ones are welcome."""
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for one in sockets:
            _cut(one)

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        _cut(self._listener)
        self.disconnect()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    broker = socket.create_connection(("127.0.0.1", self._upstream), 10)
                except OSError:
                    _cut(client)
                    continue
                broker.settimeout(None)
                for one in (client, broker):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._sockets |= {client, broker}
                asked: dict[int, Request] = {}
                for way, source, target in ((self._ask, client, broker), (self._answer, broker, client)):
                    threading.Thread(target=self._carry, args=(way, source, target, asked), daemon=True).start()

    def _carry(
        self,
        way: Callable[[int, BinaryIO, socket.socket, dict[int, Request]], bool],
        source: socket.socket,
        target: socket.socket,
        asked: dict[int, Request],
    ) -> None:
        with contextlib.suppress(OSError), source.makefile("rb", buffering=AT_ONCE) as stream:
            while len(length := stream.read(4)) == 4 and way(int.from_bytes(length, "big"), stream, target, asked):
                pass
        with self._lock:
            self._sockets -= {source, target}
        _cut(source)
        _cut(target)

    def _ask(self, size: int, stream: BinaryIO, target: socket.socket, asked: dict[int, Request]) -> bool:
        """Read a request whole, for rules look into it; say whether it was passed on."""
        frame = stream.read(size)
        if len(frame) < size:
            return False
        api, version, number = _HEADER.unpack_from(frame)
        request = Request(api, version, frame)
        if any([rule(request) for rule in list(self.rules)]):
            return False
        if api in _REFUSED and (refusal := next(filter(None, [rule(request) for rule in list(self.refusals)]), 0)):
            # The broker is asked something else in its place, so that answers keep their order.
            request, frame = attrs.evolve(request, refusal=refusal), _VERSIONS.pack(18, 0, number, -1)
        asked[number] = request
        self.requests[api] += 1
        if api in _MEMBERS:
            said = _MEMBERS[api].decode(frame, version=version, header=True)
            generation = said.generation_id_or_member_epoch if api == COMMIT else said.generation_id
            self.generations[said.group_id] = max(self.generations.get(said.group_id, 0), generation)
        target.sendall(len(frame).to_bytes(4, "big") + frame)
        return True

    def _answer(self, size: int, stream: BinaryIO, target: socket.socket, asked: dict[int, Request]) -> bool:
        """Pass an answer on in pieces, for megabytes held here would count as memory of who is tested."""
        number = stream.read(4)
        request = asked.pop(int.from_bytes(number, "big"), None)
        if request is not None and any([rule(request) for rule in list(self.answer_rules)]):
            return False
        if request is not None and request.refusal:
            answer = _REFUSED[request.api](request, int.from_bytes(number, "big"))
            target.sendall(len(answer).to_bytes(4, "big") + answer)
            return len(stream.read(size - len(number))) == size - len(number)
        if request is not None and request.api == FETCH:
            self.fetched += size
        target.sendall(size.to_bytes(4, "big") + number)
        left = size - len(number)
        while left and (piece := stream.read(min(left, AT_ONCE))):
            target.sendall(piece)
            left -= len(piece)
        return not left


def _publishes_not(request: Request, number: int) -> bytes:
    """Answer a request to publish with its refusal, for each partition."""
    asked = ProduceRequest.decode(request.frame, version=request.version, header=True)
    topic_class = ProduceResponse.TopicProduceResponse
    answer = ProduceResponse(version=request.version, throttle_time_ms=0, responses=[
        topic_class(name=topic.name, partition_responses=[
            topic_class.PartitionProduceResponse(index=part.index, error_code=request.refusal, base_offset=-1)
            for part in topic.partition_data
        ])
        for topic in asked.topic_data
    ])  # fmt: skip
    answer.with_header(correlation_id=number)
    return bytes(answer.encode(header=True))


def _finds_not(request: Request, number: int) -> bytes:
    """Answer who coordinates groups with its refusal, for each group."""
    asked = FindCoordinatorRequest.decode(request.frame, version=request.version, header=True)
    nobody = {"node_id": -1, "host": "", "port": -1, "error_code": request.refusal, "error_message": ""}
    found = [FindCoordinatorResponse.Coordinator(key=key, **nobody) for key in asked.coordinator_keys or ()]
    each = {"coordinators": found} if found else nobody
    answer = FindCoordinatorResponse(version=request.version, throttle_time_ms=0, **each)
    answer.with_header(correlation_id=number)
    return bytes(answer.encode(header=True))


def _ends_not(request: Request, number: int) -> bytes:
    """Answer that a transaction is to end with its refusal."""
    answer = EndTxnResponse(version=request.version, throttle_time_ms=0, error_code=request.refusal)
    answer.with_header(correlation_id=number)
    return bytes(answer.encode(header=True))


_REFUSED: Final = {PRODUCE: _publishes_not, FIND: _finds_not, END_TRANSACTION: _ends_not}


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
