"""Messages, and the deliveries of them in columns."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, overload

import attrs

from eventflows.errors import ConfigError

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_NO_OPTIONS: Final[Mapping[str, object]] = MappingProxyType({})


def _shown(body: bytes | None) -> str:
    return "None" if body is None else f"<{len(body)} bytes>"


def sizes_of(bodies: Sequence[bytes | None]) -> list[int]:
    """Count the bytes of each body; a body of None has none."""
    try:
        return list(map(len, bodies))  # type: ignore[arg-type]
    except TypeError:
        return [len(body or b"") for body in bodies]


@attrs.frozen
class Message:
    """What is published: bytes, headers and a key. Frozen."""

    body: bytes | None = attrs.field(repr=_shown)
    """The bytes; None only on Kafka, where it is a tombstone."""
    headers: Mapping[str, str] = attrs.field(default=_NOTHING, kw_only=True, repr=False)
    """Text to text."""
    key: str | None = attrs.field(default=None, kw_only=True)
    """Messages with one key keep their order, where the broker has order; None: no order."""
    id: str | None = attrs.field(default=None, kw_only=True)
    """Stable across attempts to publish it; None: the broker or the library gives one."""
    content_type: str | None = attrs.field(default=None, kw_only=True)
    """A media type such as `application/json`; None: not said."""
    options: Mapping[str, object] = attrs.field(default=_NO_OPTIONS, kw_only=True)
    """The broker's own: partition, timestamp, delay; an unknown one is an `InvalidMessageError`."""

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with plain dicts, so that it crosses processes: read-only mappings cannot be pickled."""
        values = (self.body, dict(self.headers), self.key, self.id, self.content_type, dict(self.options))
        return _unpickled_message, values


def _unpickled_message(
    body: bytes | None,
    headers: Mapping[str, str],
    key: str | None,
    id: str | None,
    content_type: str | None,
    options: Mapping[str, object],
) -> Message:
    return Message(
        body, headers=headers or _NOTHING, key=key, id=id, content_type=content_type, options=options or _NO_OPTIONS
    )


class Batch(Sequence[Message]):
    """Messages on their way out, in columns: what a `Chunk` is to deliveries.

    A `Message` is made only when somebody asks for one. Publishers take any sequence of
    messages; `Batch.of` gives its columns at once, so that none of them needs two ways.

    Args:
        bodies: One for each message; this and the other columns are not copied.
        headers: One mapping for each message.
        keys: One for each message.
        ids: One for each message.
        content_types: One for each message.
        options: One mapping for each message.
    """

    __slots__ = ("_size", "bodies", "content_types", "headers", "ids", "keys", "options")

    def __init__(
        self,
        bodies: Sequence[bytes | None],
        *,
        headers: Sequence[Mapping[str, str]] | None = None,
        keys: Sequence[str | None] | None = None,
        ids: Sequence[str | None] | None = None,
        content_types: Sequence[str | None] | None = None,
        options: Sequence[Mapping[str, object]] | None = None,
    ) -> None:
        self._size: int | None = None
        none = (None,) * len(bodies)
        self.bodies = bodies
        self.headers = (_NOTHING,) * len(bodies) if headers is None else headers
        self.keys: Sequence[str | None] = none if keys is None else keys
        self.ids: Sequence[str | None] = none if ids is None else ids
        self.content_types: Sequence[str | None] = none if content_types is None else content_types
        self.options = (_NO_OPTIONS,) * len(bodies) if options is None else options

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Batch:
        """Give the columns of messages; a batch is given back as it is."""
        if type(messages) is Batch:
            return messages
        return cls(
            [message.body for message in messages],
            headers=[message.headers for message in messages],
            keys=[message.key for message in messages],
            ids=[message.id for message in messages],
            content_types=[message.content_type for message in messages],
            options=[message.options for message in messages],
        )

    @classmethod
    def join(cls, parts: Sequence[Sequence[Message]]) -> Batch:
        """Make one batch of several, in order."""
        batches = [cls.of(part) for part in parts]
        if len(batches) == 1:
            return batches[0]
        flat = itertools.chain.from_iterable
        whole = cls(
            list(flat([batch.bodies for batch in batches])),
            headers=list(flat([batch.headers for batch in batches])),
            keys=list(flat([batch.keys for batch in batches])),
            ids=list(flat([batch.ids for batch in batches])),
            content_types=list(flat([batch.content_types for batch in batches])),
            options=list(flat([batch.options for batch in batches])),
        )
        if all(batch._size is not None for batch in batches):
            whole._size = sum(batch.size for batch in batches)
        return whole

    def __len__(self) -> int:
        """Count the messages."""
        return len(self.bodies)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    def __getitem__(self, index: int | slice) -> Message | Batch:
        """Make the message at an index, or a batch of a stretch."""
        if isinstance(index, slice):
            return Batch(
                self.bodies[index],
                headers=self.headers[index],
                keys=self.keys[index],
                ids=self.ids[index],
                content_types=self.content_types[index],
                options=self.options[index],
            )
        return Message(
            self.bodies[index],
            headers=self.headers[index],
            key=self.keys[index],
            id=self.ids[index],
            content_type=self.content_types[index],
            options=self.options[index],
        )

    @property
    def size(self) -> int:
        """Bytes of all bodies."""
        if self._size is None:
            self._size = sum(sizes_of(self.bodies))
        return self._size

    def __repr__(self) -> str:
        """Show how many, never what."""
        return f"Batch(<{len(self.bodies)} messages>)"


class Messages:
    """Several messages as one result of `apply`; each element is a value or a `Message`.

    Args:
        values: Published in this order; an element that is None publishes nothing.
    """

    __slots__ = ("values",)

    def __init__(self, values: Iterable[object] = ()) -> None:
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
            raise ConfigError("Messages([...]) takes a sequence of results, not one result.")
        self.values: tuple[object, ...] = tuple(values)

    def __len__(self) -> int:
        """Count the results."""
        return len(self.values)

    def __iter__(self) -> Iterator[object]:
        """Give them one after another."""
        return iter(self.values)

    def __getitem__(self, index: int) -> object:
        """Give one of them."""
        return self.values[index]

    def __eq__(self, other: object) -> bool:
        """Compare the results."""
        return self.values == other.values if isinstance(other, Messages) else NotImplemented

    def __hash__(self) -> int:
        """Hash as compared; results that cannot be hashed raise `TypeError`."""
        return hash(self.values)

    def __repr__(self) -> str:
        """Show how many, never what."""
        return f"Messages(<{len(self.values)} results>)"


class Lane:
    """A unit of order and ownership: a partition claim, a FIFO group, a session.

    A new claim is a new `Lane`, even of the same name: identity is what counts.

    Args:
        name: Fit for logs, such as `images/3`.
    """

    __slots__ = ("__weakref__", "_lost", "lock", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.lock = threading.Lock()
        """Held by the adapter while it checks `lost` and commits."""
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether this claim has ended; it never comes back."""
        return self._lost

    def lose(self) -> None:
        """End the claim. For adapters, which call it with `lock` held."""
        self._lost = True

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the name: another process gets a lane of its own, of the same name."""
        return Lane, (self.name,)

    def __repr__(self) -> str:
        """Show the name and whether the claim has ended."""
        return f"Lane({self.name!r}{', lost' if self._lost else ''})"


@attrs.define(eq=False, kw_only=True)
class Delivery:
    """One handing-over of a message. It has no methods: the core decides, `settle` does it."""

    message: Message = attrs.field(repr=False, on_setattr=attrs.setters.frozen)
    source: str = attrs.field(on_setattr=attrs.setters.frozen)
    """The source's URL, without secrets."""
    position: str = attrs.field(on_setattr=attrs.setters.frozen)
    """Stable text: `3:1042`, a sequence number, a message id."""
    identity: str = attrs.field(repr=False, on_setattr=attrs.setters.frozen)
    """The same when the same message is received again."""
    lane: Lane | None = attrs.field(default=None, on_setattr=attrs.setters.frozen)
    attempt: int = attrs.field(default=1, on_setattr=attrs.setters.frozen)
    """The broker's count where it has one, else 1; the first hand-over is 1."""
    lease_until: float | None = attrs.field(default=None, repr=False)
    """When the lease ends, in `time.monotonic()` seconds; None: no lease."""
    enqueued_at: datetime | None = attrs.field(default=None, repr=False, on_setattr=attrs.setters.frozen)
    """When it was published, with a time zone; None: the broker does not say."""
    native: object = attrs.field(default=None, repr=False)
    """The client's own object, documented by each adapter; None in another process."""

    @property
    def key(self) -> str | None:
        """The message's key."""
        return self.message.key

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.message.body or b"")


