"""What the suites ask of a broker under test: a harness of about twenty lines."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from eventflows.errors import BrokerError
from eventflows.locate import capabilities, open_publisher, open_subscriber
from eventflows.message import Delivery, Message
from eventflows.protocols import Capabilities, Publisher, Subscriber

if TYPE_CHECKING:
    from eventflows.flow import Flow


class Faults(Protocol):
    """Ways to make a broker misbehave. A harness gives those that it has; a missing one skips its cases."""

    def fail(self, operation: str, error: BrokerError, *, times: int = 1) -> None:
        """Make the next calls of open, publish, receive, settle, extend or peek raise."""

    def fail_message(self, match: Callable[[Message], bool], error: BrokerError, *, times: int = 1) -> None:
        """Refuse to publish the messages that match."""

    def refuse_settlement(self, match: Callable[[Delivery], bool], error: BrokerError, *, times: int = 1) -> None:
        """Report the settlement of deliveries that match as failed."""

    def refuse_extension(self, error: BrokerError, *, times: int = 1) -> None:
        """Report the next extensions as failed."""

    def freeze(self, operation: str) -> None:
        """Accept calls of an operation and answer none of them, until `thaw`."""

    def thaw(self, operation: str) -> None:
        """Answer again."""

    def disconnect(self) -> None:
        """Drop every connection now."""

    def expire_leases(self) -> None:
        """End every lease now, as if its time were over."""


class Harness:
    """A broker under test. One is made for each test; what is dear to start belongs on the class."""

    name: ClassVar[str] = "this adapter"
    """What skips and failures call it."""
    allowed_skips: ClassVar[Mapping[str, str] | None] = None
    """Case (`C14`, `R08`) to reason, read as "<name> <reason>"; any other skip fails. None: every skip is allowed."""
    patience: ClassVar[float] = 30.0
    """Seconds after which something awaited counts as not happening."""
    quiet: ClassVar[float] = 1.0
    """Seconds of silence that count as "nothing comes"."""
    slack: ClassVar[float] = 1.0
    """Seconds by which a call may overrun its time-out, and a delay or lease be off."""
    lease: ClassVar[float] = 2.0
    """Seconds of the lease that `short_lease` gives."""
    short: ClassVar[float] = 1.0
    """Seconds of a time-out that calls must keep while nothing comes, or nobody answers."""
    unseen: ClassVar[float] = 0.0
    """Seconds for which nobody can see what a dead process held: `until_idle` must be longer where it matters. 0: a
    backlog shows it."""
    delay: ClassVar[float] = 2.0
    """Seconds of a RETRY's delay that can be told from none."""
    saturation: ClassVar[float] = 5.0
    """Seconds for which C43 holds everything that may be in flight."""
    volume: ClassVar[int] = 2000
    """Messages where a case needs many."""
    settlements_per_thousand: ClassVar[int] = 100
    """Calls of `settle` for 1,000 messages of a busy stream, at most."""
    source_options: ClassVar[Mapping[str, object]] = {}
    """Given to every subscriber and every flow."""
    destination_options: ClassVar[Mapping[str, object]] = {}
    """Given to every publisher and every flow that publishes."""
    replay_options: ClassVar[Mapping[str, object]] = {}
    """What a subscriber needs beyond that, so that settled messages are kept for new groups."""
    native_type: ClassVar[type | None] = None
    """The documented type of `Delivery.native`; None: not said."""

    # What every harness must give.

    def source_url(self, name: str) -> str:
        """Give the URL to read a topic or queue from."""
        raise NotImplementedError(f"{type(self).__name__} gives no source_url(name)")

    # What most can leave as it is.

    def destination_url(self, name: str) -> str:
        """Give the URL to publish to a topic or queue."""
        return self.source_url(name)

    def fresh(self) -> str:
        """Give the name of a topic or queue that nobody has used."""
        return f"conformance-{uuid.uuid4().hex[:12]}"

    def create(self, name: str) -> None:
        """Make the topic or queue, where the broker does not do so at its first use; several lanes, if it has any."""

    def close(self) -> None:
        """Undo what the test did: called once, after everything it opened was closed."""

    @property
    def capabilities(self) -> Capabilities:
        """Say what the broker claims to do."""
        return capabilities(self.source_url("capabilities"), dict(self.source_options), "source")

    def source(self, name: str, group: str | None = None, **options: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
        """Give URL and options of a source, for subscribers and flows alike."""
        grouped = {} if group is None else {"group": group}
        return self.source_url(name), {**self.source_options, **grouped, **options}

    def destination(self, name: str, **options: Any) -> tuple[str, dict[str, Any]]:  # noqa: ANN401
        """Give URL and options of a destination, for publishers and flows alike."""
        return self.destination_url(name), {**self.destination_options, **options}

    def subscriber(self, name: str, group: str | None = None, **options: Any) -> Subscriber:  # noqa: ANN401
        """Make a subscriber, not opened."""
        url, given = self.source(name, group, **options)
        return open_subscriber(url, **given)

    def publisher(self, name: str, **options: Any) -> Publisher:  # noqa: ANN401
        """Make a publisher, not opened."""
        url, given = self.destination(name, **options)
        return open_publisher(url, **given)

    def flow(self, flow: Flow[..., Any]) -> Flow[..., Any]:
        """Give the flow that is run in place of one; tests of the runner suite break it here."""
        return flow

    @property
    def body_limit(self) -> int | None:
        """Give the bytes of the largest body, of a message with nothing else; None: no limit."""
        return self.capabilities.max_publish_bytes

    def reason_of(self, dead: Delivery) -> str | None:
        """Read the reason from a dead letter of the broker's own."""
        return dead.message.headers.get("ef-reason")

    # Hooks. None: there is none; the cases that need it are skipped, or fail where `allowed_skips` says so.

    def short_lease(self) -> Mapping[str, object] | None:
        """Give the options of a subscriber whose leases last `lease` seconds."""
        return None

    def faults(self, name: str) -> Faults | None:
        """Give the ways to make the broker of a topic misbehave."""
        return None

    def restart(self, name: str) -> bool:
        """Restart the broker, everything closed; False: it cannot be restarted, and the suite opens again only."""
        return False

    def missing_url(self, side: Literal["source", "destination"]) -> str | None:
        """Give the URL of a topic or queue that does not exist, at a broker that answers."""
        return None

    def bad_credentials(self) -> tuple[str, Mapping[str, object], str] | None:
        """Give URL, options and the secret's text, of credentials that the broker refuses."""
        return None

    def secret_options(self) -> tuple[Mapping[str, object], str] | None:
        """Give options with a secret in them that the broker accepts, and the secret's text."""
        return None

    def unreachable_url(self) -> str | None:
        """Give the URL of a place where nobody listens."""
        return None

    def silent_url(self) -> str | None:
        """Give the URL of a peer that accepts connections and never answers."""
        return None

    def error_table(self) -> Iterable[tuple[BaseException, type[BrokerError], bool]] | None:
        """Give each native error with the class it must become, and whether it is retryable."""
        return None

    def translate(self, error: BaseException) -> BrokerError:
        """Turn a native error into ours, as the adapter does."""
        raise NotImplementedError(f"{type(self).__name__} gives an error_table() but no translate(error)")

    # Hooks of logs (settle="watermark").

    def committed(self, name: str, group: str | None = None) -> Mapping[str, int] | None:
        """Ask the broker for the committed position of each lane that has one."""
        return None

    def revoke(self, subscriber: Subscriber) -> bool:
        """Take every lane from a subscriber, as a rebalance does, and let no other have it; False: cannot."""
        return False

    def make_gaps(self, name: str) -> Iterable[bytes] | None:
        """Publish messages with gaps in their offsets between them; give the bodies, in order."""
        return None

    def recreate(self, name: str) -> bool:
        """Delete the topic and make it again, empty, of the same name; False: cannot."""
        return False

    def fetched_bytes(self, subscriber: Subscriber) -> int | None:
        """Ask the client how many bytes it has fetched."""
        return None

    def generation(self, name: str, group: str | None = None) -> int | None:
        """Ask the broker which generation of the group this is."""
        return None
