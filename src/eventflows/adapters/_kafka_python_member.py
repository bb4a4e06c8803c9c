"""A membership through kafka-python: joins, polls, commits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import kafka.errors as native
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.future import Future
from kafka.util import Timer

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_chunks import Claim, Committed
from eventflows.adapters._kafka_clients import NO_PARTITION, Keeper, Options, Partition
from eventflows.adapters._kafka_errors import SettlingError
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_config import client_config
from eventflows.adapters._kafka_python_consumer import PythonConsumer, native_partitions
from eventflows.adapters._kafka_python_errors import translate
from eventflows.adapters._kafka_python_records import PartitionRecords
from eventflows.errors import BrokerError
from eventflows.protocols import Location
from kafka import AsyncConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition

REVOKE_SECONDS: Final = 5.0
JOINING: Final = 0.1
"""Seconds of one poll, at least, while the group settles: with less kafka-python never joins."""
_log: Final = logging.getLogger("eventflows")


def native_offsets(said: Mapping[Partition, Committed]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Give what the client commits."""
    return {TopicPartition(*one): OffsetAndMetadata(state.position, state.metadata, -1) for one, state in said.items()}


def _settling(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, native.RebalanceInProgressError):
        inner = error.args[0] if isinstance(error, native.CommitFailedError) and error.args else None
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return error is not None


def _refused(error: BaseException, where: str) -> BrokerError:
    """Say why a commit failed."""
    ours = translate(error, where)
    if not _settling(error):
        return ours
    settling = SettlingError(str(ours))
    settling.__cause__ = error
    return settling


class _Answer:
    """What became of a commit."""

    def __init__(self, future: Future, where: str) -> None:
        self._future = future
        self._where = where

    @property
    def done(self) -> bool:
        return bool(self._future.is_done)

    @property
    def error(self) -> BrokerError | None:
        return _refused(self._future.exception, self._where) if self._future.failed() else None


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
    """Runs on the client's own thread, within the owner's `receive` or `close`; so it blocks on nothing but this loop.

    Args:
        keeper: Told of what is not ours any more.
        hold: Told of partitions that are ours now.
        commit: Commits the last of these claims, and gives what can be awaited.
    """

    def __init__(
        self, keeper: Keeper, hold: Callable[[Iterable[Any]], None], commit: Callable[[list[Claim]], Any]
    ) -> None:
        self._keeper = keeper
        self._hold = hold
        self._commit = commit

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        """Fence first, then commit, then let them go."""
        ended = self._keeper.fence(revoked)
        if ended:
            try:
                await self._commit(ended)
            except native.KafkaError as error:
                _log.warning("the last commit of %d partitions that move failed (%s): their next owner repeats some "
                             "messages.", len(ended), type(error).__name__)  # fmt: skip

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        """Hold them until the owner has claimed them."""
        self._hold(assigned)

    async def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        """Fence; they are somebody else's, so nothing is committed."""
        self._keeper.fence(lost)


