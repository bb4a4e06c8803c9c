"""Outputs and positions committed as one: who may commit what, and who ends what others left.

Each process has a transactional id of its own. Before its first transaction it writes that name beside the position of
every partition that it has claimed; so whoever takes a partition over finds there whom to fence, and waits for nobody.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from eventflows.adapters._kafka_chunks import Claim, Committed, KafkaChunk
from eventflows.adapters._kafka_clients import TRANSACTION_SECONDS, Client, Options, Partition, Transactions
from eventflows.adapters._kafka_commits import PROBE_SECONDS, Commits
from eventflows.adapters._kafka_errors import FencedError, SettlingError
from eventflows.errors import BrokerError, LeaseLostError, OutcomeUnknownError
from eventflows.policy import Settlement
from eventflows.protocols import Location, PublishResult

LAST_SECONDS: Final = 5.0
"""So long may partitions wait for the end of the transaction that is under way, before they move."""
NAMING_SECONDS: Final = 5.0
ASK_SECONDS: Final = 0.5


class Position(NamedTuple):
    """What one transaction commits of the group."""

    said: Mapping[Claim, Committed]
    credentials: Any
    """The member's, as of the claim: with them, brokers refuse what was another generation's."""
    transactor: Transactor


class Transactor:
    """Runs transactions one at a time, with a producer that is made anew after whatever leaves one open.

    Args:
        client: Of the source, for its credentials are shown.
        location: The destination.
        options: Its options.
        group: Of the source.
    """

    def __init__(self, client: Client, location: Location, options: Options, group: str) -> None:
        self._client = client
        self._location = location
        self._options = options
        self._prefix = f"eventflows-{group}"
        self.id = self._fresh()
        self._transactions: Transactions | None = None
        self._lock = threading.Lock()

    def _fresh(self) -> str:
        return f"{self._prefix}-{uuid.uuid4().hex}"

    def _make(self, name: str, timeout: float) -> Transactions:
        return self._client.transactions(self._location, self._options, name, max(timeout, 0.1))

    def _ready(self, timeout: float) -> Transactions:
        if self._transactions is None:
            self._transactions = self._make(self.id, timeout)
        return self._transactions

    def prepare(self, timeout: float) -> None:
        """Have the producer ready; whatever it left open before is over then, one way or the other.

        Raises:
            BrokerError: It cannot be made.
        """
        if not self._lock.acquire(timeout=timeout):
            raise self._busy()
        try:
            self._ready(timeout)
        finally:
            self._lock.release()

    def _busy(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(f"{self._location.text}: a transaction is still under way.")

    def fence(self, names: Collection[str], timeout: float) -> None:
        """End the transactions of producers that did not end well, and let them do nothing more.

        Raises:
            BrokerError: One of them may still go on.
        """
        deadline = time.monotonic() + timeout
        for name in names:
            if name != self.id:
                self._make(name, deadline - time.monotonic()).close()

    def transact(
        self, records: Sequence[tuple[str, dict[str, Any] | BrokerError]], position: Position, timeout: float
    ) -> list[PublishResult]:
        """Commit records, by topic, and position; when any result has an error, nothing was.

        Raises:
            LeaseLostError: A claim is not ours any more, or the group settles: nothing was committed.
            BrokerError: Nothing was committed; after `OutcomeUnknownError` it is not known, until positions are read
                anew.
        """
        good = [(topic, record) for topic, record in records if not isinstance(record, BrokerError)]
        if len(good) < len(records):
            return [PublishResult(None, one if isinstance(one, BrokerError) else None) for _, one in records]
        with self._lock:
            if any(claim.lane.lost for claim in position.said):
                raise LeaseLostError(f"{self._location.text}: an input's partition is somebody else's now.")
            return self._find_fault(good, position, min(timeout, TRANSACTION_SECONDS))

    def _find_fault(
        self, records: Sequence[tuple[str, dict[str, Any]]], position: Position, timeout: float
    ) -> list[PublishResult]:
        """Run it; when a record is refused, again with those alone that may only have been beside it."""
        alone: set[int] = set()
        while True:
            results = self._run(records, position, timeout, alone)
            refused = {index for index, result in enumerate(results) if result.error}
            if refused <= alone or len(records) == 1:
                return results
            alone |= refused

    def _run(
        self,
        records: Sequence[tuple[str, dict[str, Any]]],
        position: Position,
        timeout: float,
        alone: Collection[int] = (),
    ) -> list[PublishResult]:
        transactions = self._ready(timeout)
        positions = {claim.partition: state for claim, state in position.said.items()}
        try:
            results = transactions.run(records, positions, position.credentials, timeout, alone)
        except FencedError:
            self.id = self._fresh()  # who fenced us may do it again under the old one
            raise
        finally:
            if not transactions.usable:
                self._drop()
        if not any(result.error for result in results):
            for claim, state in position.said.items():
                with claim.lane.lock:
                    claim.committed = state
        return results

    def give_up(self, claims: Collection[Claim], credentials: Any, timeout: float) -> None:  # noqa: ANN401
        """Say of claims that they ended well, once what is under way is over.

        Args:
            claims: They may be fenced already.
            credentials: As of `Position`.
            timeout: Seconds.

        Raises:
            BrokerError: It could not be said; who has them next ends what this one left.
        """
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise self._busy()
        try:
            said = {}
            for claim in claims:
                last = claim.committed
                if last.producer == self.id:
                    said[claim] = Committed(last.position, last.claims - 1)
            if said and credentials is not None and self._transactions is not None:
                self._run([], Position(said, credentials, self), max(deadline - time.monotonic(), 0.1))
        finally:
            self._lock.release()

    def _drop(self) -> None:
        transactions, self._transactions = self._transactions, None
        if transactions is not None:
            transactions.close()

    def close(self) -> None:
        """Disconnect; what is under way is not committed."""
        mine = self._lock.acquire(timeout=1.0)
        try:
            self._drop()
        finally:
            if mine:
                self._lock.release()


class TransactedCommits(Commits):
    """Commits positions with their outputs, and by themselves only the name of the producer at the begin of a claim.

    Args:
        transactor: Commits them.
        more: As of `Commits`.
    """

    def __init__(self, transactor: Transactor, *more: Any) -> None:  # noqa: ANN401 - as of Commits
        super().__init__(*more)
        self._transactor = transactor

    @property
    def unsaved(self) -> bool:
        """Never: what is not committed was never said to be."""
        return False

    def soon(self) -> None:
        """Nothing: new claims are named before the next transaction."""

    def service(self, now: float, *, ready: bool) -> None:
        """Look now and then whether the group may still be used: while nothing comes, no transaction would tell.

        Raises:
            BrokerError: It may not.
        """
        if not ready or now - self._at < PROBE_SECONDS:
            return
        self._at = now
        try:
            self._member.probe(ASK_SECONDS)
        except BrokerError as error:
            if not error.retryable and not isinstance(error, LeaseLostError):
                raise

    def now(self, timeout: float, *, last: bool = False) -> BrokerError | None:
        """Say that the claims end well, if they do."""
        if last:
            try:
                self._transactor.give_up(list(self._claims.values()), self._member.credentials(), timeout)
            except BrokerError as error:
                return error
        return None

    def moving(self, claims: Iterable[Claim], tell: Callable[[], None]) -> Mapping[Partition, Committed] | None:
        """Say that claims end well, on a thread of its own; `tell` is called afterwards, however it went."""
        credentials = self._member.credentials()

        def say() -> None:
            with contextlib.suppress(BrokerError):  # who has them next ends what this one left
                self._transactor.give_up(list(claims), credentials, LAST_SECONDS)
            tell()

        threading.Thread(target=say, name="kafka-last-transaction", daemon=True).start()
        return None

    def claim(self, settlements: Sequence[Settlement]) -> Position | None:
        """Give what a transaction commits: the end of what is settled.

        Raises:
            LeaseLostError: A claim is not ours any more, or we have no place in the group, or it settles.
            BrokerError: Claims could not be named.
        """
        self._name_claims()
        # Before looking whether lanes are lost: an older generation is refused, a newer one would not be.
        credentials = self._member.credentials()
        ends: dict[Claim, int] = {}
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, KafkaChunk)  # noqa: S101 - for the type checker: chunks come from receive
                start, stop, _ = stretch.indices(len(chunk))
                ends[chunk.claim] = max(chunk.stretch(start, stop)[1], ends.get(chunk.claim, 0))
        if not ends:
            return None
        if credentials is None:
            raise LeaseLostError("we have no place in the group now.")
        said = {}
        for claim, end in ends.items():
            with claim.lane.lock:
                if claim.lane.lost:
                    raise LeaseLostError(f"{claim.lane.name} is somebody else's now.")
                said[claim] = claim.at(end, self._transactor.id)
        return Position(said, credentials, self._transactor)

    def _name_claims(self) -> None:
        """Write the name of our producer beside the positions of new claims.

        By a plain commit: a transaction that ends with its process, before anybody knows whose it was, would have to
        be waited for. Of these partitions there is no other commit that it could overtake: they have just been claimed,
        and their first transaction comes after the answer.
        """
        name = self._transactor.id
        new = {
            claim: claim.at(claim.committed.position, name)
            for claim in self._claims.values()
            if claim.committed.producer != name and not claim.lane.lost
        }
        if not new:
            return
        try:
            self._member.commit({claim.partition: state for claim, state in new.items()}, NAMING_SECONDS)
        except SettlingError as error:
            raise LeaseLostError(str(error)) from error
        for claim, state in new.items():
            claim.committed = state
