"""One membership in a group, from joining to leaving: polls, claims, commits, resets."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

import kafka.errors as native
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.future import Future
from kafka.protocol.consumer import IsolationLevel
from kafka.util import Timer

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_chunks import Claim, Committed
from eventflows.adapters._kafka_client import Listener, ask_for, build
from eventflows.adapters._kafka_commits import Commits, native_offset, settling
from eventflows.adapters._kafka_errors import translate
from eventflows.adapters._kafka_look import oldest
from eventflows.adapters._kafka_transactions import TransactedCommits, Transactor
from eventflows.errors import BrokerError, LeaseLostError, NotFoundError, PermissionDeniedError
from eventflows.message import Lane
from eventflows.protocols import Backlog, Gap, Location
from kafka import KafkaConsumer, TopicPartition

MISSING_SECONDS: Final = 5.0
REVOKE_SECONDS: Final = 5.0
TAKE_OVER_SECONDS: Final = 10.0
JOINING: Final = 0.1
"""Seconds of one poll, at least, while the group settles: with less kafka-python never joins."""
JOIN_GRACE: Final = 0.03
"""Seconds after which a poll surely waits for the join; shorter than any poll while the group settles."""
_log: Final = logging.getLogger("eventflows")


class Group:
    """A consumer that is, or becomes, a member. Its owner's thread calls it; `ring` may be called from any.

    Args:
        location: The source.
        options: Its options.
        timeout: Seconds for connecting.
        transactor: Commits positions together with outputs; None: positions are committed by themselves.
    """

    def __init__(
        self,
        location: Location,
        options: Mapping[str, object],
        timeout: float,
        transactor: Transactor | None = None,
    ) -> None:
        self._location = location
        self._options = options
        self._topics = [] if options.get("pattern") else given.topics(location)
        self.claims: dict[Any, Claim] = {}
        self.stash: dict[Claim, list[Any]] = {}
        """What was fetched and not handed out: at most one stretch of each claim."""
        self._bell: Future | None = None
        self._gaps: list[Gap] = []
        self._looked_at = time.monotonic()
        self._missing_since: float | None = None
        self._consumer, self._client = build(KafkaConsumer, self._config(), location.text, timeout)
        parts = (self._consumer, self.claims, self._fence, location.text)
        self._transactor = transactor
        self.commits = Commits(*parts) if transactor is None else TransactedCommits(transactor, *parts)
        try:
            self._begin(timeout)
        except BaseException as error:
            with contextlib.suppress(Exception):
                self._consumer.close(autocommit=False, timeout_ms=500)
            self._client.close()
            if isinstance(error, native.KafkaError):
                raise translate(error, location.text) from error
            raise

    def _config(self) -> dict[str, Any]:
        session = float(str(self._options.get("session_timeout", 45.0)))
        cooperative = self._options.get("assignor", "cooperative") == "cooperative"
        return given.client_config(self._location, self._options) | {
            "group_id": self._options["group"],
            "group_instance_id": self._options.get("instance"),
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": self._options.get("isolation", "read_committed"),
            "session_timeout_ms": int(session * 1000),
            "heartbeat_interval_ms": int(min(session / 10, 3.0) * 1000),
            "partition_assignment_strategy": [CooperativeStickyAssignor() if cooperative else RangePartitionAssignor()],
            "request_timeout_ms": 10_000,
            "metadata_max_age_ms": 5_000,
            "fetch_max_bytes": 4 * 1024 * 1024,
            "max_partition_fetch_bytes": 512 * 1024,  # of each partition; what is parsed takes three times as much
            "allow_auto_create_topics": False,
        }

    def _begin(self, timeout: float) -> None:
        consumer = self._consumer
        if self._topics:
            ask_for(consumer, self._topics, timeout)
        for topic in self._topics:
            self._must_be_there(topic)
        consumer._coordinator.ensure_coordinator_ready(timeout_ms=timeout * 1000)
        listener = Listener(self._fence, self._arrived, self._commit_moving)
        if self._options.get("pattern"):
            consumer.subscribe(pattern=self._location.path, listener=listener)
        else:
            consumer.subscribe(self._topics, listener=listener)

    def _must_be_there(self, topic: str) -> None:
        cluster = self._consumer._cluster
        if topic in cluster.unauthorized_topics:
            raise PermissionDeniedError(
                f"{self._location.text}: not allowed to read topic {topic!r}. Ask for an ACL on it: READ."
            )
        if not cluster.partitions_for_topic(topic):
            raise NotFoundError(f"{self._location.text}: there is no topic {topic!r}. Create it, or correct the URL.")

    @property
    def joined(self) -> bool:
        """Whether it has a place in the group, and has claimed its partitions."""
        return self.settled and self._consumer._coordinator.generation_if_stable() is not None

    @property
    def settled(self) -> bool:
        """Whether nothing of the group has to be done before messages come."""
        return bool(self._consumer._coordinator.stable()) and not self._consumer._coordinator.need_rejoin()

    def position(self, record: Any) -> str:  # noqa: ANN401 - the client's own
        """Name the place of a record; the topic is part of it where there are several."""
        return self._place(record, record.offset)

    def _place(self, partition: Any, offset: int) -> str:  # noqa: ANN401 - the client's own
        short = f"{partition.partition}:{offset}"
        return short if len(self._topics) == 1 else f"{partition.topic}/{short}"

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

    def poll(self, limit: int, timeout: float, skip: Collection[Lane], woken: Callable[[], bool]) -> None:
        """Let the client work until it has records, time is over or somebody rang; what it has is stashed."""
        held = [
            claim.partition
            for claim in self.claims.values()
            if not limit or claim.lane in skip or claim in self.stash or not claim.mark.room
        ]
        self._consumer.pause(*held)
        self._keep_join()
        try:
            self._poll(max(limit, 1), timeout if self.settled else max(timeout, JOINING), woken)
        except (native.NoOffsetForPartitionError, native.OffsetOutOfRangeError, native.LogTruncationError) as error:
            self._out_of_range(error)
        except native.KafkaError as error:
            raise translate(error, self._location.text) from error
        finally:
            self._consumer.resume(*[one for one in held if one in self._consumer.assignment()])
        self._claim_new()

    def _poll(self, limit: int, timeout: float, woken: Callable[[], bool]) -> None:
        timer = Timer(timeout * 1000)
        while True:
            records = self._consumer._poll_once(timer, limit)
            for partition, some in records.items():
                self._stash(partition, some)
            if records or timer.expired or woken() or self._consumer.assignment() - self.claims.keys():
                return

    def _keep_join(self) -> None:
        """Let the next poll see a join that ended between two polls.

        kafka-python drops such an answer and joins again, and so do all others: groups that are polled with pauses
        never come to rest. What the poll awaits is the same answer, given once it waits.
        """
        coordinator = self._consumer._coordinator
        task = coordinator._join_task
        if task is None or not task.is_done or not task.succeeded() or not coordinator.rejoining:
            return
        again = coordinator._join_task = Future()
        net = self._client._net
        net.call_soon_threadsafe(lambda: net.call_later(JOIN_GRACE, lambda: again.success(task.value)))

    def _stash(self, partition: Any, records: list[Any]) -> None:  # noqa: ANN401 - the client's own
        claim = self.claims.get(partition)
        if claim is None or claim.lane.lost:
            return  # it is claimed anew, from the committed position
        with claim.lane.lock:
            first, stop = records[0].offset, records[-1].offset + 1
            if stop - first == len(records):
                claim.mark.track(first, stop)
            else:
                claim.mark.track_offsets([record.offset for record in records])
        self.stash.setdefault(claim, []).extend(records)

    # Claims.

    def _arrived(self, partitions: Iterable[Any]) -> None:
        self._consumer.pause(*partitions)

    def _fence(self, partitions: Iterable[Any]) -> list[Claim]:
        ended = []
        for partition in partitions:
            claim = self.claims.pop(partition, None)
            if claim is None:
                continue
            self.stash.pop(claim, None)
            if claim.fence():
                ended.append(claim)
        return ended

    def _claim_new(self) -> None:
        new = [one for one in self._consumer.assignment() if one not in self.claims]
        if not new:
            return
        try:
            if self._transactor is not None:
                self._take_over(self._transactor, new)
            begun = self._committed(new)
            starts = self._starts([one for one in new if one not in begun])
        except native.KafkaError as error:
            raise translate(error, self._location.text) from error
        for one in new:
            self._claim(one, begun[one] if one in begun else Committed(starts[one]))
        self.commits.soon()

    def _committed(self, partitions: list[Any]) -> dict[Any, Committed]:
        found = self._consumer._coordinator.fetch_committed_offsets(partitions, timeout_ms=10_000)
        return {one: Committed.read(at.offset, at.metadata) for one, at in found.items() if at and at.offset >= 0}

    def _take_over(self, transactor: Transactor, partitions: list[Any]) -> None:
        """End what former owners left open, if they did not end well: stable positions would be waited for."""
        coordinator = self._consumer._coordinator
        transactor.prepare(TAKE_OVER_SECONDS)
        coordinator._isolation_level = IsolationLevel.READ_UNCOMMITTED  # gives positions though some are not stable
        try:
            found = self._committed(partitions)
        finally:
            coordinator._isolation_level = IsolationLevel.READ_COMMITTED
        transactor.fence({at.producer for at in found.values() if at.claims and at.producer}, TAKE_OVER_SECONDS)

    def _claim(self, partition: Any, begun: Committed) -> None:  # noqa: ANN401 - the client's own
        self.claims[partition] = Claim(partition, begun)
        self._consumer.seek(partition, begun.position)
        self._consumer.resume(partition)

    def _starts(self, partitions: list[Any]) -> dict[Any, int]:
        """Say where a group begins that has committed nothing."""
        if not partitions:
            return {}
        begin = self._options.get("from", "earliest")
        if isinstance(begin, datetime.datetime):
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, int(begin.timestamp() * 1000)), 10_000)
            ends = self._consumer.end_offsets(partitions, 10_000)
            return {one: ends[one] if found.get(one) is None else found[one].offset for one in partitions}
        asked = self._consumer.end_offsets if begin == "latest" else self._consumer.beginning_offsets
        return dict(asked(partitions, 10_000))

    def _out_of_range(self, error: native.KafkaError) -> None:
        """Begin anew where the log does not have the position: retention overtook it, or the topic was made anew."""
        if isinstance(error, native.NoOffsetForPartitionError):
            return  # these are about to be claimed
        places = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        partitions = [one for one in places if one in self.claims] or list(self.claims)
        firsts = self._consumer.beginning_offsets(partitions, 10_000)
        for one in partitions:
            at, first, lane = self.claims[one].mark.read, firsts[one], self.claims[one].lane
            self._fence([one])
            self._claim(one, Committed(first))
            if first > at:
                self._gaps.append(Gap(lane, self._place(one, at), self._place(one, first - 1)))
            else:
                _log.warning("%s: %s ends before offset %d, which was to come next: the topic was made anew, or lost "
                             "its end. It is read from its beginning.", self._location.text, lane.name, at)  # fmt: skip
        self.commits.soon()

    def gaps(self) -> list[Gap]:
        """Give what was found missing since the last call."""
        found, self._gaps = self._gaps, []
        return found

    # Housekeeping.

    def service(self) -> None:
        """Do what is due: look at the last commit's answer, send the next, look for missing topics.

        Raises:
            BrokerError: The group may not be used any more, or a topic is gone.
        """
        now = time.monotonic()
        self._pass_over()
        self.commits.service(now, ready=self.settled)
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            self._look_for_topics(now)

    def _pass_over(self) -> None:
        """Let positions reach past entries that hold no message."""
        states = self._consumer._subscription.assignment
        for partition, claim in self.claims.items():
            state = states.get(partition)
            if state is not None and state.position is not None and state.position.offset > claim.mark.read:
                with claim.lane.lock:
                    claim.mark.pass_over(state.position.offset)

    def _look_for_topics(self, now: float) -> None:
        gone = [topic for topic in self._topics if not self._consumer._cluster.partitions_for_topic(topic)]
        if not gone:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since >= MISSING_SECONDS:
            self._must_be_there(gone[0])

    def commit(self, timeout: float, *, last: bool = False) -> BrokerError | None:
        """Commit now, and wait for the answer; gives what went wrong.

        A group that settles takes no commits for a moment, and settles only while its members poll: so they do.

        Args:
            timeout: Seconds, at most.
            last: Whether the claims end with this one, and so do not count.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._pass_over()
            left = deadline - time.monotonic()
            error = self.commits.now(left, last=last)
            if error is None or not settling(error) or left <= JOINING or (last and not self.commits.unsaved):
                return error
            try:
                self.poll(0, JOINING, (), lambda: False)
            except BrokerError:
                return error

    def _commit_moving(self, claims: list[Claim]) -> Any:  # noqa: ANN401 - the client's own
        if isinstance(self.commits, TransactedCommits):
            future, net = Future(), self._client._net
            self.commits.moving(claims, lambda: net.call_soon_threadsafe(lambda: future.success(None)), REVOKE_SECONDS)
        else:
            future = self._consumer.commit_async({claim.partition: native_offset(claim.last) for claim in claims})
        return self._client._manager.wait_for(future, REVOKE_SECONDS * 1000)

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: it does not say."""
        found: str | None = self._consumer._cluster.cluster_id
        return found

    # Looking.

    def backlog(self, timeout: float) -> Backlog:
        """Count what waits, on every partition of the topics."""
        topics = self._topics or sorted(self._consumer.subscription() or ())
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in sorted(self._consumer._cluster.partitions_for_topic(topic) or ())
        ]
        deadline = time.monotonic() + timeout
        self._pass_over()
        try:
            ends = self._consumer.end_offsets(partitions, timeout * 1000)
            others = [one for one in partitions if one not in self.claims]
            found = self._consumer._coordinator.fetch_committed_offsets(others, timeout_ms=timeout * 1000)
            known = {one: place.offset for one, place in found.items() if place is not None and place.offset >= 0}
            known |= self._starts([one for one in others if one not in known])
        except native.KafkaError as error:
            raise translate(error, self._location.text) from error
        known |= {one: claim.mark.read for one, claim in self.claims.items()}
        stashed = {claim.partition: len(records) for claim, records in self.stash.items()}
        lanes = {
            f"{one.topic}/{one.partition}": max(ends[one] - known[one], 0) + stashed.get(one, 0) for one in partitions
        }
        first = [records[0].timestamp for records in self.stash.values()]
        starts = {one: known[one] for one in partitions if known[one] < ends[one] and one not in stashed}
        if starts:
            first += oldest(self._location, self._options, starts, ends, deadline)
        age = max(time.time() - min(first) / 1000, 0.0) if first else None
        return Backlog(waiting=sum(lanes.values()), by_lane=lanes, oldest_age=age)

    def close(self, timeout: float) -> None:
        """Commit, leave, disconnect.

        Raises:
            BrokerError: What was settled could not be committed; it comes again.
        """
        deadline = time.monotonic() + timeout
        unsaved = self.commits.unsaved
        error = self.commit(timeout * 0.6, last=True)
        self._fence(list(self.claims))
        left = max(deadline - time.monotonic(), 0.1)
        try:
            with contextlib.suppress(Exception):  # the group notices by its session time-out
                self._consumer.close(autocommit=False, timeout_ms=min(left, 5.0) * 1000)
        finally:
            self._client.close()
        if unsaved and error is not None and not isinstance(error, LeaseLostError):
            raise error
