"""What the adapter needs of a client, and which client it is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from eventflows.errors import BrokerError
from eventflows.protocols import Location, PublishResult

if TYPE_CHECKING:
    from eventflows.adapters._kafka_chunks import Claim, Committed
    from eventflows.adapters._kafka_records import Outgoing

TRANSACTION_SECONDS: Final = 10.0
"""After this the brokers end a transaction by themselves; a successor does not wait for it, it ends it."""

NO_PARTITION: Final = 2**31 - 1
"""One that no topic has: its position can be asked for, and nobody's transaction has to end first."""

MISSING_SECONDS: Final = 5.0
"""A topic that was there, and is not, is gone after this: before, it may be made anew."""

Options = Mapping[str, object]
Records = list[Any]
"""The client's own records, of one partition, in order."""


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Topic(NamedTuple):
    """What can be seen of a topic."""

    partitions: int = 0
    """0: it is not there, or may not be seen."""
    denied: bool = False
    """Whether it may not even be seen."""
    rights: Collection[str] | None = None
    """What we may do with it, such as READ; None: the broker does not say."""


class Standing(NamedTuple):
    """How a group stands."""

    state: str = "Dead"
    """As Kafka names it."""
    members: int = 0
    protocol: str = ""
    """The kind of group; empty: nobody has used it yet."""
    rights: Collection[str] | None = None


class Columns(Protocol):
    """Reads the client's records."""

    def bodies(self, records: Records) -> list[bytes | None]:
        """Give the body of each."""
        ...

    def keys(self, records: Records) -> list[bytes | None]:
        """Give the key of each."""
        ...

    def headers(self, records: Records) -> list[list[tuple[str, bytes | None]] | None] | None:
        """Give the headers of each; None: none has any."""
        ...

    def partition(self, record: Any) -> Partition:  # noqa: ANN401 - the client's own
        """Say where it is from."""
        ...

    def offset(self, record: Any) -> int:  # noqa: ANN401 - the client's own
        """Give its offset."""
        ...

    def timestamp(self, record: Any) -> int:  # noqa: ANN401 - the client's own
        """Give when it was published, in milliseconds; below 0: nobody says."""
        ...


