"""librdkafka's transactional producer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaException, Producer
from confluent_kafka import TopicPartition as Native

from eventflows.adapters._kafka_chunks import Committed
from eventflows.adapters._kafka_clients import TRANSACTION_SECONDS, Options, Partition
from eventflows.adapters._kafka_errors import fenced, missing, told, unanswered
from eventflows.adapters._kafka_rd_client import Handled, abandon, connect, unhidden
from eventflows.adapters._kafka_rd_errors import ENDED, code_of, translate
from eventflows.adapters._kafka_rd_producer import producer_config
from eventflows.errors import BrokerError, InvalidMessageError, OutcomeUnknownError, TooLargeError
from eventflows.protocols import Location, PublishResult

_MISSING: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "UNKNOWN_TOPIC_ID"})
LOOK_SECONDS: Final = 2.0
ABORT_SECONDS: Final = 2.0
BATCH_BYTES: Final = 131_072
"""Small, for a batch that is too large for its topic is refused, and then sent one by one."""


class RdTransactions(Handled):
    """A transactional producer whose name has nothing open.

    Args:
        location: The destination.
        options: Its options.
        name: Its transactional id.
        timeout: Seconds for connecting, and for the end of what the name has open.
    """

    def __init__(self, location: Location, options: Options, name: str, timeout: float) -> None:
        self._where = location.text
        config = producer_config(location, options) | {
            "transactional.id": name,
            "transaction.timeout.ms": int(TRANSACTION_SECONDS * 1000),
            "message.timeout.ms": int(TRANSACTION_SECONDS * 1000),
            "request.timeout.ms": 5_000,
            "retry.backoff.ms": 2,  # every transaction waits for the end of the one before by trying: 100 ms at first
            "retry.backoff.max.ms": 200,
            "batch.size": BATCH_BYTES,
            "linger.ms": 5,  # so that batches fill; the flush at the end of a transaction does not wait for it
        }
        self.usable = True
        deadline = time.monotonic() + timeout
        handle, _ = connect(Producer, config, location.path, self._where, timeout)
        super().__init__(handle)
        try:
            handle.init_transactions(max(deadline - time.monotonic(), 0.1))
        except KafkaException as error:
            self.close()
            raise translate(error, self._where) from error

    def run(
        self,
        records: Sequence[tuple[str, dict[str, Any]]],
        positions: Mapping[Partition, Committed],
        credentials: Any,  # noqa: ANN401 - bytes, the client's own
        timeout: float,
        alone: Collection[int] = (),
    ) -> list[PublishResult]:
        """Commit positions and records as one; when any result has an error, nothing was."""
        deadline = time.monotonic() + timeout
        offsets = [Native(*one, state.position, state.metadata) for one, state in positions.items()]
        try:
            self.handle.begin_transaction()
            self.handle.send_offsets_to_transaction(offsets, credentials, max(deadline - time.monotonic(), 0.0))
            results = self._write(records, alone, deadline)
        except (KafkaException, BrokerError) as error:
            ours = self._told(error)
            self._abort()
            raise ours from error
        if any(one.error for one in results):
            self._abort()
            return results
        self._commit(deadline)
        return results

    def _write(
        self, records: Sequence[tuple[str, dict[str, Any]]], alone: Collection[int], deadline: float
    ) -> list[PublishResult]:
        answers: list[Any] = []

        def told_of(index: int, error: Any, message: Any) -> None:  # noqa: ANN401 - the client's own
            answers[index] = message if error is None else self._told(KafkaException(error))

        def refused() -> bool:
            self._flush(deadline)
            return any(answer is None or isinstance(answer, BrokerError) for answer in answers)

        for index, (topic, record) in enumerate(records):
            if index in alone and refused():
                break
            answers.append(None)
            fault = self._start(topic, record, partial(told_of, index))
            if fault is not None:
                answers[index] = fault
            if index in alone and refused():
                break
        if not refused():
            return [PublishResult(f"{answer.partition()}:{answer.offset()}", None) for answer in answers]
        self._look_for(records, answers)
        return self._faults(answers) + [PublishResult(None, None)] * (len(records) - len(answers))

    def _flush(self, deadline: float) -> None:
        try:
            self.handle.flush(max(deadline - time.monotonic(), 0.0))
        except SystemError as error:
            raise unhidden(error) from None

    def _look_for(self, records: Sequence[tuple[str, dict[str, Any]]], answers: Sequence[Any]) -> None:
        """See whether topics are there that were not found, or no partition of them: then no message is to blame."""
        doubtful = {
            topic
            for (topic, _), answer in zip(records, answers, strict=False)
            if isinstance(answer, BrokerError) and answer.__cause__ is not None and _not_found(answer.__cause__)
        }
        for topic in doubtful:
            error = self.handle.list_topics(topic, timeout=LOOK_SECONDS).topics[topic].error
            if error is not None and error.name() in _MISSING:
                self.usable = False
                raise missing(self._where, topic)

    def _faults(self, answers: Sequence[Any]) -> list[PublishResult]:
        self.usable = False  # a batch that failed leaves a gap in its numbers
        faults = [isinstance(answer, (InvalidMessageError, TooLargeError)) for answer in answers]
        if not any(faults):  # one bad message fails what is sent beside it; then only its own fault counts
            late = OutcomeUnknownError(f"{self._where}: no answer in time; the transaction was given up.")
            raise next((answer for answer in answers if isinstance(answer, BrokerError)), late)
        return [PublishResult(None, answer if fault else None) for answer, fault in zip(answers, faults, strict=True)]

    def _start(self, topic: str, record: dict[str, Any], answer: Any) -> BrokerError | None:  # noqa: ANN401
        partition = record.get("partition", -1)
        if partition < 0 and "partition" in record:
            return InvalidMessageError(f"{self._where}: there is no partition {partition}.")
        try:
            self.handle.produce(
                topic, record["value"], record["key"], partition, on_delivery=answer,
                timestamp=record.get("timestamp_ms", 0), headers=record["headers"],
            )  # fmt: skip
        except (ValueError, TypeError) as error:
            return told(InvalidMessageError, self._where, str(error), error)
        except (KafkaException, BufferError) as error:
            return translate(error, self._where)
        return None

    def _commit(self, deadline: float) -> None:
        try:
            self.handle.commit_transaction(max(deadline - time.monotonic(), 0.0))
        except KafkaException as error:
            code = code_of(error)
            # A broker that knows no word for its error, as one that begins, may have committed all the same.
            if code.txn_requires_abort() and code.name() != "UNKNOWN":
                ours = self._told(error)
                self._abort()
                raise ours from error
            self.usable = False
            if code.name() in ENDED:
                raise fenced(self._where, error) from error
            raise unanswered(self._where) from error

    def _abort(self) -> None:
        if not self.usable:
            return
        try:
            self.handle.abort_transaction(ABORT_SECONDS)
        except KafkaException:
            self.usable = False  # the next of its name ends it, and the brokers do after a while

    def _told(self, error: BaseException) -> BrokerError:
        code = code_of(error)
        if code is not None and (code.fatal() or code.name() in ENDED):
            self.usable = False
            return fenced(self._where, error)
        return translate(error, self._where)

    def close(self) -> None:
        """Disconnect at once."""
        self.handle.purge()
        abandon(self._disconnect, 1.0)

    def _disconnect(self) -> None:
        with contextlib.suppress(KafkaException):  # what was fatal before is told once more
            self.handle.close()


def _not_found(error: BaseException) -> bool:
    code = code_of(error)
    return code is not None and (code.name() == "_UNKNOWN_PARTITION" or code.name() in _MISSING)
