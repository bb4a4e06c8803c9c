"""What waits in kafka-python's producer for a topic that was deleted: it would be kept until it expires, unsaid."""

from __future__ import annotations

import time
from typing import Any, Final

from kafka.errors import UnknownTopicOrPartitionError
from kafka.producer.producer_batch import ProducerBatch

from eventflows.adapters._kafka_clients import MISSING_SECONDS
from kafka import KafkaProducer

LOOK_SECONDS: Final = 1.0


class GoneTopics:
    """Fails what waits for a topic that brokers have not known for some seconds. The sender's thread calls it.

    Args:
        producer: Whose sender it is.
    """

    def __init__(self, producer: KafkaProducer) -> None:
        self._metadata = producer._metadata
        self._accumulator = producer._accumulator
        self._since: dict[str, float] = {}
        self._expire = self._accumulator.expired_batches
        self._accumulator.expired_batches = self._expired

    def _expired(self, now: float | None = None) -> list[ProducerBatch]:
        """Give what has expired; what waits for a topic that is gone is failed here."""
        expired: list[ProducerBatch] = self._expire(now=now)
        now = time.monotonic() if now is None else now
        # Brokers that do not answer leave what is known as it is: so these are topics that a broker did not know.
        waiting = [place for place, batches in list(self._accumulator._batches.items()) if batches]
        gone = {one.topic for one in waiting if self._metadata.partitions_for_topic(one.topic) is None}
        self._since = {topic: self._since.get(topic, now) for topic in gone}
        for place in waiting:
            if now - self._since.get(place.topic, now) >= MISSING_SECONDS:
                self._fail(place)
        if gone:
            look = (now + LOOK_SECONDS) * 1000
            self._accumulator._next_batch_expiry_time_ms = min(self._accumulator._next_batch_expiry_time_ms, look)
        return expired

    def _fail(self, place: Any) -> None:  # noqa: ANN401 - a TopicPartition
        error = UnknownTopicOrPartitionError(place.topic)
        with self._accumulator._tp_lock(place):
            batches = self._accumulator._batches[place]
            failed = list(batches)
            batches.clear()
            for batch in failed:
                batch.records.close()
        for batch in failed:
            batch.complete_exceptionally(error, lambda _: error)
            self._accumulator.deallocate(batch)