class _Kept(Future):  # type: ignore[misc]
    """An answer that came before anybody waited for it: it is not there until somebody does."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self._answer = answer

    def add_callback(self, *call: Any, **more: Any) -> Any:  # noqa: ANN401 - the client's own
        added = super().add_callback(*call, **more)
        if not self.is_done:
            self.success(self._answer)
        return added


class PythonMember(PythonConsumer):
    """A consumer that is, or becomes, a member.

    Args:
        location: The source.
        options: Its options.
        keeper: Told of everything.
        timeout: Seconds for connecting.
    """

    def __init__(self, location: Location, options: Options, keeper: Keeper, timeout: float) -> None:
        super().__init__(*build(KafkaConsumer, _config(location, options), location.text, timeout), location.text)
        self._keeper = keeper
        self._bell: Future | None = None
        self._consumer._fetcher.PartitionRecords = PartitionRecords
        self._fetch = self._consumer._fetcher.send_fetches
        self._consumer._fetcher.send_fetches = self._fetch_all

    def _fetch_all(self) -> Any:  # noqa: ANN401 - the client's own
        """Fetch, once nothing of the last fetch waits to be handed out.

        The client leaves out the partitions of which something waits; then, while the broker waits for messages of the
        others, for up to half a second, nobody fetches theirs.
        """
        return [] if self._consumer._fetcher._next_partition_records else self._fetch()

    def join(self, topics: Sequence[str], pattern: str | None) -> None:
        """Begin to join; a pattern is over all topics."""
        listener = _Listener(self._keeper, lambda new: self._consumer.pause(*new), self._commit_moving)
        if pattern is None:
            self._consumer.subscribe(list(topics), listener=listener)
        else:
            self._consumer.subscribe(pattern=pattern, listener=listener)

    @property
    def joined(self) -> bool:
        """Whether it has a place in the group."""
        return self.settled and self._consumer._coordinator.generation_if_stable() is not None

    @property
    def settled(self) -> bool:
        """Whether nothing of the group has to be done before messages come."""
        return bool(self._consumer._coordinator.stable()) and not self._consumer._coordinator.need_rejoin()

    def subscribed(self) -> Collection[str]:
        """Give the topics, those that a pattern found included."""
        return self._consumer.subscription() or ()

    def identities(self) -> Mapping[str, object]:
        """Give the ids of the topics of our claims, as they were when the client last looked."""
        found = {topic: self._consumer._cluster.topic_id(topic) for topic, _ in self._keeper.claims}
        return {topic: id for topic, id in found.items() if id is not None}

    # Waking.

    def prepare_bell(self) -> None:
        """Have something to wait for that `ring` can end; before looking whether anybody rang."""
        if self._bell is None or self._bell.is_done:
            self._bell = Future()
            self._consumer._fetcher._fetch_futures.append(self._bell)

    def ring(self) -> None:
        """End a poll that waits; from any thread."""
        with contextlib.suppress(Exception):  # it is being closed, so nobody waits any more
            self._client._net.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.is_done:
            self._bell.success(None)

    # Polling.

    def poll(self, limit: int, timeout: float, held: Collection[Partition], woken: Callable[[], bool]) -> None:
        """Let the client work until it has records, time is over or somebody rang."""
        paused = native_partitions(held)
        self._consumer.pause(*paused)
        self._keep_join()
        try:
            self._poll(max(limit, 1), timeout if self.settled else max(timeout, JOINING), woken)
        except (native.NoOffsetForPartitionError, native.OffsetOutOfRangeError, native.LogTruncationError) as error:
            self._out_of_range(error)
        except native.KafkaError as error:
            raise translate(error, self._where) from error
        finally:
            self._consumer.resume(*[one for one in paused if one in self._consumer.assignment()])
        self._claim_new()

    def _poll(self, limit: int, timeout: float, woken: Callable[[], bool]) -> None:
        timer = Timer(timeout * 1000)
        while True:
            records = self._consumer._poll_once(timer, limit)
            for partition, some in records.items():
                self._keeper.fetched(partition, some)
            if records or timer.expired or woken() or self._consumer.assignment() - self._keeper.claims.keys():
                return

    def _keep_join(self) -> None:
        """Let the next poll see a join that ended between two polls.

        kafka-python drops such an answer and joins again, and so do all others: groups that are polled with pauses
        never come to rest. What the poll awaits is the same answer, given as soon as it waits.
        """
        coordinator = self._consumer._coordinator
        if not coordinator.rejoining:
            return
        # The leader's own reason to join, new partitions, is gone once it has assigned them: the answer would be
        # forgotten for good, and so would the heartbeats.
        coordinator.rejoin_needed = True
        task = coordinator._join_task
        if task is not None and task.is_done and task.succeeded():
            coordinator._join_task = _Kept(task.value)

    def _claim_new(self) -> None:
        new = [Partition(*one) for one in self._consumer.assignment() if one not in self._keeper.claims]
        if new:
            self.read_from(self._keeper.claim(new))

    def read_from(self, starts: Mapping[Partition, int]) -> None:
        """Read partitions that are ours from elsewhere."""
        for one, offset in starts.items():
            self._consumer.seek(TopicPartition(*one), offset)
            self._consumer.resume(TopicPartition(*one))

    def _out_of_range(self, error: native.KafkaError) -> None:
        if isinstance(error, native.NoOffsetForPartitionError):
            return  # these are about to be claimed
        places = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        ours = [one for one in self._keeper.claims if one in places]
        self.read_from(self._keeper.out_of_range(ours or list(self._keeper.claims)))

    def passed(self) -> Mapping[Partition, int]:
        """Give the offsets below which nothing more comes."""
        states = self._consumer._subscription.assignment
        return {one: state.position.offset for one, state in states.items() if state.position is not None}

    # Committing.

    def begin_commit(self, said: Mapping[Partition, Committed]) -> _Answer:
        """Commit without waiting."""
        return _Answer(self._consumer.commit_async(native_offsets(said)), self._where)

    def commit(self, said: Mapping[Partition, Committed], timeout: float) -> None:
        """Commit, and wait."""
        try:
            self._consumer.commit(native_offsets(said), timeout_ms=max(timeout, 0.05) * 1000)
        except native.KafkaError as error:
            raise _refused(error, self._where) from error

    def _commit_moving(self, claims: list[Claim]) -> Any:  # noqa: ANN401 - the client's own
        future, net = Future(), self._client._net
        said = self._keeper.moving(claims, lambda: net.call_soon_threadsafe(lambda: future.success(None)))
        if said is not None:
            future = self._consumer.commit_async(native_offsets(said))
        return self._client._manager.wait_for(future, REVOKE_SECONDS * 1000)

    def probe(self, timeout: float) -> None:
        """See that the group may still be used."""
        asked = [TopicPartition(topic, NO_PARTITION) for topic in sorted(self.subscribed())[:1]]
        if asked:
            self._ask(self._consumer._coordinator.fetch_committed_offsets, asked, timeout_ms=timeout * 1000)

    def credentials(self) -> Any:  # noqa: ANN401 - the client's own
        """Give what a transaction shows: who we are in the group, and of which generation; None: we are not in it."""
        member = self._consumer.group_metadata()
        # Without a generation brokers would take positions from anybody.
        return member if member.generation_id >= 0 and member.member_id else None

    def close(self, timeout: float) -> None:
        """Leave, and disconnect; commits nothing."""
        try:
            with contextlib.suppress(Exception):  # the group notices by its session time-out
                self._consumer.close(autocommit=False, timeout_ms=timeout * 1000)
        finally:
            self._client.close()


def _config(location: Location, options: Options) -> dict[str, Any]:
    session = given.session_timeout(options)
    cooperative = options.get("assignor", "cooperative") == "cooperative"
    return client_config(location, options) | {
        "group_id": options["group"],
        "group_instance_id": options.get("instance"),
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": options.get("isolation", "read_committed"),
        "session_timeout_ms": int(session * 1000),
        "max_poll_interval_ms": int(given.poll_interval(options) * 1000),
        "heartbeat_interval_ms": int(min(session / 10, 3.0) * 1000),
        "partition_assignment_strategy": [CooperativeStickyAssignor() if cooperative else RangePartitionAssignor()],
        "request_timeout_ms": 10_000,
        "metadata_max_age_ms": 5_000,
        "fetch_max_bytes": 4 * 1024 * 1024,
        "max_partition_fetch_bytes": 320 * 1024,  # of each partition; what is parsed takes three times as much
        "allow_auto_create_topics": False,
    }
