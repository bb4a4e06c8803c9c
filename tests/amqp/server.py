"""The stand-in as a whole: a thread with a loop, a port on loopback, and entities made by the tests."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any, Final, Self, TypeVar
from urllib.parse import unquote, urlsplit

from amqp import atom, hubs
from amqp.cbs import Cbs
from amqp.connection import Connection
from amqp.entities import Queue, Topic
from amqp.faults import Faults
from amqp.frames import MAX_FRAME
from amqp.hubs import STOLEN, Hub, HubManagement
from amqp.link import Link
from amqp.management import Management
from amqp.servicebus import SESSION_FILTER, Inlet, Outlet, SessionOutlet
from amqp.stored import Stored

T = TypeVar("T")
KEY_NAME: Final = "RootManageSharedAccessKey"
KEY: Final = "c3RhbmQtaW4ta2V5LW9mLXRoZS10ZXN0cw=="
_DEAD: Final = re.compile(r"/\$deadletterqueue$", re.IGNORECASE)
_SUBSCRIPTION: Final = re.compile(r"([^/]+)/subscriptions/([^/]+)$", re.IGNORECASE)


class Broker:
    """What one stand-in has: entities, connections, keys, faults. Used on its loop only.

    Args:
        max_frame: Bytes of the largest frame that a client may send.
    """

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self.max_frame = max_frame
        self.queues: dict[str, Queue] = {}
        self.topics: dict[str, Topic] = {}
        self.hubs: dict[str, Hub] = {}
        self.connections: set[Connection] = set()
        self.keys = {KEY_NAME: KEY}
        self.managers = {KEY_NAME}
        """Keys that may manage, too."""
        self.claims: dict[str, str] = {}
        """What a key may do, by its name: `Listen` or `Send`; one that is not here may do both."""
        self.bearer = "a-bearer-token"
        self.faults = Faults()

    def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client from now on; it is among the connections before its task has begun."""
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        connection.task = asyncio.ensure_future(connection.serve())

    def attach(self, link: Link) -> None:
        """Attach a link to what it asks for, or refuse it."""
        path = unquote(urlsplit(link.address).path if "://" in link.address else link.address).strip("/")
        if path == "$cbs":
            if self.faults.endings:
                self.faults.endings -= 1
                link.session.end("amqp:internal-error", "ended, as it was told to")
            else:
                link.accept(Cbs(self))
            return
        name = path.partition("/$")[0]
        if self.faults.frozen("open", name):
            return
        refused = self.faults.meets("open", name)
        if refused is None and not link.session.connection.tokens:
            refused = "amqp:unauthorized-access", "No token was shown for this."
        if refused is None and "$management" not in path:
            needed = "Listen" if link.sends else "Send"
            if not link.session.connection.claims & {needed, ""}:
                refused = "amqp:unauthorized-access", f"Unauthorized access. '{needed}' claim(s) are required."
        if refused is not None:
            link.refuse(*refused)
            return
        if path == "$management":
            link.accept(HubManagement(self))
            return
        if hubs.attach(self, link, path):
            return
        node, _, management = path.partition("/$management")
        entity = self.find(node)
        if entity is None:
            link.refuse("amqp:not-found", f"The messaging entity '{node}' could not be found.")
        elif entity.disabled:
            link.refuse("com.microsoft:entity-disabled", f"The messaging entity '{node}' is disabled.")
        elif management or path.endswith("/$management"):
            link.accept(Management(self, entity))
        elif not link.sends:
            link.accept(Inlet(self, entity))
        else:
            self._receive(link, entity)

    def _receive(self, link: Link, entity: Queue | Topic) -> None:
        session = SESSION_FILTER in link.filters
        if isinstance(entity, Topic):
            link.refuse("amqp:not-allowed", "A topic is read through its subscriptions.")
        elif session != entity.has_sessions:
            text = "It needs a receiver of sessions." if entity.has_sessions else "It has no sessions."
            link.refuse("amqp:not-allowed", text)
        elif session:
            SessionOutlet(self, entity, link).ask()
        else:
            link.accept(Outlet(self, entity, link))

    def find(self, path: str) -> Queue | Topic | None:
        """Find a queue, topic, subscription, or the dead letters of one."""
        whole = _DEAD.sub("", path)
        found: Queue | Topic | None = self.queues.get(whole.lower()) or self.topics.get(whole.lower())
        subscription = _SUBSCRIPTION.match(whole)
        if subscription and subscription[1].lower() in self.topics:
            found = self.topics[subscription[1].lower()].subscriptions.get(subscription[2].lower())
        if whole == path or found is None:
            return found
        return found.dead if isinstance(found, Queue) else None

    def every_queue(self) -> list[Queue]:
        """Give all queues and subscriptions."""
        subscribed = [queue for topic in self.topics.values() for queue in topic.subscriptions.values()]
        return [*self.queues.values(), *subscribed]


