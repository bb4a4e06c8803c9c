"""The private loop ends with nothing left open."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from eventflows.adapters._eventhubs_loop import Loop
from eventflows.errors import OutcomeUnknownError

WITHIN = 10.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(WITHIN)
        yield made


async def connected(port: int) -> asyncio.StreamWriter:
    """Connect, as the client does."""
    return (await asyncio.open_connection("127.0.0.1", port))[1]


def test_connection_is_cut_when_the_loop_ends_before_its_client(listener: socket.socket) -> None:
    """Somebody holds the connection still, so that the collector cannot be what closes it."""
    loop = Loop("loop", "eventhubs://")
    held = loop.call(connected(listener.getsockname()[1]), WITHIN, "connect")
    peer, _ = listener.accept()
    loop.stop(WITHIN)
    with peer:
        peer.settimeout(WITHIN)
        assert peer.recv(1) == b""
    assert held.is_closing()


def test_call_that_hangs_is_given_up_in_time_when_its_peer_is_silent(listener: socket.socket) -> None:
    """What it did at the service is not known."""

    async def listen() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        with contextlib.closing(writer):
            return await reader.read(1)

    loop = Loop("loop", "eventhubs://")
    with pytest.raises(OutcomeUnknownError, match=r"reading did not come back within 0\.2 s"):
        loop.call(listen(), 0.2, "reading")
    loop.stop(WITHIN)