class Consumer(Protocol):
    """What can be asked of a consumer, whether it is a member or not. Everything raises `BrokerError`."""

    @property
    def columns(self) -> Columns:
        """Reads its records."""
        ...

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: it does not say."""
        ...

    def look(self, topics: Sequence[str], timeout: float) -> None:
        """Ask for topics by name: `partitions` and `denied` know of them then."""
        ...

    def topics(self) -> Collection[str]:
        """Give the names of all topics that we may see."""
        ...

    def partitions(self, topic: str) -> Sequence[int]:
        """Give its partitions as far as known; empty: it is not there."""
        ...

    def denied(self, topic: str) -> bool:
        """Say whether it is known that the topic may not be used."""
        ...

    def find_group(self, timeout: float) -> None:
        """See that the group may be used."""
        ...

    def committed(
        self, partitions: Collection[Partition], timeout: float, *, stable: bool = True
    ) -> dict[Partition, Committed]:
        """Give what the group has committed; partitions of which it has nothing are left out.

        Args:
            partitions: Of any topic.
            timeout: Seconds.
            stable: Whether to wait for the end of transactions that are to move a position.
        """
        ...

    def firsts(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, int]:
        """Give the oldest offset of each."""
        ...

    def ends(self, partitions: Collection[Partition], timeout: float) -> dict[Partition, int]:
        """Give one past the newest offset of each that may be read."""
        ...

    def at_time(self, partitions: Collection[Partition], time: int, timeout: float) -> dict[Partition, int]:
        """Give the offset of the first message at or after a time, in milliseconds; without one, left out."""
        ...


class Answer(Protocol):
    """What became of a commit."""

    @property
    def done(self) -> bool:
        """Whether it is known."""
        ...

    @property
    def error(self) -> BrokerError | None:
        """Why it failed: `SettlingError`, `LeaseLostError` when we are no member any more, or another."""
        ...


class Member(Consumer, Protocol):
    """A consumer that is, or becomes, a member. One thread at a time calls it; `ring` may be called from any."""

    @property
    def joined(self) -> bool:
        """Whether it has a place in the group."""
        ...

    @property
    def settled(self) -> bool:
        """Whether nothing of the group has to be done before messages come."""
        ...

    def join(self, topics: Sequence[str], pattern: str | None) -> None:
        """Begin to join; a pattern is over all topics."""
        ...

    def poll(self, limit: int, timeout: float, held: Collection[Partition], woken: Callable[[], bool]) -> None:
        """Work until there are records, time is over or `woken`; the keeper is told of everything.

        Args:
            limit: Messages, at most; 0: only what membership needs.
            timeout: Seconds.
            held: Partitions of which nothing is wanted now.
            woken: Whether to return early; asked again after `ring`.
        """
        ...

    def prepare_bell(self) -> None:
        """Have something to wait for that `ring` can end; before looking whether anybody rang."""
        ...

    def ring(self) -> None:
        """End a poll that waits."""
        ...

    def passed(self) -> Mapping[Partition, int]:
        """Give the offsets below which nothing more comes, though there may be no message just below."""
        ...

    def subscribed(self) -> Collection[str]:
        """Give the topics, those that a pattern found included."""
        ...

    def identities(self) -> Mapping[str, object]:
        """Give what tells a topic of our claims from one that has its name later, as far as it is known."""
        ...

    def read_from(self, starts: Mapping[Partition, int]) -> None:
        """Read partitions that are ours from elsewhere."""
        ...

    def begin_commit(self, said: Mapping[Partition, Committed]) -> Answer:
        """Commit without waiting."""
        ...

    def commit(self, said: Mapping[Partition, Committed], timeout: float) -> None:
        """Commit, and wait; raises what `Answer.error` gives."""
        ...

    def probe(self, timeout: float) -> None:
        """See that the group may still be used; waits for no transaction."""
        ...

    def credentials(self) -> Any:  # noqa: ANN401 - the client's own
        """Give what a transaction shows: who we are in the group, and of which generation; None: we are not in it."""
        ...

    def close(self, timeout: float) -> None:
        """Leave, and disconnect; commits nothing."""
        ...


class Keeper(Protocol):
    """Whom a member tells."""

    claims: dict[Partition, Claim]

    def claim(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Partitions are ours now; gives where each is read from."""
        ...

    def fence(self, partitions: Iterable[Partition]) -> list[Claim]:
        """Partitions are not ours any more; gives the claims that had not ended."""
        ...

    def moving(self, claims: list[Claim], tell: Callable[[], None]) -> Mapping[Partition, Committed] | None:
        """Give what is to be committed of claims before they move; None: wait until `tell` is called instead."""
        ...

    def fetched(self, partition: Partition, records: Records) -> None:
        """Records came."""
        ...

    def stashed(self, partition: Partition) -> int:
        """Count the records that came and were not handed out."""
        ...

    def out_of_range(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """The log does not have what was to come next; gives where each is read from now."""
        ...


class Reader(Consumer, Protocol):
    """A consumer that looks, and is no member."""

    def assign(self, starts: Mapping[Partition, int]) -> None:
        """Read these from now on, from these offsets."""
        ...

    def read(self, limit: int, timeout: float, full: Collection[Partition]) -> Mapping[Partition, Records]:
        """Give some records; of `full` partitions none are wanted."""
        ...

    def position(self, partition: Partition) -> int:
        """Give the offset below which everything was read."""
        ...


class Sent(Protocol):
    """Records on their way."""

    @property
    def done(self) -> bool:
        """Whether every answer is there."""
        ...

    def results(self, timeout: float) -> list[PublishResult]:
        """Wait for the answers."""
        ...


class Producer(Protocol):
    """A connected producer. Everything raises `BrokerError`."""

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: it does not say."""
        ...

    def knows(self, topic: str) -> bool:
        """Whether it knows a topic without asking."""
        ...

    def find(self, topic: str) -> None:
        """See that a topic is there, and may be used."""
        ...

    def send(self, topic: str, records: Iterable[dict[str, Any] | BrokerError]) -> Sent:
        """Start to publish; what is an error already is its own answer."""
        ...

    def send_columns(self, topic: str, columns: Outgoing) -> Sent:
        """Start to publish what needs no look."""
        ...

    def close(self, timeout: float) -> None:
        """Send what was given, then disconnect; always disconnects."""
        ...

    def leave(self) -> None:
        """Touch nothing of it any more: it is the parent's, from before a fork."""
        ...


class Transactions(Protocol):
    """A transactional producer whose name has nothing open. One thread at a time calls it."""

    @property
    def usable(self) -> bool:
        """Whether it can run another; if not, a new one of its name ends what this one left."""
        ...

    def run(
        self,
        records: Sequence[tuple[str, dict[str, Any]]],
        positions: Mapping[Partition, Committed],
        credentials: Any,  # noqa: ANN401 - as of `Member.credentials`
        timeout: float,
        alone: Collection[int] = (),
    ) -> list[PublishResult]:
        """Commit positions and records, by topic, as one; when any result has an error, nothing was.

        The positions are named first: so whoever takes a partition over, and reads positions that are stable only,
        waits for every transaction that has written anything, or ends it.

        Args:
            records: In order.
            positions: Of the credentials' group.
            credentials: As of the claims.
            timeout: Seconds.
            alone: Which of the records are in no batch with another. Errors are theirs then; otherwise they may be of
                one beside them, for a broker refuses a batch as a whole. The first error ends it.

        Raises:
            LeaseLostError: The credentials are of another generation, or the group settles; nothing was committed.
            FencedError: Somebody else has its name; nothing was committed.
            OutcomeUnknownError: Positions tell, read after the next one of its name was made.
            BrokerError: Nothing was committed.
        """
        ...

    def close(self) -> None:
        """Disconnect at once; what is open is left to the next of its name, or to the brokers."""
        ...


class Client(Protocol):
    """One of the two."""

    def member(self, location: Location, options: Options, keeper: Keeper, timeout: float) -> Member:
        """Connect a consumer that is to become a member."""
        ...

    def reader(self, location: Location, options: Options, timeout: float) -> AbstractContextManager[Reader]:
        """Connect a consumer that looks."""
        ...

    def topics(self, location: Location, options: Options, timeout: float) -> Collection[str]:
        """Give the names of all topics that we may see; needs no group."""
        ...

    def inspect(
        self, location: Location, options: Options, topics: Sequence[str], group: str | None, timeout: float
    ) -> tuple[dict[str, Topic], Standing | None]:
        """Look at topics and a group as an administrator; None: there is no group, or it may not be used."""
        ...

    def producer(self, location: Location, options: Options, timeout: float) -> Producer:
        """Connect a producer."""
        ...

    def transactions(self, location: Location, options: Options, name: str, timeout: float) -> Transactions:
        """Connect a transactional producer, and end what its name has open; former ones can do nothing any more."""
        ...


def client_of(options: Options) -> Client:
    """Give the client; it is installed."""
    if options.get("client") == "librdkafka":
        from eventflows.adapters import _kafka_rd

        return _kafka_rd
    from eventflows.adapters import _kafka_python

    return _kafka_python