class AzureServer:
    """A stand-in that serves on loopback until it is closed; its methods may be called from any thread.

    Args:
        port: To listen on; 0 takes a free one.
        max_frame: Bytes of the largest frame that a client may send.
    """

    def __init__(self, port: int = 0, *, max_frame: int = MAX_FRAME) -> None:
        self.broker = Broker(max_frame)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="amqp-stand-in", daemon=True)
        self._thread.start()
        self._server = self._await(asyncio.start_server(self.broker.welcome, "127.0.0.1", port))
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._administrations: list[asyncio.Server] = []

    def _await(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def call(self, work: Callable[[], T]) -> T:
        """Call something on the server's loop, and give what it gives."""

        async def run() -> T:
            return work()

        result: T = self._await(run())
        return result

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def administration(self) -> str:
        """Serve the administration over HTTP, from now on; gives where."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await atom.serve(self.broker, reader, writer)

        made = self._await(asyncio.start_server(serve, "127.0.0.1", 0))
        self._administrations.append(made)
        return f"127.0.0.1:{made.sockets[0].getsockname()[1]}"

    @property
    def connection_string(self) -> str:
        """What the vendor's clients connect with."""
        return self.connection_string_of(KEY_NAME, KEY)

    def connection_string_of(self, name: str, key: str) -> str:
        """Make a connection string with a key, right or wrong."""
        return f"Endpoint=sb://{self.host};SharedAccessKeyName={name};SharedAccessKey={key};UseDevelopmentEmulator=true"

    def queue(self, name: str, **settings: Any) -> Queue:
        """Make a queue."""

        def make() -> Queue:
            return self.broker.queues.setdefault(name.lower(), Queue(name, **settings))

        return self.call(make)

    def topic(self, name: str, *subscriptions: str, **settings: Any) -> Topic:
        """Make a topic with its subscriptions, or add subscriptions to one."""

        def make() -> Topic:
            topic = self.broker.topics.setdefault(name.lower(), Topic(name))
            for one in subscriptions:
                topic.subscriptions.setdefault(one.lower(), Queue(f"{name}/Subscriptions/{one}", **settings))
            return topic

        return self.call(make)

    def hub(self, name: str, **settings: Any) -> Hub:
        """Make an event hub."""

        def make() -> Hub:
            return self.broker.hubs.setdefault(name.lower(), Hub(name, **settings))

        return self.call(make)

    def plan(self, operation: str, condition: str, **how: Any) -> None:
        """Refuse the next calls of an operation; see `Faults.plan`."""
        self.call(lambda: self.broker.faults.plan(operation, condition, **how))

    def freeze(self, operation: str, entity: str | None = None) -> None:
        """Answer no call of an operation, of one entity or of all."""
        self.call(lambda: self.broker.faults.freeze(operation, entity))

    def thaw(self, operation: str) -> None:
        """Answer again."""

        def thaw() -> None:
            self.broker.faults.thaw(operation)
            for queue in self.broker.every_queue():
                queue.pump()
            for hub in self.broker.hubs.values():
                for partition in hub.partitions:
                    for reader in list(partition.readers):
                        reader.pump()

        self.call(thaw)

    def disconnect(self) -> None:
        """Cut every connection now."""
        self.call(lambda: [connection.reset() for connection in list(self.broker.connections)])

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self.call(lambda: len(self.broker.connections))

    def mute(self, entity: str | None = None) -> None:
        """Take what is published and never say so, of one entity or of all."""
        self.call(lambda: self.broker.faults.mute(entity))

    def delay(self, seconds: float) -> None:
        """Let every answer come late."""

        def late() -> None:
            self.broker.faults.delay = seconds

        self.call(late)

    def expire_locks(self, match: Callable[[Stored], bool] | None = None) -> None:
        """End every lock now, of messages and of sessions; with `match`, those of the messages that match."""

        def end() -> None:
            for queue in self.broker.every_queue():
                if match is None:
                    queue.expire_all()
                    continue
                for message in [one for one in queue.locked.values() if match(one)]:
                    queue.unlock(message, failed=True)

        self.call(end)

    def end_sessions(self, condition: str = "amqp:internal-error") -> int:
        """End the AMQP session of every client, with an error; gives how many."""

        def end() -> int:
            found = [one for connection in self.broker.connections for one in connection.sessions.values()]
            for session in found:
                session.end(condition, "ended, as it was told to")
            return len(found)

        return self.call(end)

    def steal(self, hub: str, partition: str, *, group: str = "$Default", epoch: int = 100) -> None:
        """Take a partition from whoever reads it, as somebody with a higher epoch does, and keep it."""

        def take() -> None:
            found = self.broker.hubs[hub.lower()].partition(partition)
            assert found is not None, f"{hub} has no partition {partition}"
            found.stolen[group.lower()] = epoch
            for reader in [one for one in found.readers if one.group == group.lower()]:
                reader.link.detach(STOLEN, "New receiver with a higher epoch was created.")

        self.call(take)

    def detach(self, condition: str, *, match: Callable[[Link], bool] = lambda _: True) -> int:
        """Detach the links that match with an error; gives how many."""

        def work() -> int:
            found = [
                link
                for connection in self.broker.connections
                for session in connection.sessions.values()
                for link in session.links.values()
                if link.alive and match(link)
            ]
            for link in found:
                link.detach(condition, "detached, as it was told to")
            return len(found)

        return self.call(work)

    def counts(self, name: str) -> dict[str, int]:
        """Say how many messages of a queue are active, locked, deferred, scheduled and dead."""

        def work() -> dict[str, int]:
            queue = self.broker.find(name)
            assert isinstance(queue, Queue), f"no queue {name}"
            active, deferred, scheduled = (len(queue.of(state)) for state in range(3))
            return {
                "active": active, "locked": len(queue.locked), "deferred": deferred, "scheduled": scheduled,
                "dead": 0 if queue.is_dead else len(queue.dead.messages),
            }  # fmt: skip

        return self.call(work)

    def close(self) -> None:
        """Stop; every connection is cut."""

        async def stop() -> None:
            for server in (self._server, *self._administrations):
                server.close()
            # Whoever connects at this moment is accepted still, in several turns of the loop.
            while (tasks := asyncio.all_tasks() - {asyncio.current_task()}) or self.broker.connections:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                for connection in list(self.broker.connections):
                    connection.drop()
                    connection.reset()

        self._await(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.close()
