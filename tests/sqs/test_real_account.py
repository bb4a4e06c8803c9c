"""Amazon SQS itself sits the adapter suite, where credentials and EVENTFLOWS_TEST_SQS_REGION are in the environment.

It makes queues named conformance-..., and deletes them. What no local server shows is here: the true limits, policies,
the service's own sampling, its own error codes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import pytest

from eventflows import open_subscriber
from eventflows.protocols import Publisher
from eventflows.testing import AdapterConformance, Harness, wait_until
from eventflows.testing.cases import PLENTY, numbered
from sqs_harness import Keyed

REGION = os.environ.get("EVENTFLOWS_TEST_SQS_REGION", "")
SPREAD = 90.0
"""Seconds until a changed policy is in force everywhere; AWS says 60 at most."""

pytestmark = [
    pytest.mark.trial,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not REGION, reason="needs an AWS account: EVENTFLOWS_TEST_SQS_REGION is not set"),
]


class RealHarness(Harness):
    """Standard queues of the account that the environment gives."""

    name = "Amazon SQS"
    allowed_skips: ClassVar[Mapping[str, str] | None] = None
    native_type = dict
    patience = 90.0
    quiet = 3.0
    slack = 5.0
    lease = 5.0
    delay = 5.0
    volume = 480
    suffix: ClassVar[str] = ""
    source_options: ClassVar[Mapping[str, object]] = {"visibility": 30}

    def __init__(self) -> None:
        import boto3

        self.client: Any = boto3.Session(region_name=REGION).client("sqs")
        self.urls: dict[str, str] = {}

    def fresh(self) -> str:
        """FIFO queues are known by their suffix."""
        return super().fresh() + self.suffix

    def create(self, name: str) -> None:
        """Make the queue."""
        kind = {"FifoQueue": "true"} if self.suffix else {}
        self.urls[name] = self.client.create_queue(QueueName=name, Attributes=kind)["QueueUrl"]

    def close(self) -> None:
        """Delete the queues."""
        for url in self.urls.values():
            self.client.delete_queue(QueueUrl=url)
        self.client.close()

    def source_url(self, name: str) -> str:
        """By region and name."""
        return f"sqs://{REGION}/{name if name.endswith(self.suffix) else name + self.suffix}"

    def short_lease(self) -> Mapping[str, object]:
        """The lease is an option of the source."""
        return {"visibility": int(self.lease)}

    @property
    def body_limit(self) -> int:
        """Bytes that are not text grow by a third, and say so in an attribute."""
        return (1_048_576 - 23) // 4 * 3

    def missing_url(self, side: Literal["source", "destination"]) -> str:
        """A queue that nobody made."""
        return self.source_url("nobody-made-this")


class RealFifoHarness(RealHarness):
    """FIFO queues of the account that the environment gives."""

    name = "Amazon SQS FIFO"
    suffix = ".fifo"

    def publisher(self, name: str, **options: Any) -> Publisher:
        """Give every message a key."""
        return Keyed(super().publisher(name, **options))


class TestRealSqs(AdapterConformance):
    """Standard queues of the service itself."""

    harness = RealHarness


class TestRealSqsFifo(AdapterConformance):
    """FIFO queues of the service itself."""

    harness = RealFifoHarness


@pytest.fixture
def real() -> Iterator[RealHarness]:
    """Queues of the account, deleted afterwards."""
    made = RealHarness()
    yield made
    made.close()


def test_check_names_what_a_policy_denies(real: RealHarness) -> None:
    """A queue policy that denies one action is met as the service enforces it, and named with the line to add."""
    name = real.fresh()
    real.create(name)
    url = real.urls[name]
    arn = real.client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    denial = {"Effect": "Deny", "Principal": "*", "Action": "sqs:DeleteMessage", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denial]})
    real.client.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})

    def errors() -> list[str]:
        findings = open_subscriber(real.source_url(name)).check()  # type: ignore[attr-defined]
        return [one.fix for one in findings if one.level == "error"]

    wait_until(errors, SPREAD, what="the policy in force", every=2.0)
    [fix] = errors()
    line = {"Effect": "Allow", "Action": "sqs:DeleteMessage", "Resource": arn}
    assert json.loads(fix.removeprefix("Allow ")) == line


def test_lease_of_twelve_hours_is_granted_to_the_end(real: RealHarness) -> None:
    """The most that can be asked for is asked for, and not more than the service grants."""
    name = real.fresh()
    real.create(name)
    with real.publisher(name) as made:
        assert [one.error for one in made.publish(numbered(1))] == [None]
    with open_subscriber(real.source_url(name), visibility=43_200) as adapter:
        chunks = []
        wait_until(lambda: chunks.extend(adapter.receive(1, max_bytes=PLENTY, timeout=5.0)) or chunks, 60, what="it")
        [result] = adapter.extend([chunks[0][0]], 43_200)
    assert result.error is None