class Chunk(Sequence[Delivery]):
    """Contiguous messages of one lane, or of no lane, in columns.

    Deliveries are built when somebody asks, once each. Adapters subclass it when they
    want columns of their own beside these (receipt handles, offsets).

    Args:
        bodies: One for each message.
        build: Makes the delivery at an index, from 0; called at most once for each.
        lane: The lane of all of them; None when they have no order beyond their keys.
        keys: One for each message; None when no message has a key, or no order needs them.
        sizes: Bytes of each body; None: measured when asked for.
        content_types: One for each message; None when none says a content type.
        headers: One mapping for each message, or None; None when no message has headers.
        positions: One for each message, as `Delivery.position`; None: asked of the delivery.
        attempt: The highest attempt of any of them; more than 1 makes the core look at each.
        lease_until: When the first of their leases ends, in `time.monotonic()` seconds; None: no lease.
    """

    __slots__ = (
        "_build",
        "_built",
        "_sizes",
        "attempt",
        "bodies",
        "content_types",
        "headers",
        "keys",
        "lane",
        "lease_until",
        "positions",
    )

    def __init__(
        self,
        bodies: list[bytes | None],
        build: Callable[[int], Delivery],
        *,
        lane: Lane | None = None,
        keys: Sequence[str | None] | None = None,
        sizes: Sequence[int] | None = None,
        content_types: Sequence[str | None] | None = None,
        headers: Sequence[Mapping[str, str] | None] | None = None,
        positions: Sequence[str] | None = None,
        attempt: int = 1,
        lease_until: float | None = None,
    ) -> None:
        self.bodies = bodies
        self.lane = lane
        self.keys = keys
        self.content_types = content_types
        self.headers = headers
        self.positions = positions
        self.attempt = attempt
        self.lease_until = lease_until
        self._sizes = sizes
        self._build = build
        self._built: dict[int, Delivery] = {}

    @property
    def sizes(self) -> Sequence[int]:
        """Bytes of each body."""
        if self._sizes is None:
            self._sizes = sizes_of(self.bodies)
        return self._sizes

    def position(self, index: int) -> str:
        """Give the position of one message without building its delivery where the adapter can."""
        return self[index].position if self.positions is None else self.positions[index]

    def positions_of(self, start: int, stop: int) -> Sequence[str]:
        """Give the positions of a stretch, as `position` does."""
        if self.positions is not None:
            return self.positions[start:stop]
        return [self.position(index) for index in range(start, stop)]

    def __len__(self) -> int:
        """Count the messages."""
        return len(self.bodies)

    @overload
    def __getitem__(self, index: int) -> Delivery: ...
    @overload
    def __getitem__(self, index: slice) -> list[Delivery]: ...
    def __getitem__(self, index: int | slice) -> Delivery | list[Delivery]:
        """Build the delivery at an index, or give the one built before."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self.bodies)))]
        if index < 0:
            index += len(self.bodies)
        if not 0 <= index < len(self.bodies):
            raise IndexError(f"a chunk of {len(self.bodies)} has no delivery {index}")
        delivery = self._built.get(index)
        if delivery is None:
            delivery = self._built.setdefault(index, self._build(index))
        return delivery

    def __iter__(self) -> Iterator[Delivery]:
        """Build them one after another."""
        return (self[i] for i in range(len(self.bodies)))

    def __repr__(self) -> str:
        """Show the lane and how many, never what."""
        return f"Chunk({self.lane!r}, <{len(self.bodies)} messages>)"
