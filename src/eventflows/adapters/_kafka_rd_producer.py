"""A producer of librdkafka, idempotent: another lets a batch overtake one that is refused for a while.

With one request under way it has the next one ready, and sends that first when the one is to be sent again.
An idempotent producer does nothing any more after what it calls a fatal error: then a new one is made.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import repeat
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from eventflows.adapters._kafka_clients import Options
from eventflows.adapters._kafka_errors import missing
from eventflows.adapters._kafka_rd_answers import Sent, Tellers
from eventflows.adapters._kafka_rd_client import Handled, abandon, connect, unhidden
from eventflows.adapters._kafka_rd_config import client_config
from eventflows.adapters._kafka_rd_errors import ENDED, code_of, name_it, translate
from eventflows.adapters._kafka_records import MAX_BYTES, Outgoing
from eventflows.errors import (
    BrokerError,
    InvalidMessageError,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    TooLargeError,
)
from eventflows.protocols import Location

BATCH_BYTES: Final = 1_000_000
CONNECT_SECONDS: Final = 5.0
LINGER: Final = 0.0005
"""Seconds. At 0 librdkafka sends the first record of a batch alone, and the rest when that is answered, which takes a
sixth more of a processor."""
ALONE_SENDS: Final = 10
"""How many calls of `send` put no two records into one batch, after a batch was refused."""
PLAIN: Final = 3
"""What every record has: value, key, headers."""
OWN_FAULT: Final = (InvalidMessageError, TooLargeError)
GIVEN_UP: Final = frozenset({"_FATAL", "_PURGE_QUEUE", "_PURGE_INFLIGHT"})
TIMED_OUT: Final = frozenset({"_MSG_TIMED_OUT", "_TIMED_OUT", "_TIMED_OUT_QUEUE"})


def producer_config(location: Location, options: Options) -> dict[str, Any]:
    """Give what every producer of ours is told; reads secrets and files.

    Raises:
        ConfigError: A secret, a CA or a certificate cannot be read.
    """
    return client_config(location, options) | {
        "acks": "all",
        "compression.type": options.get("compression", "none"),
        "linger.ms": float(str(options.get("linger", LINGER))) * 1000,
        "partitioner": "murmur2_random",  # as the Java client
        "message.max.bytes": MAX_BYTES + 48_000,
        "request.timeout.ms": 10_000,
        "queue.buffering.max.messages": 0,  # whoever sends bounds what is unconfirmed
        "queue.buffering.max.kbytes": 1024 * 1024,
    }


class RdProducer:
    """A connected producer.

    Args:
        location: The destination.
        options: Its options.
        timeout: Seconds for connecting.
    """

    def __init__(self, location: Location, options: Options, timeout: float) -> None:
        self._where = location.text
        self._topic = location.path
        self._config = producer_config(location, options) | {
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": 1,  # batches fill while one is under way, which costs less than 5
            "message.timeout.ms": 30_000,
        }
        self._batch_bytes = BATCH_BYTES
        self._alone_left = 0
        self._found: set[str] = set()
        self._spare: list[Tellers] = []
        self._asked_at = 0.0
        self._polls = threading.Lock()
        self._connect(timeout)

    def _connect(self, timeout: float) -> None:
        alone, size = kind = self._kind
        config = self._config | {"batch.size": size} | ({"batch.num.messages": 1} if alone else {})
        handle, causes = connect(Producer, config, self._topic, self._where, timeout)
        with self._polls:  # who polls the former one notes its end with that one, not with this
            self._handled, self._causes = Handled(handle), causes
        self._made_for = kind

    @property
    def _kind(self) -> tuple[bool, int]:
        """What batches are to be like: whether of one record, and their bytes."""
        return self._alone_left > 0, self._batch_bytes

    @property
    def _handle(self) -> Any:  # noqa: ANN401 - a Producer
        return self._handled.handle

    @property
    def cluster(self) -> str | None:
        """The id of the cluster; None: it does not say."""
        found: str | None = self._handle.cluster_id(5.0)
        return found

    def knows(self, topic: str) -> bool:
        """Whether it knows a topic without asking."""
        return topic in self._found

    def find(self, topic: str) -> None:
        """See that a topic is there, and may be used."""
        try:
            found = self._handle.list_topics(topic, timeout=5.0).topics[topic]
        except KafkaException as error:
            raise translate(error, self._where) from error
        if found.error is None:
            self._found.add(topic)
            return
        ours = name_it(found.error, self._where)
        if isinstance(ours, NotFoundError):
            raise missing(self._where, topic)
        raise ours

    def send(self, topic: str, records: Iterable[dict[str, Any] | BrokerError]) -> Sent:
        """Start to publish; what is an error already is its own answer."""
        given = list(records)
        sent, tellers = self._begin(len(given))
        produce = self._handle.produce
        for index, record in enumerate(given):
            try:
                if isinstance(record, BrokerError):
                    raise record
                if len(record) > PLAIN:
                    self._look_at(record)
                # By position, for names cost as much again: topic, value, key, partition, two names of the callback,
                # time in milliseconds (0: now), headers.
                produce(
                    topic, record["value"], record["key"], record.get("partition", -1), tellers.each[index], None,
                    record.get("timestamp_ms", 0), record["headers"] or None,
                )  # fmt: skip
            except (BrokerError, ValueError, TypeError, KafkaException, BufferError) as error:
                sent.fault(index, self._fault(error))
        self.serve(0.0)
        return sent

    def send_columns(self, topic: str, columns: Outgoing) -> Sent:
        """Start to publish what needs no look."""
        sent, tellers = self._begin(len(columns.values))
        produce = self._handle.produce
        rows = zip(columns.values, columns.keys or repeat(None), tellers.each, columns.headers(), strict=False)
        for index, (value, key, teller, headers) in enumerate(rows):
            try:
                produce(topic, value, key, -1, teller, None, 0, headers)
            except (KafkaException, BufferError) as error:
                sent.fault(index, self._fault(error))
        self.serve(0.0)
        return sent

    def _begin(self, count: int) -> tuple[Sent, Tellers]:
        if self._made_for != self._kind or self._causes.fatal is not None:
            self._make_anew()
        tellers = self._spare.pop() if self._spare else Tellers()
        tellers.begin(count)
        sent = Sent(self, tellers, self._spare, alone=self._alone_left > 0)
        self._alone_left = max(self._alone_left - 1, 0)
        return sent, tellers

    def _fault(self, error: Exception) -> BrokerError:
        if isinstance(error, BrokerError):
            return error
        if isinstance(error, (KafkaException, BufferError)):
            code = code_of(error)
            if code is not None and code.name() == "_FATAL":
                self.serve(0.0)  # tells which
                return self._over()
            return translate(error, self._where)
        ours = InvalidMessageError(f"{self._where}: {error}")
        ours.__cause__ = error
        return ours

    def _look_at(self, record: dict[str, Any]) -> None:
        if record.get("partition", 0) < 0:
            raise InvalidMessageError(f"{self._where}: there is no partition {record['partition']}.")

    def serve(self, timeout: float) -> None:
        """Let answers come; one thread at a time waits for them, the others for it."""
        if self._polls.acquire(timeout=timeout) if timeout else self._polls.acquire(blocking=False):
            try:
                self._handle.poll(timeout)
            except (KafkaException, SystemError) as error:
                self._causes.fatal = code_of(unhidden(error))
                self._handle.purge()  # nothing else ends what it was given; the answers come with the next turns
            finally:
                self._polls.release()

    def _over(self) -> BrokerError:
        """Say why the client did not publish, which does nothing any more; the next call makes a new one."""
        fatal = self._causes.fatal
        ours = None if fatal is None else name_it(fatal, self._where)
        if isinstance(ours, PermissionDeniedError):
            return ours
        why = "a fatal error" if fatal is None else fatal.name()
        unknown = OutcomeUnknownError(f"{self._where}: the client ended with {why}; the message may be there.")
        unknown.__cause__ = ours
        return unknown

    def late(self) -> BrokerError:
        """Say that no answer came in time, or why none comes."""
        if self._causes.fatal is not None:
            return self._over()
        if self._causes.refused:
            return self._causes.told(self._where)
        return OutcomeUnknownError(f"{self._where}: no answer in time; the message may be there, or come later.")

    def refused(self, error: Any, size: int, *, alone: bool) -> BrokerError:  # noqa: ANN401 - a KafkaError
        """Say why a message of so many bytes was not published.

        A broker refuses a whole batch because of one record in it, and librdkafka does not divide it: whose fault it
        was is known when each is sent alone.
        """
        if error.name() in ENDED:
            self._causes.fatal = error
        if self._causes.fatal is not None and error.name() in ENDED | GIVEN_UP:
            return self._over()
        if error.name() in TIMED_OUT and self._causes.refused:
            return self.late()
        if error.name() == "_UNKNOWN_PARTITION" and self._gone():
            return missing(self._where, self._topic)
        ours = name_it(error, self._where)
        other = error.name() == "_INVALID_DIFFERENT_RECORD"
        if not other and (alone or not isinstance(ours, OWN_FAULT) or error.name().startswith("_")):
            return ours
        self._alone_left = ALONE_SENDS
        if isinstance(ours, TooLargeError) and size < self._batch_bytes // 2:
            self._batch_bytes //= 4
        shared = BrokerError(f"{self._where}: it was refused together with others, {error.name()}; send it again.",
                             retryable=True)  # fmt: skip
        shared.__cause__ = ours
        return shared

    def _gone(self) -> bool:
        """Whether the topic is there no more, which looks like a partition that never was; asked once a second."""
        now = time.monotonic()
        if now - self._asked_at >= 1.0:
            self._asked_at = now
            try:
                self.find(self._topic)
            except NotFoundError:
                self._found.discard(self._topic)
            except BrokerError:
                pass  # not known: it stays as it was
        return self._topic not in self._found

    def _make_anew(self) -> None:
        old = self._handle
        self._connect(CONNECT_SECONDS)
        self._end(old, CONNECT_SECONDS)

    def close(self, timeout: float) -> None:
        """Send what was given, then disconnect; always disconnects."""
        self._end(self._handle, timeout)

    def _end(self, handle: Any, timeout: float) -> None:  # noqa: ANN401 - a Producer
        with self._polls:
            for seconds in (timeout, 1.0):
                try:
                    if not handle.flush(seconds):
                        break
                except (KafkaException, SystemError) as error:
                    unhidden(error)  # fatal for who is thrown away here: what it had left is purged, and answered so
                handle.purge()
        abandon(handle.close, 1.0)

    def leave(self) -> None:
        """Touch nothing of it any more: what has a handle sees to that by itself."""
