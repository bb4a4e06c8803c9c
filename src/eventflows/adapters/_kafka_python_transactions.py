"""kafka-python's transactional producer, used so that it keeps what a transaction promises."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import kafka.errors as native

from eventflows.adapters._kafka_chunks import Committed
from eventflows.adapters._kafka_clients import TRANSACTION_SECONDS, Options, Partition
from eventflows.adapters._kafka_errors import FencedError, fenced, missing, unanswered
from eventflows.adapters._kafka_python_client import build
from eventflows.adapters._kafka_python_errors import translate
from eventflows.adapters._kafka_python_gone import GoneTopics
from eventflows.adapters._kafka_python_member import native_offsets
from eventflows.adapters._kafka_python_producer import METADATA_SECONDS, producer_config
from eventflows.errors import BrokerError, InvalidMessageError, OutcomeUnknownError, TooLargeError
from eventflows.protocols import Location, PublishResult
from kafka import KafkaProducer

_OWN_FAULT: Final = (ValueError, TypeError, AssertionError)
_ENDED: Final = (
    native.ProducerFencedError,
    native.InvalidProducerEpochError,
    native.InvalidProducerIdMappingError,
    native.InvalidTxnStateError,
    native.UnknownProducerIdError,
    native.OutOfOrderSequenceNumberError,
    native.TransactionAbortableError,
)
"""After these only a new producer can go on, and it can."""


class PythonTransactions:
    """A transactional producer whose name has nothing open.

    Args:
        location: The destination.
        options: Its options.
        name: Its transactional id.
        timeout: Seconds for connecting, and for the end of what the name has open.
    """

    def __init__(self, location: Location, options: Options, name: str, timeout: float) -> None:
        self._where = location.text
        self.usable = True
        config = producer_config(location, options, timeout) | {
            "transactional_id": name,
            "enable_idempotence": True,
            "transaction_timeout_ms": int(TRANSACTION_SECONDS * 1000),
            "delivery_timeout_ms": int(TRANSACTION_SECONDS * 1000),
            "request_timeout_ms": 5_000,
            "max_block_ms": int(max(timeout, 0.1) * 1000),
            "retry_backoff_ms": 2,  # every transaction waits for the end of the one before by trying: 100 ms at first
            "linger_ms": 0,
        }
        self._producer, _ = build(KafkaProducer, config, self._where, timeout)
        GoneTopics(self._producer)
        try:
            self._producer.init_transactions()
        except Exception as error:
            self.close()
            raise translate(error, self._where) from error

    def run(
        self,
        records: Sequence[tuple[str, dict[str, Any]]],
        positions: Mapping[Partition, Committed],
        credentials: Any,  # noqa: ANN401 - a ConsumerGroupMetadata
        timeout: float,
        alone: Collection[int] = (),
    ) -> list[PublishResult]:
        """Commit positions and records as one; when any result has an error, nothing was."""
        deadline = time.monotonic() + timeout
        for topic in {topic for topic, _ in records}:
            self._find(topic)
        manager = self._producer._transaction_manager
        try:
            self._producer.begin_transaction()
            # The client keeps positions that the group refused, and would commit them with those of this transaction,
            # without the outputs that they were refused with.
            manager._pending_txn_offset_commits.clear()
            named = manager.send_offsets_to_transaction(native_offsets(positions), credentials)
            self._producer._sender.wakeup()
            results = self._write(records, alone, deadline)
            if any(one.error for one in results):
                self._abort(deadline)
                return results
            _await(named, deadline)
        except Exception as error:
            told = self._told(error, before_commit=True)
            self._abort(deadline)
            self._look_for({topic for topic, _ in records}, told)
            raise told from error
        self._commit(deadline)
        return results

    def _find(self, topic: str) -> None:
        """See that a topic is there; without it every single record would wait for it."""
        try:
            self._producer._wait_on_metadata(topic, METADATA_SECONDS * 1000)
        except native.KafkaError as error:
            ours = translate(error, self._where)
            raise (missing(self._where, topic) if isinstance(ours, OutcomeUnknownError) else ours) from error

    def _look_for(self, topics: Collection[str], told: BrokerError) -> None:
        """Say that a topic is gone, where that is why nothing was answered."""
        gone = [one for one in topics if self._producer._metadata.partitions_for_topic(one) is None]
        if gone and isinstance(told, OutcomeUnknownError):
            self.usable = False
            raise missing(self._where, gone[0]) from told

    def _write(
        self, records: Sequence[tuple[str, dict[str, Any]]], alone: Collection[int], deadline: float
    ) -> list[PublishResult]:
        sent: list[Any] = []
        answered = 0
        for index, (topic, record) in enumerate(records):
            if index in alone and not _answered(sent[answered:], deadline):
                break
            sent.append(self._send(topic, record))
            if index in alone:
                if not _answered(sent[-1:], deadline):
                    break
                answered = len(sent)
        results: list[PublishResult] = []
        failed: Exception | None = None
        for one in sent:
            try:
                told = _answer(one, deadline)
                results.append(PublishResult(f"{told.partition}:{told.offset}", None))
            except (native.KafkaError, BrokerError) as error:
                ours = translate(error, self._where)
                fault = isinstance(ours, (InvalidMessageError, TooLargeError))
                results.append(PublishResult(None, ours if fault else None))
                failed = failed or error
        if failed is not None:
            self.usable = False  # a batch that failed leaves a gap in its numbers, after which brokers take no more
        # One bad message fails all that is sent beside it; then only its own fault counts.
        if failed is not None and not any(one.error for one in results):
            raise failed
        return results + [PublishResult(None, None)] * (len(records) - len(sent))

    def _send(self, topic: str, record: dict[str, Any]) -> Any:  # noqa: ANN401 - a future, or what went wrong at once
        try:
            return self._producer.send(topic, **record)
        except _OWN_FAULT as error:
            return InvalidMessageError(f"{self._where}: {error}")
        except native.KafkaError as error:
            return error

    def _commit(self, deadline: float) -> None:
        try:
            committed = self._producer._transaction_manager.begin_commit()
            self._producer._sender.wakeup()
            _await(committed, deadline)
        except Exception as error:
            self.usable = False
            told = self._told(error)
            if isinstance(told, FencedError):
                raise told from error
            raise unanswered(self._where) from error

    def _abort(self, deadline: float) -> None:
        try:
            aborted = self._producer._transaction_manager.begin_abort()
            self._producer._sender.wakeup()
            _await(aborted, deadline)
        except Exception:  # noqa: BLE001 - the next of its name ends it, and the brokers do after a while
            self.usable = False

    def _told(self, error: BaseException, *, before_commit: bool = False) -> BrokerError:
        # What it raises after the first error says only that there was one.
        cause = self._producer._transaction_manager.last_error or error
        # The bare class is what records get whose transaction is over, as after a process slept; it says no more.
        if isinstance(cause, _ENDED) or (before_commit and type(cause) is native.KafkaError):
            self.usable = False
            return fenced(self._where, cause)
        return translate(cause, self._where)

    def close(self) -> None:
        """Disconnect at once."""
        # The client's own close waits for what is pending, and then may close nothing.
        self._producer._sender.force_close()
        self._producer._sender.join(2.0)
        with contextlib.suppress(Exception):
            self._producer.close(0)
        self._producer._closed = True


def _answer(sent: Any, deadline: float) -> Any:  # noqa: ANN401 - of `_send`
    if isinstance(sent, Exception):
        raise sent
    return sent.get(max(deadline - time.monotonic(), 0.0))


def _answered(sent: list[Any], deadline: float) -> bool:
    """Wait until the broker has taken all of it; False: it has not."""
    try:
        for one in sent:
            _answer(one, deadline)
    except (native.KafkaError, BrokerError):
        return False
    return True


def _await(result: Any, deadline: float) -> None:  # noqa: ANN401 - the client's own
    if not result.wait(max(deadline - time.monotonic(), 0.0) * 1000):
        raise native.KafkaTimeoutError("no answer in time")
