"""Amazon SQS itself sits the adapter suite, where credentials and EVENTFLOWS_TEST_SQS_REGION are in the environment.

It makes queues named conformance-..., and deletes them. What no local server shows is here: the true limits, the
service's own sampling, its own error codes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pytest

from eventflows.testing import AdapterConformance, Harness

REGION = os.environ.get("EVENTFLOWS_TEST_SQS_REGION", "")

pytestmark = [
    pytest.mark.broker,
    pytest.mark.trial,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not REGION, reason="needs an AWS account: EVENTFLOWS_TEST_SQS_REGION is not set"),
]


class RealHarness(Harness):
    """Standard queues of the account that the environment gives."""

    name = "Amazon SQS"
    native_type = dict
    patience = 90.0
    quiet = 3.0
    slack = 5.0
    lease = 5.0
    delay = 5.0
    volume = 480
    source_options: ClassVar[Mapping[str, object]] = {"visibility": 30}

    def __init__(self) -> None:
        import boto3

        self._client: Any = boto3.Session(region_name=REGION).client("sqs")
        self._made: list[str] = []

    def create(self, name: str) -> None:
        """Make the queue."""
        self._made.append(self._client.create_queue(QueueName=name)["QueueUrl"])

    def close(self) -> None:
        """Delete the queues."""
        for url in self._made:
            self._client.delete_queue(QueueUrl=url)
        self._client.close()

    def source_url(self, name: str) -> str:
        """By region and name."""
        return f"sqs://{REGION}/{name}"

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


class TestRealSqs(AdapterConformance):
    """The service itself."""

    harness = RealHarness
