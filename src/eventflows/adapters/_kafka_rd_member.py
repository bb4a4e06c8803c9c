"""A membership through librdkafka: joins, polls, commits."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from confluent_kafka import KafkaException, Message
from confluent_kafka import TopicPartition as Native

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_chunks import Claim, Committed
from eventflows.adapters._kafka_clients import NO_PARTITION, Keeper, Options, Partition, Records
from eventflows.adapters._kafka_rd_client import abandon
from eventflows.adapters._kafka_rd_consumer import RdConsumer, consumer_config, native_offsets, native_partitions
from eventflows.adapters._kafka_rd_errors import name_it, refused
from eventflows.adapters._kafka_rd_ids import TopicIds
from eventflows.errors import BrokerError, LeaseLostError, NotFoundError, OutcomeUnknownError
from eventflows.protocols import Location

MATCH_SECONDS: Final = 5.0
"""Between two looks for topics that match a pattern."""
JOIN_SECONDS: Final = 1.0
REVOKE_SECONDS: Final = 5.0
DOWN_SECONDS: Final = 8.0
"""No broker could be reached for so long, though librdkafka goes on trying: then somebody is told."""
SLICE: Final = 0.02
"""Seconds of one wait, which nothing can interrupt: so `ring` takes effect after this at the latest."""
ANSWER_SLICE: Final = 0.002
"""The same while an answer is awaited, whose arrival does not end it."""
HOLD_SECONDS: Final = 0.25
HOLD_MOST: Final = 2000
"""A partition of which nothing is wanted is paused after so long, or so many records, for pausing it discards what
was fetched of it."""
METADATA: Final = b"CGMDv2:"
"""What packed group metadata begins with; the generation follows."""
_log: Final = logging.getLogger("eventflows")


class _Answer:
    """What became of a commit.

    Args:
        offsets: What was to be committed.
    """

    def __init__(self, offsets: list[Native]) -> None:
        self.places = _places(offsets)
        self.done = False
        self.error: BrokerError | None = None
        self.moves = False
        """Whether it is the last of partitions that move, for which nobody waits."""


def _places(offsets: list[Native]) -> set[tuple[Any, ...]]:
    return {(one.topic, one.partition, one.offset) for one in offsets}


class RdMember(RdConsumer):
    """A consumer that is, or becomes, a member.

    Args:
        location: The source.
        options: Its options.
        keeper: Told of everything.
        timeout: Seconds for connecting.
    """

    def __init__(self, location: Location, options: Options, keeper: Keeper, timeout: float) -> None:
        config = _config(location, options) | {"on_commit": self._committed}
        super().__init__(location, options, config, timeout)
        self._keeper = keeper
        self._cooperative = options.get("assignor", "cooperative") == "cooperative"
        self._several = True
        self._pattern: str | None = None
        self._wanted: list[str] = []
        self._matched_at = 0.0
        self._answers: list[_Answer] = []
        self._member = False
        self._closing = self._joining = False
        self._id = ""
        self._owned: set[Partition] = set()
        self._starts: dict[Partition, int] = {}
        """Where those begin that were claimed since the last messages were handed over."""
        self._passed: dict[Partition, int] = {}
        self._held: dict[Partition, float] = {}
        """For how many seconds nothing was wanted of each."""
        self._looked_at = 0.0
        self._paused: set[Partition] = set()
        self._ids = TopicIds(location, options)

    def join(self, topics: Sequence[str], pattern: str | None) -> None:
        """Begin to join; a pattern is over all topics."""
        self._pattern = pattern
        self._several = pattern is not None or len(topics) > 1
        self._subscribe(list(topics) if pattern is None else self._matching())

    def _subscribe(self, topics: list[str]) -> None:
        self._wanted = topics
        self._matched_at = time.monotonic()
        if topics:
            self._joining = True
            self.handle.subscribe(topics, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def _matching(self) -> list[str]:
        # librdkafka would match by itself, but knows another kind of regular expression.
        pattern = self._pattern or ""
        return sorted(one for one in self.topics() if re.match(pattern, one) and not one.startswith("__"))

    def _match_anew(self, now: float) -> None:
        if self._pattern is None or now - self._matched_at < MATCH_SECONDS:
            return
        self._matched_at = now
        found = self._matching()
        if found != self._wanted:
            self._subscribe(found)

    @property
    def joined(self) -> bool:
        """Whether it has a place in the group."""
        return self._member

    @property
    def settled(self) -> bool:
        """Whether nothing of the group has to be done before messages come."""
        return self._member

    def subscribed(self) -> Collection[str]:
        """Give the topics, those that a pattern found included."""
        if self._pattern is not None:
            self.look(self._matching(), 10.0)
        return sorted(self._known)

    def identities(self) -> Mapping[str, object]:
        """Give the ids of the topics of our claims, as they were some seconds ago."""
        return self._ids.of({topic for topic, _ in self._keeper.claims})

    # What librdkafka calls, within `poll`, on the owner's thread.

    def _assigned(self, handle: Any, partitions: list[Native]) -> None:  # noqa: ANN401 - the Consumer
        new = [Partition(one.topic, one.partition) for one in partitions]
        if self._closing:
            self._assign(handle, partitions)
            self._member = True
            return
        self._id = handle.memberid()
        starts = dict(self._keeper.claim(new)) if new else {}
        self._starts |= starts
        self._assign(handle, native_offsets(starts))
        self._owned.update(new)
        self._member = True

    def _assign(self, handle: Any, partitions: list[Native]) -> None:  # noqa: ANN401 - the Consumer
        if self._cooperative:
            handle.incremental_assign(partitions)
        else:
            handle.assign(partitions)

    def _revoked(self, handle: Any, partitions: list[Native]) -> None:  # noqa: ANN401 - the Consumer
        gone = self._forget(partitions)
        ended = self._keeper.fence(gone)
        if ended:
            self._commit_moving(ended)
        self._release(handle, partitions)

    def _commit_moving(self, claims: list[Claim]) -> None:
        moved = threading.Event()
        said = self._keeper.moving(claims, moved.set)
        if said is None:
            moved.wait(REVOKE_SECONDS)
        elif said:
            # Nobody waits for the answer: what is asked of the coordinator next, to let them go, is asked after it.
            self.begin_commit(said).moves = True

    def _lost(self, handle: Any, partitions: list[Native]) -> None:  # noqa: ANN401 - the Consumer
        self._keeper.fence(self._forget(partitions))
        self._member = False
        self._release(handle, partitions)

    def _release(self, handle: Any, partitions: list[Native]) -> None:  # noqa: ANN401 - the Consumer
        if self._cooperative:
            handle.incremental_unassign(partitions)
        else:
            self._member = False
            handle.unassign()

    def _forget(self, partitions: list[Native]) -> list[Partition]:
        gone = [Partition(one.topic, one.partition) for one in partitions]
        self._owned.difference_update(gone)
        for one in gone:
            for known in (self._starts, self._passed, self._held):
                known.pop(one, None)
            self._paused.discard(one)
        return gone

    # Waking.

    def prepare_bell(self) -> None:
        """Nothing: waits are short."""

    def ring(self) -> None:
        """Nothing: `woken` is asked often."""

    # Polling.

    def poll(self, limit: int, timeout: float, held: Collection[Partition], woken: Callable[[], bool]) -> None:
        """Let the client work until it has records, time is over or somebody rang."""
        deadline = time.monotonic() + timeout
        self._match_anew(time.monotonic())
        while True:
            now = time.monotonic()
            self._hold(held, now)
            messages = self._take(max(limit, 1), min(max(deadline - now, 0.0), SLICE))
            self._hand_over(messages)
            if len(self._owned) != len(self._keeper.claims):
                self._claim_again()
            self._look_at_causes(now)
            if messages or time.monotonic() >= deadline or woken():
                return

    def _claim_again(self) -> None:
        """Claim what a refused commit ended though it is still ours."""
        again = [one for one in self._owned if one not in self._keeper.claims]
        if again:
            self.read_from(self._keeper.claim(again))

    def _hold(self, held: Collection[Partition], now: float) -> None:
        if not held and not self._held:
            return
        wanted = [one for one in self._held if one not in held]
        for one in wanted:
            del self._held[one]
        resumed = self._paused.intersection(wanted)
        self._paused -= resumed
        paused = []
        # A process that stood still meanwhile, on a busy machine, has not held them for long.
        step, self._looked_at = min(now - self._looked_at, 2 * SLICE), now
        for one in held:
            self._held[one] = passed = self._held.get(one, -step) + step
            count = self._keeper.stashed(one)
            if one not in self._paused and count and (passed >= HOLD_SECONDS or count >= HOLD_MOST):
                paused.append(one)
        self._paused.update(paused)
        if resumed:
            self._ask(self.handle.resume, native_partitions(resumed))
        if paused:
            self._ask(self.handle.pause, native_partitions(paused))

    def _hand_over(self, messages: Records) -> None:
        starts, self._starts = self._starts, {}
        if any(map(Message.error, messages)):
            messages = self._sort_out(messages)
        if not messages:
            return
        if self._several:
            for topic, some in groupby(messages, Message.topic):
                self._hand_over_of(topic, list(some), starts)
        else:
            self._hand_over_of(messages[0].topic(), messages, starts)

    def _hand_over_of(self, topic: Any, messages: Records, starts: Mapping[Partition, int]) -> None:  # noqa: ANN401 - text
        if len(set(map(Message.partition, messages))) == 1:
            self._fetched(Partition(topic, messages[0].partition()), messages, starts)
            return
        number: Any
        for number, run in groupby(messages, Message.partition):
            self._fetched(Partition(topic, number), list(run), starts)

    def _fetched(self, partition: Partition, messages: Records, starts: Mapping[Partition, int]) -> None:
        begin = starts.get(partition)
        if begin is None or messages[0].offset() == begin:
            self._keeper.fetched(partition, messages)
        else:
            # Taken in the call in which the partition came, or came back: it may be of the time before.
            self.read_from({partition: begin})

    def _sort_out(self, messages: Records) -> Records:
        """Give the messages among them; the others tell what happened."""
        sound = []
        lost: list[Partition] = []
        for message in messages:
            error = message.error()
            if error is None:
                sound.append(message)
            elif error.name() == "_PARTITION_EOF":
                self._passed[self.columns.partition(message)] = message.offset()
            elif error.name() in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
                lost.append(self.columns.partition(message))
            else:
                self._told(message.topic(), error)
        lost = [one for one in lost if one in self._keeper.claims]
        if lost:
            self._ids.forget()  # of a topic that was made anew they are older than the claims that begin now
            self.read_from(self._keeper.out_of_range(lost))
        return sound

    def _told(self, topic: str | None, error: Any) -> None:  # noqa: ANN401 - a KafkaError
        ours = self.causes.told(self._where) if self.causes.fatal else name_it(error, self._where)
        if topic is not None and isinstance(ours, NotFoundError):
            self._known[topic] = ()  # it may be made anew: who looks for topics gives it some time
        elif not ours.retryable and not isinstance(ours, LeaseLostError):  # what was lost is told by itself
            raise ours

    def read_from(self, starts: Mapping[Partition, int]) -> None:
        """Read partitions that are ours from elsewhere: after an error they cannot be sought."""
        for one in starts:
            self._passed.pop(one, None)
            self._paused.discard(one)
        self._starts |= starts
        if self._cooperative:
            self.handle.incremental_unassign(native_partitions(starts))
            self.handle.incremental_assign(native_offsets(starts))
        else:
            everything = {one: claim.mark.read for one, claim in self._keeper.claims.items()} | dict(starts)
            self.handle.assign(native_offsets(everything))

    def _look_at_causes(self, now: float) -> None:
        causes = self.causes
        if causes.fatal or causes.refused:
            raise causes.told(self._where)
        if causes.down_since is not None and now - causes.down_since >= DOWN_SECONDS:
            told_of = causes.told(self._where)
            causes.answered()
            raise told_of

    def partitions(self, topic: str) -> Sequence[int]:
        """Give its partitions; one that was said to be gone is asked for again."""
        known = super().partitions(topic)
        if topic in self._known and not known:
            self.look([topic], 1.0)
            known = super().partitions(topic)
        return known

    def passed(self) -> Mapping[Partition, int]:
        """Give the offsets below which nothing more comes."""
        return self._passed

    # Committing.

    def begin_commit(self, said: Mapping[Partition, Committed]) -> _Answer:
        """Commit without waiting; the answer comes while it is polled, before the messages that wait."""
        offsets = [Native(*one, state.position, state.metadata) for one, state in said.items()]
        answer = _Answer(offsets)
        self._answers.append(answer)
        try:
            self.handle.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._answers.remove(answer)
            answer.done, answer.error = True, refused(error, self._where)
        return answer

    def _committed(self, error: Any, partitions: list[Native]) -> None:  # noqa: ANN401 - a KafkaError, or None
        places = _places(partitions)
        answer = next((one for one in self._answers if one.places == places), None)
        if answer is None:
            return
        self._answers.remove(answer)
        errors = [error, *[one.error for one in partitions]]
        first = next((one for one in errors if one is not None), None)
        answer.done = True
        if first is None:
            self.causes.answered()
            return
        answer.error = refused(KafkaException(first), self._where)
        if answer.moves:
            _log.warning("the last commit of %d partitions that move failed (%s): their next owner repeats some "
                         "messages.", len(partitions), first.name())  # fmt: skip

    def commit(self, said: Mapping[Partition, Committed], timeout: float) -> None:
        """Commit, and wait."""
        if self.handle.memberid() != self._id:
            # Nothing is asked: waiting for the answer would make a new membership, which who waits did not ask for.
            raise LeaseLostError(f"{self._where}: we are not in the group any more.")
        deadline = time.monotonic() + timeout
        answer = self.begin_commit(said)
        while not answer.done:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OutcomeUnknownError(f"{self._where}: no answer to a commit in time; it may be done, or not.")
            self._hand_over(self._take(1, min(left, ANSWER_SLICE)))
        if answer.error is not None:
            raise answer.error

    def probe(self, timeout: float) -> None:
        """See that the group may still be used."""
        # Not as `find_group` does, which polls, and drops what comes: there may be messages now.
        self._ask(self.handle.committed, [Native(next(iter(self._known), "eventflows"), NO_PARTITION)], timeout)

    def _end_join(self, deadline: float) -> None:
        """Let a join that is under way end: librdkafka leaves behind a member that it has not heard the name of."""
        while self._joining and not self._member and time.monotonic() < deadline:
            with contextlib.suppress(BrokerError):
                self._take(1, ANSWER_SLICE)

    def credentials(self) -> Any:  # noqa: ANN401 - the client's own
        """Give what a transaction shows: who we are in the group, and of which generation; None: we are not in it."""
        packed = self.handle.consumer_group_metadata()
        if not packed.startswith(METADATA):
            raise BrokerError(f"{self._where}: this librdkafka writes group metadata in a form that is not known.")
        # Without a generation brokers would take positions from anybody.
        generation = int.from_bytes(packed[len(METADATA) : len(METADATA) + 4], sys.byteorder, signed=True)
        return packed if generation >= 0 else None

    def close(self, timeout: float) -> None:
        """Leave, and disconnect; commits nothing."""
        deadline = time.monotonic() + timeout
        self._closing = True
        self._ids.close()
        self._end_join(time.monotonic() + min(timeout / 2, JOIN_SECONDS))
        if not abandon(self.handle.close, deadline - time.monotonic()):
            _log.warning("%s: librdkafka does not come back from closing; the group notices by its session time-out.",
                         self._where)  # fmt: skip


def _config(location: Location, options: Options) -> dict[str, Any]:
    session = given.session_timeout(options)
    cooperative = options.get("assignor", "cooperative") == "cooperative"
    config = consumer_config(location, options) | {
        "session.timeout.ms": int(session * 1000),
        "heartbeat.interval.ms": int(min(session / 10, 3.0) * 1000),
        "max.poll.interval.ms": int(given.poll_interval(options) * 1000),
        "partition.assignment.strategy": "cooperative-sticky" if cooperative else "range",
        "fetch.max.bytes": 4 * 1024 * 1024,
        # Brokers send as much as fits, of a last batch the beginning, in vain; librdkafka's own batches are of 1 MB.
        "max.partition.fetch.bytes": 2 * 1024 * 1024,
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 8 * 1024,
    }
    if "instance" in options:
        config["group.instance.id"] = options["instance"]
    return config
