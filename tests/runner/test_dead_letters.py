"""What a dead letter says of its message."""

from __future__ import annotations

import uuid

from eventflows import Message, RetryPolicy, open_publisher, open_subscriber, subscriber
from eventflows.policy import Settlement, Verdict

PLENTY = 1 << 20


def test_copy_counts_each_attempt_once_when_they_were_used_up_before() -> None:
    """The broker has counted them; the message was never tried here."""
    place = f"local://{uuid.uuid4().hex}"
    with open_publisher(place) as source:
        source.publish([Message(b"1")])
    with open_subscriber(place) as before:
        for _ in range(3):  # three processes took it and ended without a word
            (chunk,) = before.receive(1, max_bytes=PLENTY, timeout=5.0)
            before.settle([Settlement(verdict=Verdict.RETRY, spans=[(chunk, slice(0, 1))])])

    @subscriber(place, name="count", retry=RetryPolicy(attempts=3), dead_letter=f"{place}-dead")
    def apply(input: int) -> None:
        raise AssertionError("it has no attempt left")

    apply.run(limit=1)
    with open_subscriber(f"{place}-dead") as dead:
        (chunk,) = dead.receive(1, max_bytes=PLENTY, timeout=5.0)
    assert chunk[0].message.headers["ef-attempts"] == "3"
