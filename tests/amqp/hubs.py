"""Event Hubs: partitions that are logs, readers with positions and epochs, and what `$management` says of them."""

from __future__ import annotations

import re
import time
import zlib
from typing import TYPE_CHECKING, Any, Final

from amqp.cbs import Node, reply
from amqp.codec import Array, CodecError, Described, Int, Long, Symbol, Timestamp
from amqp.frames import ACCEPTED, error, rejected
from amqp.link import Link
from amqp.stored import ENQUEUED, OFFSET, PARTITION_KEY, Stored, unpack

if TYPE_CHECKING:
    from amqp.server import Broker

MAX_PUBLICATION: Final = 1024 * 1024
EPOCH: Final = Symbol("com.microsoft:epoch")
METRICS: Final = Symbol("com.microsoft:enable-receiver-runtime-metric")
RESET: Final = "reset"
"""In place of a condition: the connection is cut; the client sends again by itself what is refused for a while."""
STOLEN: Final = "amqp:link:stolen"
_SELECTOR: Final = re.compile(r"amqp\.annotation\.(x-opt-[a-z-]+) (>=?) '([^']*)'")
_PLACE: Final = re.compile(r"([^/]+)(?:/consumergroups/([^/]+))?(?:/partitions/([^/]+))?$", re.IGNORECASE)


class Partition:
    """One log.

    Args:
        number: Its id.
        hub: The name of its hub.
    """

    def __init__(self, number: int, hub: str) -> None:
        self.id = str(number)
        self.hub = hub
        self.events: list[Stored] = []
        self.begin = 0
        """Number of the first event that is kept."""
        self.readers: list[Reader] = []
        self.stolen: dict[str, int] = {}
        """By group: the epoch of somebody else, whom no test shows, that has it."""
        self._end = 0

    @property
    def next(self) -> int:
        """Number of the next event."""
        return self.begin + len(self.events)

    def append(self, event: Stored) -> None:
        """Keep an event, and give it to those who wait."""
        event.number(self.next, time.time())
        event.annotations[OFFSET] = str(self._end)
        self._end += event.size + 64  # offsets are places in bytes, with gaps
        self.events.append(event)
        for reader in list(self.readers):
            reader.pump()

    def trim(self, first: int) -> None:
        """Let the events before a number go, as retention does."""
        gone = max(min(first, self.next) - self.begin, 0)
        del self.events[:gone]
        self.begin += gone

    def start(self, selector: str) -> int:
        """Find the number that a reader begins with."""
        found = _SELECTOR.search(selector)
        if found is None:
            return self.begin
        name, inclusive, value = found[1], found[2] == ">=", found[3]
        if value == "@latest":
            return self.next
        if value == "-1":
            return self.begin

        def place(event: Stored) -> int:
            return int(event.annotations[Symbol(name)])

        for event in self.events:
            if place(event) > int(value) or (inclusive and place(event) == int(value)):
                return event.sequence
        return self.next


class Hub:
    """An event hub.

    Args:
        name: Its name.
        partitions: How many.
        groups: Consumer groups beside `$Default`; None: whatever is asked for.
    """

    def __init__(self, name: str, *, partitions: int = 2, groups: tuple[str, ...] | None = ()) -> None:
        self.name = name
        self.made = time.time()
        self.partitions = [Partition(number, name) for number in range(partitions)]
        self._groups = None if groups is None else {"$default", *(group.lower() for group in groups)}
        self._turn = 0

    def has(self, group: str) -> bool:
        """Whether there is a consumer group of a name."""
        return self._groups is None or group.lower() in self._groups

    def partition(self, number: str) -> Partition | None:
        """Find a partition by its id."""
        return next((one for one in self.partitions if one.id == number), None)

    def choose(self, key: str | None) -> Partition:
        """Choose the partition of a key: a stable hash, not the service's; without a key, in turns."""
        if key is not None:
            return self.partitions[zlib.crc32(str(key).encode()) % len(self.partitions)]
        self._turn += 1
        return self.partitions[self._turn % len(self.partitions)]


class Inlet:
    """A link on which the client publishes to a hub, or to one partition of it."""

    def __init__(self, broker: Broker, hub: Hub, partition: Partition | None) -> None:
        self._broker = broker
        self._hub = hub
        self._partition = partition
        self.writes_to = hub.name

    def attached(self, link: Link) -> None:
        """Nothing to do."""

    def transfer(self, link: Link, payload: bytes, form: int) -> Described | None:
        """Keep what was published, all of it in one partition."""
        if len(payload) > MAX_PUBLICATION:
            return rejected(error("amqp:link:message-size-exceeded", f"{len(payload)} bytes are too many"))
        try:
            events = unpack(payload, form)
        except CodecError as cut:
            return rejected(error("amqp:decode-error", str(cut)))
        for event in events:
            refused = self._broker.faults.meets("publish", self._hub.name, event)
            if refused is not None and refused[0] == RESET:
                link.session.connection.reset()
                return None
            if refused is not None:
                return self._broker.faults.refusal(*refused)
        if events:
            place = self._partition or self._hub.choose(events[0].annotations.get(PARTITION_KEY))
            for event in events:
                place.append(event)
        return ACCEPTED

    def credited(self, link: Link) -> None:
        """Nothing to do: the client sends."""

    def settle(self, link: Link, tag: bytes, state: Described) -> Described | None:
        """Nothing of ours can be settled here."""
        return None

    def detached(self, link: Link) -> None:
        """Nothing to do."""


