"""One membership in a group, from joining to leaving: claims, commits, resets; the client does the rest."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_chunks import Claim, Committed
from eventflows.adapters._kafka_clients import MISSING_SECONDS, Client, Member, Options, Partition, Records
from eventflows.adapters._kafka_commits import Commits
from eventflows.adapters._kafka_errors import SettlingError, denied, missing
from eventflows.adapters._kafka_look import begins, oldest
from eventflows.adapters._watermark import RewoundError
from eventflows.errors import BrokerError, LeaseLostError
from eventflows.message import Lane
from eventflows.protocols import Backlog, Gap, Location

if TYPE_CHECKING:
    from eventflows.adapters._kafka_transactions import Transactor

TAKE_OVER_SECONDS: Final = 10.0
ASK_SECONDS: Final = 10.0
SETTLING: Final = 0.1
"""Seconds of one poll while the group settles."""
_log: Final = logging.getLogger("eventflows")


class Group:
    """A consumer that is, or becomes, a member. Its owner's thread calls it.

    Args:
        client: Which of the two.
        location: The source.
        options: Its options.
        timeout: Seconds for connecting.
        newest: Where partitions ended when the source was first opened, with `from=latest`; noted here, and kept.
        transactor: Commits positions together with outputs; None: positions are committed by themselves.
    """

    def __init__(
        self,
        client: Client,
        location: Location,
        options: Options,
        timeout: float,
        newest: dict[Partition, int],
        transactor: Transactor | None = None,
    ) -> None:
        self._client = client
        self._newest = newest
        self._location = location
        self._options = options
        self._topics = [] if options.get("pattern") else given.topics(location)
        self.claims: dict[Partition, Claim] = {}
        self.stash: dict[Claim, Records] = {}
        """What was fetched and not handed out: at most one stretch of each claim."""
        self._gaps: list[Gap] = []
        self._identities: dict[str, object] = {}
        """What tells topics from others of their name, as of the last look."""
        self._looked_at = time.monotonic()
        self._missing_since: float | None = None
        self.member: Member = client.member(location, options, self, timeout)
        self._transactor = transactor
        self.commits = self._make_commits()
        try:
            self._begin(timeout)
        except BaseException:
            self.member.close(0.5)
            raise

    def share(self, transactor: Transactor) -> None:
        """Commit positions together with outputs from now on; nothing was claimed yet."""
        self._transactor = transactor
        self.commits = self._make_commits()

    def _make_commits(self) -> Commits:
        if self._transactor is None:
            return Commits(self.member, self.claims, self.fence)
        from eventflows.adapters._kafka_transactions import TransactedCommits

        return TransactedCommits(self._transactor, self.member, self.claims, self.fence)

    def _begin(self, timeout: float) -> None:
        if self._topics:
            self.member.look(self._topics, timeout)
        for topic in self._topics:
            self._must_be_there(topic)
        if self._options.get("from") == "latest" and not self._newest:
            self._note_ends(timeout)
        self.member.find_group(timeout)
        self.member.join(self._topics, self._location.path if self._options.get("pattern") else None)

    def _note_ends(self, timeout: float) -> None:
        """Note where all that is there ends: what is made from now on is read from its beginning."""
        topics = self._topics
        if not topics:
            pattern = self._location.path
            topics = [one for one in self.member.topics() if re.match(pattern, one) and not one.startswith("__")]
            self.member.look(topics, timeout)
        there = [Partition(topic, number) for topic in topics for number in self.member.partitions(topic)]
        if there:
            self._newest |= self.member.ends(there, timeout)

    def _must_be_there(self, topic: str) -> None:
        if self.member.denied(topic):
            raise denied(self._location.text, topic)
        if not self.member.partitions(topic):
            raise missing(self._location.text, topic)

    def position(self, record: Any) -> str:  # noqa: ANN401 - the client's own
        """Name the place of a record; the topic is part of it where there are several."""
        return self._place(self.member.columns.partition(record), self.member.columns.offset(record))

    def _place(self, partition: Partition, offset: int) -> str:
        short = f"{partition.partition}:{offset}"
        return short if len(self._topics) == 1 else f"{partition.topic}/{short}"

    # Polling.

    def poll(self, limit: int, timeout: float, skip: Collection[Lane], woken: Callable[[], bool]) -> None:
        """Let the client work until it has records, time is over or somebody rang; what it has is stashed."""
        held = [
            claim.partition
            for claim in self.claims.values()
            if not limit or claim.lane in skip or claim in self.stash or not claim.mark.room
        ]
        self.member.poll(limit, timeout, held, woken)

    def fetched(self, partition: Partition, records: Records) -> None:
        """Stash records; of no claim, or of one that ended, they come again from the committed position."""
        claim = self.claims.get(partition)
        if claim is None or claim.lane.lost:
            return
        try:
            self._track(claim, records)
        except RewoundError as error:
            self.fence([partition])
            raise BrokerError(
                f"{self._location.text}: {claim.lane.name} goes on at offset {error.offset}, though everything below "
                f"{error.after} was received; it is opened again.", retryable=True,
            ) from error  # fmt: skip
        self.stash.setdefault(claim, []).extend(records)

    def _track(self, claim: Claim, records: Records) -> None:
        offset = self.member.columns.offset
        with claim.lane.lock:
            first, stop = offset(records[0]), offset(records[-1]) + 1
            if stop - first == len(records):
                claim.mark.track(first, stop)
            else:
                claim.mark.track_offsets([offset(record) for record in records])

    def stashed(self, partition: Partition) -> int:
        """Count the records that came and were not handed out."""
        claim = self.claims.get(partition)
        return 0 if claim is None else len(self.stash.get(claim, ()))

    # Claims.

    def fence(self, partitions: Iterable[Partition]) -> list[Claim]:
        """End the claims of partitions; gives those that had not ended."""
        ended = []
        for partition in partitions:
            claim = self.claims.pop(partition, None)
            if claim is None:
                continue
            self.stash.pop(claim, None)
            if claim.fence():
                ended.append(claim)
        return ended

    def claim(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Begin claims; gives where each is read from."""
        if self._transactor is not None:
            self._take_over(self._transactor, partitions)
        begun = self.member.committed(partitions, ASK_SECONDS)
        starts = self._starts([one for one in partitions if one not in begun])
        for one in partitions:
            if one in begun:  # perhaps by our own last commit, which was of a topic that has been replaced since
                self.claims[one] = Claim(one, begun[one], self._identities.get(one.topic))
            else:
                self.claims[one] = Claim(one, Committed(starts[one]))
        self.commits.soon()
        return {one: self.claims[one].mark.read for one in partitions}

    def _take_over(self, transactor: Transactor, partitions: Collection[Partition]) -> None:
        """End what former owners left open, if they did not end well: stable positions would be waited for."""
        transactor.prepare(TAKE_OVER_SECONDS)
        found = self.member.committed(partitions, ASK_SECONDS, stable=False)
        transactor.fence({at.producer for at in found.values() if at.claims and at.producer}, TAKE_OVER_SECONDS)

    def _starts(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Say where a group begins that has committed nothing."""
        begin = self._options.get("from")
        if begin != "latest":
            return begins(self.member, partitions, begin, ASK_SECONDS)
        known = {one: self._newest[one] for one in partitions if one in self._newest}
        new = [one for one in partitions if one not in known]
        return known | begins(self.member, new, "earliest", ASK_SECONDS)

    def out_of_range(self, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        """Begin anew where the log does not have the position: retention overtook it, or the topic was made anew."""
        firsts = self.member.firsts(partitions, ASK_SECONDS)
        for one in partitions:
            at, first, lane = self.claims[one].mark.read, firsts[one], self.claims[one].lane
            self._begin_anew(one, first)
            if first > at:
                self._gaps.append(Gap(lane, self._place(one, at), self._place(one, first - 1)))
            else:
                _log.warning("%s: %s ends before offset %d, which was to come next: the topic was made anew, or lost "
                             "its end. It is read from its beginning.", self._location.text, lane.name, at)  # fmt: skip
        self.commits.soon()
        return firsts

    def _begin_anew(self, partition: Partition, first: int) -> None:
        self.fence([partition])
        self.claims[partition] = Claim(partition, Committed(first))
        self._identities.pop(partition.topic, None)  # whatever it was, this claim may be of another

    def moving(self, claims: list[Claim], tell: Callable[[], None]) -> Mapping[Partition, Committed] | None:
        """Give what is to be committed of claims before they move; None: wait until `tell` is called instead."""
        return self.commits.moving(claims, tell)

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
        self.commits.service(now, ready=self.member.settled)
        if now - self._looked_at >= 1.0:
            self._looked_at = now
            self._look_for_topics(now)

    def _pass_over(self) -> None:
        """Let positions reach past entries that hold no message."""
        passed = self.member.passed()
        for partition, claim in self.claims.items():
            offset = passed.get(partition)
            if offset is not None and offset > claim.mark.read:
                with claim.lane.lock:
                    claim.mark.pass_over(offset)

    def _look_for_topics(self, now: float) -> None:
        gone = [topic for topic in self._topics if not self.member.partitions(topic)]
        if not gone:
            self._missing_since = None
        elif self._missing_since is None:
            self._missing_since = now
        elif now - self._missing_since >= MISSING_SECONDS:
            self._must_be_there(gone[0])
        self._look_for_other_topics()

    def _look_for_other_topics(self) -> None:
        """Begin anew where a topic was replaced by another of its name, whose messages may have offsets seen before."""
        self._identities |= self.member.identities()
        replaced = []
        for one, claim in self.claims.items():
            identity = self._identities.get(one.topic)
            if claim.identity is None:
                claim.identity = identity
            elif identity != claim.identity:
                replaced.append(one)
        if not replaced:
            return
        try:
            firsts = self.member.firsts(replaced, ASK_SECONDS)
        except BrokerError:
            return  # asked again with the next look: opened again, nobody would know
        for one in replaced:
            _log.warning("%s: topic %s was made anew; partition %d is read from its beginning.",
                         self._location.text, one.topic, one.partition)  # fmt: skip
            self._begin_anew(one, firsts[one])
        self.commits.soon()
        self.member.read_from(firsts)

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
            done = last and not self.commits.unsaved
            if not isinstance(error, SettlingError) or left <= SETTLING or done:
                return error
            try:
                self.poll(0, SETTLING, (), lambda: False)
            except BrokerError:
                return error

    # Looking.

    def backlog(self, timeout: float) -> Backlog:
        """Count what waits, on every partition of the topics."""
        deadline = time.monotonic() + timeout
        topics = self._topics or sorted(self.member.subscribed())
        partitions = [Partition(topic, number) for topic in topics for number in self.member.partitions(topic)]
        self._pass_over()
        ends = self.member.ends(partitions, timeout)
        others = [one for one in partitions if one not in self.claims]
        known = {one: place.position for one, place in self.member.committed(others, timeout).items()}
        known |= self._starts([one for one in others if one not in known])
        known |= {one: claim.mark.read for one, claim in self.claims.items()}
        stashed = {claim.partition: len(records) for claim, records in self.stash.items()}
        lanes = {
            f"{one.topic}/{one.partition}": max(ends[one] - known[one], 0) + stashed.get(one, 0) for one in partitions
        }
        first = [self.member.columns.timestamp(records[0]) for records in self.stash.values()]
        starts = {one: known[one] for one in partitions if known[one] < ends[one] and one not in stashed}
        if starts:
            first += oldest(self._client, self._location, self._options, starts, ends, deadline)
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
        self.fence(list(self.claims))
        self.member.close(min(max(deadline - time.monotonic(), 0.1), 5.0))
        if unsaved and error is not None and not isinstance(error, LeaseLostError):
            raise error
