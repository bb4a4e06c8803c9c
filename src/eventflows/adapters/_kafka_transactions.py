"""Outputs and positions committed as one, through kafka-python's transactional producer.

A transaction names its positions first, then its outputs: so whoever takes a partition over, and reads positions that
are stable only, waits for every transaction that has written anything, or ends it.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import kafka.errors as native

from eventflows.adapters._kafka_chunks import Claim, Committed, KafkaChunk
from eventflows.adapters._kafka_clients import Options, Partition
from eventflows.adapters._kafka_commits import Commits
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_errors import translate
from eventflows.adapters._kafka_python_member import REVOKE_SECONDS, native_offsets
from eventflows.adapters._kafka_python_producer import producer_config
from eventflows.errors import BrokerError, InvalidMessageError, LeaseLostError, OutcomeUnknownError, TooLargeError
from eventflows.policy import Settlement
from eventflows.protocols import Location, PublishResult
from kafka import KafkaProducer

TRANSACTION_SECONDS: Final = 10.0
"""After this the brokers end a transaction by themselves; a successor does not wait for it, see `Transactor.fence`."""
_OWN_FAULT: Final = (ValueError, TypeError, AssertionError)


class Position(NamedTuple):
    """What one transaction commits of the group."""

    said: Mapping[Claim, Committed]
    member: Any
    """The client's `ConsumerGroupMetadata`: with it, brokers refuse what was another generation's."""
    transactor: Transactor


class Transactor:
    """One transactional producer, made when it is needed, and made anew after anything but success.

    Args:
        location: The destination.
        options: Its options.
        group: Of the source.
    """

    def __init__(self, location: Location, options: Options, group: str) -> None:
        self._config = producer_config(location, options, 30.0) | {
            "enable_idempotence": True,
            "transaction_timeout_ms": int(TRANSACTION_SECONDS * 1000),
            "delivery_timeout_ms": int(TRANSACTION_SECONDS * 1000),
            "request_timeout_ms": 5_000,
            "retry_backoff_ms": 2,  # every transaction waits for the end of the one before by trying: 100 ms at first
            "linger_ms": 0,
        }
        self._where = location.text
        self.id = f"eventflows-{group}-{uuid.uuid4().hex}"
        self._producer: Any = None  # a KafkaProducer
        self._lock = threading.Lock()

    def _make(self, name: str, timeout: float) -> Any:  # noqa: ANN401 - a KafkaProducer
        config = self._config | {"transactional_id": name, "max_block_ms": int(max(timeout, 0.1) * 1000)}
        producer, _ = build(KafkaProducer, config, self._where, timeout)
        try:
            producer.init_transactions()
        except Exception as error:
            _end(producer)
            raise translate(error, self._where) from error
        return producer

    def prepare(self, timeout: float) -> None:
        """Have the producer ready; whatever it left open before is over then, one way or the other.

        Raises:
            BrokerError: It cannot be made.
        """
        with self._lock:
            if self._producer is None:
                self._producer = self._make(self.id, timeout)

    def fence(self, names: Collection[str], timeout: float) -> None:
        """End the transactions of producers that did not end well, and let them do nothing more.

        Raises:
            BrokerError: One of them may still go on.
        """
        deadline = time.monotonic() + timeout
        for name in names:
            if name != self.id:
                _end(self._make(name, deadline - time.monotonic()))

    def transact(
        self, records: Sequence[tuple[str, dict[str, Any] | BrokerError]], position: Position, timeout: float
    ) -> list[PublishResult]:
        """Commit records, by topic, and position; when any result has an error, nothing was.

        Raises:
            LeaseLostError: A claim is not ours any more, or the group settles: nothing was committed.
            BrokerError: Nothing was committed; after `OutcomeUnknownError` it is not known, until positions are read
                anew.
        """
        faults = [PublishResult(None, one if isinstance(one, BrokerError) else None) for _, one in records]
        if any(one.error for one in faults):
            return faults
        with self._lock:
            if any(claim.lane.lost for claim in position.said):
                raise LeaseLostError(f"{self._where}: a partition that it was made from is somebody else's now.")
            if self._producer is None:
                self._producer = self._make(self.id, timeout)
            return self._transact(self._producer, records, position, time.monotonic() + timeout)

    def _transact(
        self,
        producer: Any,  # noqa: ANN401 - a KafkaProducer
        records: Sequence[tuple[str, Any]],
        position: Position,
        deadline: float,
    ) -> list[PublishResult]:
        try:
            producer.begin_transaction()
            # The client keeps the positions of a transaction that was refused, and would commit them with this one.
            producer._transaction_manager._pending_txn_offset_commits.clear()
            offsets = native_offsets({claim.partition: state for claim, state in position.said.items()})
            named = producer._transaction_manager.send_offsets_to_transaction(offsets, position.member)
            producer._sender.wakeup()
            results = self._write(producer, records, deadline)
            if any(one.error for one in results):
                self._abort(producer, deadline)
                return results
            _await(named, deadline)
        except Exception as error:
            self._abort(producer, deadline)
            raise self._told(error) from error
        self._commit(producer, deadline)
        for claim, state in position.said.items():
            with claim.lane.lock:
                claim.committed = state
        return results

    def _write(self, producer: Any, records: Sequence[tuple[str, Any]], deadline: float) -> list[PublishResult]:  # noqa: ANN401
        futures: list[Any] = []
        for topic, record in records:
            try:
                futures.append(producer.send(topic, **record))
            except _OWN_FAULT as error:
                futures.append(InvalidMessageError(f"{self._where}: {error}"))
        results: list[PublishResult] = []
        failed: Exception | None = None
        for future in futures:
            if isinstance(future, BrokerError):
                results.append(PublishResult(None, future))
                continue
            try:
                told = future.get(max(deadline - time.monotonic(), 0.0))
                results.append(PublishResult(f"{told.partition}:{told.offset}", None))
            except native.KafkaError as error:
                ours = translate(error, self._where)
                fault = isinstance(ours, (InvalidMessageError, TooLargeError))
                results.append(PublishResult(None, ours if fault else None))
                failed = failed or error
        # One bad message fails all that is sent beside it; then only its own fault counts.
        if failed is not None and not any(one.error for one in results):
            raise failed
        return results

    def _commit(self, producer: Any, deadline: float) -> None:  # noqa: ANN401 - a KafkaProducer
        try:
            committed = producer._transaction_manager.begin_commit()
            producer._sender.wakeup()
            _await(committed, deadline)
        except Exception as error:
            self._drop()
            if isinstance(error, native.ProducerFencedError):
                raise self._told(error) from error
            raise OutcomeUnknownError(
                f"{self._where}: no answer to the end of a transaction; the positions tell, when they are read anew."
            ) from error

    def _abort(self, producer: Any, deadline: float) -> None:  # noqa: ANN401 - a KafkaProducer
        try:
            aborted = producer._transaction_manager.begin_abort()
            producer._sender.wakeup()
            _await(aborted, deadline)
        except Exception:  # noqa: BLE001 - a new producer of the same name ends it, and the brokers do after a while
            self._drop()

    def _told(self, error: BaseException) -> BrokerError:
        if isinstance(error, native.ProducerFencedError):
            self._drop()
            self.id = f"{self.id.rpartition('-')[0]}-{uuid.uuid4().hex}"
            ours = BrokerError(
                f"{self._where}: somebody took over what this process worked on, as if it were dead; nothing was "
                "committed.", retryable=True,
            )  # fmt: skip
            ours.__cause__ = error
            return ours
        return translate(error, self._where)

    def give_up(self, claims: Collection[Claim], member: Any, timeout: float) -> None:  # noqa: ANN401 - as of Position
        """Say of claims that they ended well, once what is under way is over.

        Raises:
            BrokerError: It could not be said; who has them next ends what this one left.
        """
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=timeout):
            raise OutcomeUnknownError(f"{self._where}: a transaction is still under way.")
        try:
            said = {}
            for claim in claims:
                last = claim.committed
                if last.producer == self.id:
                    said[claim] = Committed(last.position, last.claims - 1)
            if said and self._producer is not None:
                self._transact(self._producer, [], Position(said, member, self), deadline)
        finally:
            self._lock.release()

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            _end(producer)

    def close(self) -> None:
        """Disconnect; what is under way is not committed."""
        mine = self._lock.acquire(timeout=1.0)
        try:
            self._drop()
        finally:
            if mine:
                self._lock.release()


def _await(result: Any, deadline: float) -> None:  # noqa: ANN401 - the client's own
    if not result.wait(max(deadline - time.monotonic(), 0.0) * 1000):
        raise native.KafkaTimeoutError("no answer in time")


def _end(producer: Any) -> None:  # noqa: ANN401 - a KafkaProducer
    # Its own close waits for what is pending, and then may close nothing.
    producer._sender.force_close()
    producer._sender.join(2.0)
    with contextlib.suppress(Exception):
        producer.close(0)
    producer._closed = True


class TransactedCommits(Commits):
    """Commits nothing by itself: positions go with their outputs.

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
        """Nothing: the next transaction counts the new claims."""

    def service(self, now: float, *, ready: bool) -> None:
        """Nothing is due."""

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
        member = self._member.credentials()

        def say() -> None:
            with contextlib.suppress(BrokerError):  # who has them next ends what this one left
                self._transactor.give_up(list(claims), member, REVOKE_SECONDS)
            tell()

        threading.Thread(target=say, name="kafka-last-transaction", daemon=True).start()
        return None

    def claim(self, settlements: Sequence[Settlement]) -> Position | None:
        """Give what a transaction commits: the end of what is settled, and claims that are not counted yet.

        Raises:
            LeaseLostError: A claim is not ours any more, or we have no place in the group.
        """
        # Before looking whether lanes are lost: an older generation is refused, a newer one would not be.
        member = self._member.credentials()
        ends: dict[Claim, int] = {}
        for settlement in settlements:
            for chunk, stretch in settlement.spans:
                assert isinstance(chunk, KafkaChunk)  # noqa: S101 - for the type checker: chunks come from receive
                start, stop, _ = stretch.indices(len(chunk))
                ends[chunk.claim] = max(chunk.stretch(start, stop)[1], ends.get(chunk.claim, 0))
        new = [claim for claim in self._claims.values() if claim.committed.producer != self._transactor.id]
        if not ends and not new:
            return None
        if member.generation_id < 0 or not member.member_id:  # brokers would take it from anybody
            raise LeaseLostError(f"group {member.group_id}: we have no place in it now.")
        said = {}
        for claim in [*ends, *new]:
            with claim.lane.lock:
                if not claim.lane.lost:
                    said[claim] = claim.at(ends.get(claim, claim.committed.position), self._transactor.id)
                elif claim in ends:
                    raise LeaseLostError(f"{claim.lane.name} is somebody else's now.")
        return Position(said, member, self._transactor) if said else None
