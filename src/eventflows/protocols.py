"""The adapter contract: what the core asks of every broker, and what an adapter may rely on.

An adapter translates; it does not decide. It receives, publishes, settles, extends and names the error. It never
retries, never decodes, knows nothing of `apply`, and keeps no message that the core has not asked for. Everything
portable (retries, order, leases, batching, drain) is written once, above this contract.

One thread at a time owns a subscriber; only `wake` may be called from another. A publisher serves any number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

import attrs

from eventflows.errors import BrokerError
from eventflows.message import Chunk, Delivery, Lane, Message
from eventflows.policy import Settlement


@attrs.frozen(kw_only=True)
class Capabilities:
    """What a broker can do, as data. What it cannot is refused at the start, never discovered at night."""

    settle: Literal["message", "watermark"]
    """`message`: each delivery alone; `watermark`: the end of the unbroken prefix of a lane is committed."""
    redeliver: bool = False
    """RETRY is accepted: the broker hands the message out again."""
    redeliver_delay: float = 0.0
    """Longest delay, in seconds, that RETRY honours; 0: at once only."""
    release: Literal["free", "counts", "never"] = "never"
    """What RELEASE costs: nothing, a delivery count, or it takes effect only when the claim ends."""
    dead_letter: bool = False
    """DEAD_LETTER is accepted: the broker keeps dead letters itself."""
    delivery_count: bool = False
    """`Delivery.attempt` is the broker's own count."""
    max_deliveries: int | None = None
    """Deliveries after which the broker itself puts a message with its dead letters; None: it never does."""
    lease: Literal["none", "message", "lane"] = "none"
    """What has a lease that `extend` prolongs."""
    lease_limit: float | None = None
    """Seconds for which one delivery can be held in all; None: no limit."""
    stateless: bool = False
    """Each call is a request of its own: what is held outlives one that failed, so nothing needs to be opened again."""
    ordering: Literal["none", "key", "lane"] = "none"
    """`key`: messages of one key are handed out in order; `lane`: every lane has order, and so have its keys."""
    groups: bool = False
    """Independent groups each get everything."""
    replay: bool = False
    """A new group starts at the oldest message that is kept."""
    durable: bool = True
    """What was confirmed survives the end of this process."""
    peek: Literal["free", "counts"] | None = None
    """Whether messages can be looked at without being taken, and whether that counts as a delivery."""
    receivers: int = 0
    """Threads that may call `receive` beside the pump."""
    min_slice: float = 0.02
    """Shortest useful time-out of `receive`, in seconds."""
    publish_window: int = 1
    """Batches that may be in flight at once."""
    max_receive: int = 1000
    """Most messages of one `receive` that make sense."""
    max_publish: int | None = None
    """Most messages of one call of the service; the adapter splits; None: no limit."""
    max_publish_bytes: int | None = None
    """Most bytes of one message, body, key and headers together; None: no limit."""
    max_headers: int | None = None
    """Most headers of one message; None: no limit."""
    needs_key: bool = False
    """Every message published must have a key (FIFO queues, sessions)."""
    transactions: bool = False
    """Outputs and the position that they were made from can be committed as one."""


class PublishResult(NamedTuple):
    """What became of one message, in input order."""

    id: str | None = None
    """The message's id at the broker; None when it was not published, or had none and the broker gives none."""
    error: BrokerError | None = None
    """Why it was not published; None when it was.

    Three kinds: *retryable* (send it **and every later message with its key** again, in order); *the message's own
    fault* (`TooLargeError`, `InvalidMessageError`); *the destination's* (any other)."""


@attrs.frozen
class SettleFailure:
    """A delivery whose verdict did not take effect."""

    delivery: Delivery
    error: BrokerError
    """`LeaseLostError`: it was a no-op, the message comes again. Retryable: settle it again."""


@attrs.frozen
class ExtendResult:
    """What became of one lease, in input order."""

    held: Delivery | Lane
    until: float | None = None
    """The new end, in `time.monotonic()` seconds; None when it was not extended."""
    error: BrokerError | None = None
    """Why there is none; `LeaseLostError`: others may have the message now."""


@attrs.frozen(kw_only=True)
class Backlog:
    """What waits for this subscription, not counting what is held."""

    waiting: int | None = None
    """Messages, delayed ones included; None: the broker does not say."""
    by_lane: Mapping[str, int] = attrs.field(factory=dict)
    oldest_age: float | None = None
    """Seconds since the oldest of them was published; None: nothing waits, or the broker does not say."""


@attrs.frozen
class Finding:
    """One line of `eventflows check`, with what the flow's options are compared with, where it is about that."""

    level: Literal["ok", "warning", "error"]
    text: str
    fix: str = ""  # what to do about it; empty when it is ok
    lanes: int | None = None  # of the topic, all of them
    deliveries: int | None = None  # after so many the broker moves a message to its dead letters itself


@attrs.frozen
class Gap:
    """Messages that the broker removed before they were read: its retention overtook the position."""

    lane: Lane
    first: str
    """The position of the first of them, as `Delivery.position`."""
    last: str


