"""kafka-python's network client, made to say why it cannot connect.

By itself 3.0.12 reports every cause as the same time-out after 30 seconds, and leaks a thread. So each connection is
tried out first, which takes milliseconds when all is well, and raises the cause itself when it is not. The private
names used here are why the extra pins the client below 3.1.
"""

from __future__ import annotations

import functools
import socket
import ssl
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

import kafka.errors as native
from kafka.net.compat import KafkaNetClient
from kafka.net.inet import KafkaNetSocket
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.net.transport import KafkaSSLTransport, KafkaTCPTransport

from eventflows.adapters._kafka_errors import told
from eventflows.adapters._kafka_python_errors import translate
from eventflows.errors import ConnectionFailedError

T = TypeVar("T")
READ: Final = 1 << 18
"""Bytes of one read from a socket."""
_FINAL = (native.SaslAuthenticationFailedError, native.UnsupportedSaslMechanismError, ssl.SSLError)


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    """Remembers why the newest connection failed."""

    last_error: BaseException | None = None

    def __init__(self, *given: Any, **more: Any) -> None:  # noqa: ANN401 - the client's own
        super().__init__(*given, **more)
        self.reached = False
        """Whether somebody listens where the newest connection went, whatever came of it."""
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()

    def cut(self) -> None:
        """Close every socket, after the loop has ended: one with something left to write would stay open."""
        for transport in list(self._made):
            if transport._sock is not None:
                transport._sock.close()

    async def _build_transport(self, node: Any, timeout_at: Any = None) -> Any:  # noqa: ANN401 - the client's own
        """As the client does, which leaves the sockets of connections that fail to the collector."""
        self.reached = False
        sock = await self._reach(node, timeout_at)
        self.reached = True
        transport: Any = None
        try:
            if self.ssl_enabled:
                tls = {name: value for name, value in self.config.items() if name.startswith("ssl_")}
                transport = KafkaSSLTransport(self._net, sock, host=node.host, **tls)
            else:
                transport = KafkaTCPTransport(self._net, sock, host=node.host)
            await transport.handshake()
        except BaseException as error:
            (sock if transport is None else transport._sock).close()
            if not isinstance(error, Exception):
                raise
            raise native.KafkaConnectionError(f"Handshake failed: {error}") from error
        transport._sock_recv = functools.partial(_receive, transport)
        self._made.add(transport)
        return transport

    async def _reach(self, node: Any, timeout_at: Any) -> socket.socket:  # noqa: ANN401 - the client's own
        maker = KafkaNetSocket()
        last: Exception = native.KafkaConnectionError("DNS Resolution failure")
        for family, kind, protocol, _, address in maker.dns_lookup(node.host, node.port):
            one: socket.socket = maker.socket(family, kind, protocol)
            try:
                one.setblocking(False)
                for option in self.config["socket_options"]:
                    one.setsockopt(*option)
                await maker.sock_connect(self._net, one, address, timeout_at=timeout_at)
            except BaseException as error:
                one.close()
                if isinstance(error, native.KafkaTimeoutError):
                    raise native.KafkaConnectionError("Connection timed out") from error
                if not isinstance(error, (OSError, native.KafkaConnectionError)):
                    raise
                last = error
            else:
                return one
        raise last

    def get_connection(self, node_id: Any, **options: Any) -> Any:  # noqa: ANN401 - the client's own
        connection = super().get_connection(node_id, **options)
        if not getattr(connection, "_noted", False):
            connection._noted = True
            connection.init_future.add_errback(self._note)
            connection.init_future.add_callback(self._forget)
        return connection

    def _forget(self, _: object) -> None:
        self.last_error = None

    def _note(self, error: BaseException) -> None:
        while isinstance(error, native.KafkaConnectionError) and (error.__cause__ or error.__context__):
            error = error.__cause__ or error.__context__
        # A deadline must not hide the reason that was seen before it.
        if self.last_error is None or not isinstance(error, (native.RequestTimedOutError, native.KafkaTimeoutError)):
            self.last_error = error