class Reader:
    """A link on which the client reads a partition from a position; nothing is settled."""

    def __init__(self, broker: Broker, partition: Partition, group: str, link: Link) -> None:
        self._broker = broker
        self._partition = partition
        self.link = link
        self.group = group.lower()
        epoch = link.properties.get(EPOCH)
        self.epoch = None if epoch is None else int(epoch)
        source = link.asked.source.value
        selectors = [str(one.value if isinstance(one, Described) else one) for one in link.filters.values()]
        self._next = partition.start(selectors[0] if selectors else "")
        wanted = [*source[10:11], link.asked.desired_capabilities]
        self._metrics = any(METRICS in (one if isinstance(one, list) else [one]) for one in wanted if one is not None)

    def ask(self) -> None:
        """Attach; a higher or equal epoch takes the partition from whoever has it."""
        rivals = [one for one in self._partition.readers if one.group == self.group and one.epoch is not None]
        mine = -1 if self.epoch is None else self.epoch
        epochs = [one.epoch or 0 for one in rivals] + [self._partition.stolen.get(self.group, -1)]
        if max(epochs) > mine:
            self.link.refuse(STOLEN, "A receiver with a higher epoch is connected.")
            return
        if self.epoch is not None:
            for one in [one for one in self._partition.readers if one.group == self.group]:
                one.link.detach(STOLEN, "New receiver with a higher or equal epoch was created.")
        self.link.accept(self)

    def attached(self, link: Link) -> None:
        """Read from now on."""
        self._partition.readers.append(self)

    def pump(self) -> None:
        """Send what there is, as far as there is credit."""
        partition = self._partition
        self._next = max(self._next, partition.begin)
        while self.link.alive and self.link.credit > 0 and not self._broker.faults.frozen("receive", partition.hub):
            if self._next >= partition.next:
                return
            event = partition.events[self._next - partition.begin]
            self._next += 1
            self.link.send(event.payload(extra=self._runtime() if self._metrics else None), tag=b"%d" % event.sequence)

    def _runtime(self) -> dict[Any, Any]:
        last = self._partition.events[-1]
        return {
            Symbol("last_enqueued_sequence_number"): Long(last.sequence),
            Symbol("last_enqueued_offset"): last.annotations[OFFSET],
            Symbol("last_enqueued_time_utc"): last.annotations[ENQUEUED],
            Symbol("runtime_info_retrieval_time_utc"): Timestamp(int(time.time() * 1000)),
        }

    def transfer(self, link: Link, payload: bytes, form: int) -> Described | None:
        """Nothing comes here."""
        return None

    def credited(self, link: Link) -> None:
        """Send what there is."""
        self.pump()

    def settle(self, link: Link, tag: bytes, state: Described) -> Described | None:
        """Events are settled when they are sent."""
        return None

    def detached(self, link: Link) -> None:
        """Stop."""
        if self in self._partition.readers:
            self._partition.readers.remove(self)


class HubManagement(Node):
    """`$management` of a namespace: what a hub and its partitions are."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def answer(self, link: Link, asked: dict[str, Any]) -> None:
        """Describe a hub, or a partition."""
        if self._broker.faults.frozen("open", "$management"):
            return
        values = asked["values"]
        hub = self._broker.hubs.get(str(values.get("name", "")).lower())
        kind = str(values.get("type", ""))
        number = str(values.get("partition", ""))
        partition = None if hub is None else hub.partition(number)
        body: dict[Any, Any] | None = None
        if hub is not None and kind == "com.microsoft:eventhub":
            body = {
                "name": hub.name, "type": kind, "created_at": Timestamp(int(hub.made * 1000)),
                "partition_count": Int(len(hub.partitions)),
                "partition_ids": Array(one.id for one in hub.partitions),
            }  # fmt: skip
        elif hub is not None and partition is not None and kind == "com.microsoft:partition":
            body = _described(hub, partition, kind)
        code, text = (200, "OK") if body is not None else (404, "The messaging entity could not be found.")
        reply(link, asked, {"status-code": Int(code), "status-description": text}, body)


def _described(hub: Hub, partition: Partition, kind: str) -> dict[Any, Any]:
    last = partition.events[-1] if partition.events else None
    return {
        "name": hub.name, "type": kind, "partition": partition.id,
        "begin_sequence_number": Long(partition.begin),
        "last_enqueued_sequence_number": Long(partition.next - 1),
        "last_enqueued_offset": "-1" if last is None else last.annotations[OFFSET],
        "last_enqueued_time_utc": Timestamp(0) if last is None else last.annotations[ENQUEUED],
        "is_partition_empty": last is None,
    }  # fmt: skip


def attach(broker: Broker, link: Link, path: str) -> bool:
    """Attach a link to a hub; false: no hub has this name."""
    found = _PLACE.match(path)
    hub = broker.hubs.get(found[1].lower()) if found else None
    if found is None or hub is None:
        return False
    group, number = found[2], found[3]
    partition = None if number is None else hub.partition(number)
    if number is not None and partition is None:
        link.refuse("com.microsoft:argument-out-of-range", f"The hub has no partition {number}.")
    elif not link.sends:
        link.accept(Inlet(broker, hub, partition), max_message=MAX_PUBLICATION)
    elif group is None or not hub.has(group) or partition is None:
        link.refuse("amqp:not-found", f"The messaging entity '{path}' could not be found.")
    else:
        Reader(broker, partition, group, link).ask()
    return True