class Pending(Protocol):
    """A batch on its way to the broker."""

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the broker's answers: one per message, in input order.

        A message that the broker did not answer for in time has an `OutcomeUnknownError`.

        Args:
            timeout: Seconds, at most.
        """


class Publisher(Protocol):
    """Writes to one topic or queue; safe from any thread. `with` opens and closes it."""

    capabilities: Capabilities

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect. Opening an open one closes the old client first.

        A missing topic or queue need not be noticed here; the first use raises `NotFoundError`.

        Raises:
            BrokerError: By its class: what to mend, or that it is worth trying again.
        """

    def send(self, batch: Sequence[Message]) -> Pending:
        """Start to publish; opens at the first call. Messages of one key keep their order.

        Args:
            batch: Of any length; the adapter splits it to the service's limits in count and bytes.

        Raises:
            ClosedError: It was closed. Nothing of the batch was sent.
            BrokerError: Nothing of the batch was sent; by its class, try again or mend.
        """

    def publish(self, batch: Sequence[Message], *, timeout: float = 30.0) -> list[PublishResult]:
        """Publish and wait for the answers: one per message, in input order.

        One bad message fails alone. A result without an error means that the broker has the message.

        Args:
            batch: Of any length; the adapter splits it to the service's limits in count and bytes.
            timeout: Seconds to wait; what has no answer by then has an `OutcomeUnknownError` in its result.

        Raises:
            ClosedError: It was closed. Nothing of the batch was sent.
            BrokerError: Nothing of the batch was sent; by its class, try again or mend.
        """

    def close(self, *, timeout: float = 30.0) -> None:
        """Send what was given to `send`, then disconnect; the second call does nothing."""

    def __enter__(self) -> Self:
        """Open it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


class Subscriber(Protocol):
    """Reads one subscription; one owner at a time. `with` opens and closes it."""

    capabilities: Capabilities
    ready: bool
    """Joined, assigned, linked: it can receive."""

    def open(self, *, timeout: float = 30.0) -> None:
        """Connect and join. Opening an open one closes the old client and loses every lane and lease.

        Raises:
            BrokerError: By its class: what to mend, or that it is worth trying again.
        """

    def receive(self, limit: int, *, max_bytes: int, timeout: float, skip: Collection[Lane] = ()) -> Sequence[Chunk]:
        """Take messages; returns as soon as there are some, and `[]` when there are none in time.

        What the client fetched ahead counts against `limit` and `max_bytes`. Receiving a message again that is
        still held (same `identity`) replaces its handle in place and returns nothing for it.

        Args:
            limit: Most messages; 0 keeps the connection and the membership alive and delivers nothing.
            max_bytes: Most bytes of bodies; one message larger than this is delivered alone.
            timeout: Seconds, at most.
            skip: Lanes not to deliver from; at most one chunk of each may be held back.

        Raises:
            ClosedError: It was closed.
            BrokerError: Retryable: the core backs off and opens again. Otherwise mend what it says.
        """

    def settle(
        self, settlements: Sequence[Settlement], *, durable: bool = False, timeout: float = 30.0
    ) -> Sequence[SettleFailure]:
        """Note the last word on deliveries, in the order given; everything is attempted.

        A delivery of a lost lane or lease is a no-op, reported as `LeaseLostError`; so is a second settlement.

        Args:
            settlements: ACK and RELEASE are always accepted.
            durable: Return after the broker confirmed; otherwise it may be noted only, until `flush`.
            timeout: Seconds, at most.

        Raises:
            CapabilityError: A verdict that this broker cannot carry out. Nothing was attempted.
            BrokerError: Nothing was attempted.
        """

    def extend(
        self, held: Sequence[Delivery | Lane], seconds: float, *, timeout: float = 10.0
    ) -> Sequence[ExtendResult]:
        """Keep these deliveries from other consumers for longer.

        The time runs from this call. One that could not be extended says so in its result; the others keep their
        new lease. A `Delivery`'s `lease_until` is updated in place. What is lost (`LeaseLostError`) is held no more.

        Args:
            held: Received from this subscriber and not settled yet; a lane where the lane is what is leased.
            seconds: Length of the new lease.
            timeout: Seconds, at most.

        Raises:
            CapabilityError: This broker has no lease to extend.
            BrokerError: Nothing was attempted; the leases run on.
        """

    def flush(self, *, timeout: float) -> Sequence[SettleFailure]:
        """Bring to the broker what was settled; returns what did not take effect."""

    def backlog(self, *, timeout: float = 10.0) -> Backlog | None:
        """Say what waits; None: the broker cannot say."""

    def wake(self) -> None:
        """Make a blocked `receive` return early; from any thread, and before the next `receive` too."""

    def close(self, *, timeout: float = 30.0) -> None:
        """Flush what was settled, hand back the rest, acknowledge nothing; the second call does nothing.

        Raises:
            BrokerError: What was settled could not be flushed; those messages may come again.
        """

    def __enter__(self) -> Self:
        """Open it."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


