"""Sees at the gate what a group commits, and says so when it commits more than is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from kafka.protocol.consumer.group import OffsetCommitRequest

from servers.kafka_gate import COMMIT, PRODUCE, KafkaGate, Request


class Watch:
    """Every commit of a group that passes the gate, as it passes.

    Args:
        gate: What the group's members and their outputs pass.
        group: Whose commits.
        done: Says of partition and offset of an input whether it is done.
    """

    def __init__(self, gate: KafkaGate, group: str, done: Callable[[int, int], bool]) -> None:
        self._group = group
        self._done = done
        self._lock = threading.Lock()
        self._sure: dict[int, int] = {}
        self.commits = 0
        """How many positions were committed."""
        self.wrong: list[str] = []
        """Positions that passed an input that was not done."""
        gate.rules.append(self._look)

    def _look(self, request: Request) -> bool:
        if request.api != COMMIT:
            return False
        said = OffsetCommitRequest.decode(request.frame, version=request.version, header=True)
        if said.group_id == self._group:
            for place in (one for topic in said.topics for one in topic.partitions):
                self._judge(place.partition_index, place.committed_offset)
        return False

    def _judge(self, partition: int, position: int) -> None:
        with self._lock:
            self.commits += 1
            for offset in range(self._sure.get(partition, 0), position):
                if not self._done(partition, offset):
                    self.wrong.append(f"{partition}:{offset} was not done when {position} was committed")
                    return
            self._sure[partition] = max(self._sure.get(partition, 0), position)


class Outputs:
    """The outputs that the broker has confirmed, as its answers pass the gate.

    Args:
        gate: What they pass.
        inputs: Partition and offset of each input, and its number, which its output says again.
    """

    def __init__(self, gate: KafkaGate, inputs: Mapping[tuple[int, int], int]) -> None:
        self._inputs = inputs
        self._confirmed: set[int] = set()
        gate.answer_rules.append(self._look)

    def _look(self, request: Request) -> bool:
        if request.api == PRODUCE:
            self._confirmed |= {int(value or b"-1") for _, value in request.values()}
        return False

    def done(self, partition: int, offset: int) -> bool:
        """Say whether the output of an input is confirmed."""
        return self._inputs[partition, offset] in self._confirmed