def _receive(transport: Any) -> tuple[bytes, BaseException | None]:  # noqa: ANN401 - the client's own
    """Read what is there, in place of the client's own way, which is 4 KiB at a time.

    Each read gives up the interpreter's lock; beside a busy thread it takes 5 ms to have it back, so less than a
    megabyte came in a second. Data that comes together with the end of the stream, the broker's "wrong password", is
    given before the end is told of; the client drops it.
    """
    parts: list[bytes] = []
    try:
        while True:
            data = transport._sock.recv(READ)
            if not data:
                raise native.KafkaConnectionError("socket disconnected")
            parts.append(data)
            if len(data) < READ and not isinstance(transport._sock, ssl.SSLSocket):
                break  # TLS may hold more that it has read, and that nobody would be told of
    except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass  # all that is there has been read
    except Exception as error:  # noqa: BLE001 - whatever it is, the connection is over
        return (b"".join(parts), None) if parts else (b"", native.KafkaConnectionError(error))
    return b"".join(parts), None


class Client(KafkaNetClient):  # type: ignore[misc]
    """What `kafka_client=` of the client's classes takes."""

    def __init__(self, **config: Any) -> None:  # noqa: ANN401 - the client's own
        net = NetworkSelector(**config)
        super().__init__(net=net, manager=_Manager(net, **config))

    def close(self, node_id: Any = None) -> None:  # noqa: ANN401 - the client's own
        """Close one connection, or all and the loop."""
        super().close(node_id)
        if node_id is None:
            self._manager.cut()


def probe(config: dict[str, Any], where: str, timeout: float) -> None:
    """Connect, encrypt, authenticate and ask for metadata once; starts no thread.

    Raises:
        BrokerError: The reason why it cannot be done, by its class.
    """
    client = Client(**config)
    deadline = time.monotonic() + timeout
    last: BaseException = native.KafkaTimeoutError("no broker answered")
    try:
        for node in client.cluster.bootstrap_brokers():
            left = max(deadline - time.monotonic(), 0.05) * 1000

            async def connect(node_id: Any = node.node_id, left: float = left) -> None:  # noqa: ANN401
                await client._manager.get_connection(
                    node_id, timeout_ms=left, pop_on_close=False, refresh_metadata_on_err=False
                )
                future = client._manager.call_soon(client.cluster.refresh_metadata, node_id)
                await client._manager.wait_for(future, left)

            try:
                client._net.run(connect)
                return
            except Exception as error:  # noqa: BLE001 - the client raises what the system and TLS raise, too
                last = client._manager.last_error or error
                if isinstance(last, _FINAL):
                    break
    finally:
        client.close()
    if isinstance(last, (native.KafkaTimeoutError, native.RequestTimedOutError)):
        silent = native.KafkaConnectionError(f"nobody answered within {timeout:g} s")
        silent.__cause__ = last
        last = silent
    elif type(last) is native.KafkaConnectionError:
        ended = client._manager.reached
        text = "the broker ends every connection at once" if ended else "nobody listens there, or the host is not known"
        raise told(ConnectionFailedError, where, text, last, "ended" if ended else "hosts")
    raise translate(last, where)


def build(make: Callable[..., T], config: dict[str, Any], where: str, timeout: float) -> tuple[T, Client]:
    """Make a consumer, producer or admin, after trying out the connection; leaks no thread when it fails.

    Raises:
        BrokerError: Why it cannot connect.
    """
    begun = time.monotonic()
    probe(config, where, timeout)
    clients: list[Client] = []

    def keep(**options: Any) -> Client:  # noqa: ANN401 - the client's own
        clients.append(Client(**options))
        return clients[-1]

    left = max(timeout - (time.monotonic() - begun), 0.1)
    try:
        return make(kafka_client=keep, bootstrap_timeout_ms=int(left * 1000), **config), clients[-1]
    except native.KafkaError as error:
        reason = next((one._manager.last_error for one in clients if one._manager.last_error), error)
        for one in clients:
            one.close()
        raise translate(reason, where) from error
