"""A gate in front of a broker that counts the requests that pass, by their kind."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from typing import Final

KINDS: Final = {0: "Produce", 1: "Fetch", 8: "OffsetCommit", 12: "Heartbeat"}
"""By the number that a request begins with; see the protocol guide, "API keys"."""
CHUNK: Final = 1 << 18


class RequestGate:
    """Listens until it is closed.

    Args:
        port: Where it listens.
        broker: The port that it passes everything on to.
    """

    def __init__(self, port: int, broker: int) -> None:
        self.counts: Counter[str] = Counter()
        self.address = f"127.0.0.1:{port}"
        self._broker = broker
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(("127.0.0.1", self._broker))
                for work in (self._count, self._pass_on):
                    ways = (client, broker) if work == self._count else (broker, client)
                    threading.Thread(target=work, args=ways, daemon=True).start()

    def _count(self, client: socket.socket, broker: socket.socket) -> None:
        reader = client.makefile("rb")
        with contextlib.suppress(OSError):
            while head := reader.read(6):
                size, kind = struct.unpack(">ih", head)
                self.counts[KINDS.get(kind, "other")] += 1
                broker.sendall(head + reader.read(size - 2))
        broker.close()

    @staticmethod
    def _pass_on(broker: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := broker.recv(CHUNK):
                client.sendall(data)
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