@runtime_checkable
class Browsable(Protocol):
    """A subscriber that can look without taking."""

    def peek(self, limit: int, *, start: str | None = None, timeout: float) -> Sequence[Delivery]:
        """Look at messages that wait, oldest first; they cannot be settled, and no membership is needed.

        Args:
            limit: Most messages.
            start: The position to begin after; None: the group's own.
            timeout: Seconds, at most.
        """


@runtime_checkable
class Checkable(Protocol):
    """An adapter that can say what is wrong before anything runs."""

    def check(self) -> Sequence[Finding]:
        """Look at everything that a flow needs of the broker; changes nothing."""


@runtime_checkable
class Listable(Protocol):
    """An adapter that knows what its broker has."""

    def entities(self) -> Sequence[str]:
        """Give the names of topics or queues, sorted."""


@runtime_checkable
class DeadLettered(Protocol):
    """A subscriber whose broker keeps dead letters."""

    def dead_letters(self) -> Subscriber:
        """Give a subscriber of them, not opened."""


@runtime_checkable
class Expiring(Protocol):
    """A subscriber whose broker removes messages by itself, read or not."""

    def gaps(self) -> Sequence[Gap]:
        """Give what was found missing since the last call; the core asks after every `receive`, and tells observers."""


@runtime_checkable
class TransactionalSource(Protocol):
    """A subscriber whose position can be committed together with outputs."""

    def share_transactions(self, publishers: Sequence[Publisher]) -> None:
        """Commit positions only by transactions from now on; called once, open, before the first receive.

        `settle` only notes from then on, and what was not part of a transaction comes again.

        Args:
            publishers: All that take part, open: the one that will `transact` first.

        Raises:
            CapabilityError: They do not share transactions with this source.
        """

    def claim_position(self, settlements: Sequence[Settlement]) -> object | None:
        """Give what `transact` is to commit for these; None: nothing is new. Called by the owner.

        Args:
            settlements: ACK only: of each lane everything up to some message, and nothing beyond an unfinished one.
                Empty: what the adapter itself has to note, such as new claims.

        Raises:
            LeaseLostError: One of the lanes is lost. Look again.
        """


@runtime_checkable
class TransactionalDestination(Protocol):
    """A publisher that commits outputs and position as one."""

    def transact(
        self, parts: Sequence[tuple[Publisher, Sequence[Message]]], position: object, *, timeout: float = 30.0
    ) -> list[PublishResult]:
        """Publish and commit; when any result has an error, nothing of it was done.

        Args:
            parts: What goes where, in order; each publisher was given to `share_transactions`.
            position: As `claim_position` gave it.
            timeout: Seconds, at most.

        Raises:
            LeaseLostError: Nothing was done; a lane was lost. Claim again.
            OutcomeUnknownError: It is not known; open the source again, and its positions tell.
            BrokerError: Nothing was done.
        """


@attrs.frozen(kw_only=True)
class Location:
    """A source or destination URL, taken apart; secrets are never in one."""

    scheme: str
    authority: str
    """Hosts, region, namespace or name, as written: names keep their case."""
    path: str
    """What follows the authority, without the first slash; percent signs decoded."""
    query: Mapping[str, str] = attrs.field(factory=dict)
    """The options of the URL, decoded; a bare one (`&dead-letter`) has an empty value."""
    text: str
    """The URL as it is shown."""


@attrs.frozen(kw_only=True)
class Option:
    """One option of an adapter: in the URL, as a keyword, or from the environment."""

    name: str
    """As in the URL; a keyword that Python reserves gets an underscore (`from_`)."""
    parse: Callable[[Any], object]
    """Turns text (from a URL or the environment) or a value (a keyword) into the option's value; raises `ValueError`
    with a text that says what was expected."""
    about: str
    """What it means, with unit and default, in one line."""
    url_only: bool = False
    """Whether it is part of the URL only."""


@attrs.frozen(kw_only=True)
class AdapterSpec:
    """What an adapter registers, under the entry-point group `eventflows.adapters`, by its scheme.

    Importing the module that holds it must not import the vendor's client.
    """

    scheme: str
    form: str
    """The URL's form, shown in errors: `local://name?file=flows.db`."""
    capabilities: Callable[[Location, Mapping[str, object]], Capabilities]
    """What is known before connecting, for checks at decoration."""
    validate: Callable[[Location, Mapping[str, object], Literal["source", "destination"]], None]
    """Raises `ConfigError` when the URL or the options do not fit together; connects to nothing."""
    subscriber: Callable[[Location, Mapping[str, object]], Subscriber]
    """Makes one, not opened; raises `MissingExtraError` when the client is not installed."""
    publisher: Callable[[Location, Mapping[str, object]], Publisher]
    """Makes one, not opened; raises `MissingExtraError` when the client is not installed."""
    source_options: Sequence[Option] = ()
    destination_options: Sequence[Option] = ()
