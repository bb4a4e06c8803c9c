"""Networks that are slow, thin, cut or gone for a while: a flow goes on, and every message is handled."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from eventflows import Flow, Message, RetryPolicy, open_publisher, publisher, subscriber
from eventflows.testing import wait_until
from eventflows.testing.cases import numbered
from eventflows.testing.conditions import pass_time
from servers.elasticmq import ACCOUNT, REGION, elasticmq
from servers.toxiproxy import Link, toxiproxy
from sqs_harness import SqsHarness
from sqs_use import counts, publish, read, read_until

pytestmark = [pytest.mark.broker, pytest.mark.trial]

COUNT = 80
VISIBILITY = 4
UP_TO = 60.0


@pytest.fixture
def link() -> Iterator[Link]:
    """A way to ElasticMQ that can be broken."""
    made = toxiproxy().link(elasticmq().port)
    yield made
    made.close()


class Through:
    """A flow from one queue to another, both behind the link, that has done part of its work.

    Args:
        broker: Of the queues.
        link: The way to them.
        size: Bytes of each message.
    """

    def __init__(self, broker: SqsHarness, link: Link, size: int = 10) -> None:
        self._broker, self._link = broker, link
        self._came, self._went = broker.fresh(), broker.fresh()
        for name in (self._came, self._went):
            broker.create(name)
        self._bodies = {b"%0*d" % (size, number) for number in range(COUNT)}
        publish(broker, self._came, *map(Message, sorted(self._bodies)))
        self.calls: list[bytes] = []
        self.seen: set[bytes] = set()
        self.middle = threading.Event()
        self.flow = self._made()

    def _url(self, name: str) -> str:
        return f"sqs://{REGION}/{ACCOUNT}/{name}?endpoint={self._link.endpoint}"

    def _made(self) -> Flow[..., object]:
        def apply(input: bytes) -> bytes:
            self.calls.append(input)
            self.seen.add(input)
            if len(self.seen) >= COUNT // 4:
                self.middle.set()
            pass_time(0.005)
            return input

        source = subscriber(
            self._url(self._came), name="through", visibility=VISIBILITY, max_in_flight=20,
            retry=RetryPolicy(attempts=1000),
        )(apply)  # fmt: skip
        return publisher(self._url(self._went))(source)

    def is_done(self) -> None:
        """Wait until nothing is left and nothing hidden; every output must be there."""
        wait_until(lambda: self.seen == self._bodies, UP_TO, what="every message handled", every=0.1)
        wait_until(
            lambda: counts(self._broker, self._came) == (0, 0), UP_TO, what="an empty queue, nothing hidden", every=0.2
        )
        assert set(read_until(self._broker.source_url(self._went), self._bodies)) == self._bodies


def test_slow_network_costs_time_only(broker: SqsHarness, link: Link) -> None:
    """A quarter of a second for each answer, give or take: nothing is handled twice."""
    through = Through(broker, link)
    with link.toxic("latency", latency=250, jitter=100), through.flow.running():
        through.is_done()
    assert len(through.calls) == COUNT


def test_thin_network_costs_time_only(broker: SqsHarness, link: Link) -> None:
    """Batches of 40 kilobytes through 100 kilobytes a second: nothing is handled twice."""
    through = Through(broker, link, size=4000)
    with link.toxic("bandwidth", rate=100), through.flow.running():
        through.is_done()
    assert len(through.calls) == COUNT


def test_answers_that_come_in_pieces_are_whole(broker: SqsHarness, link: Link) -> None:
    """A few bytes at a time."""
    through = Through(broker, link)
    with link.toxic("slicer", average_size=64, size_variation=32, delay=200), through.flow.running():
        through.is_done()


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [("limit_data", {"bytes": 1500}), ("reset_peer", {"timeout": 0}), ("timeout", {"timeout": 300})],
)
def test_flow_goes_on_after_connections_were_cut(
    broker: SqsHarness, link: Link, kind: str, attributes: dict[str, int]
) -> None:
    """In the middle of answers, by a reset, or after a silence: what was on its way comes again."""
    through = Through(broker, link)
    with through.flow.running():
        assert through.middle.wait(UP_TO)
        with link.toxic(kind, **attributes):
            pass_time(2.0)
        through.is_done()


def test_flow_goes_on_when_its_own_words_are_cut(broker: SqsHarness, link: Link) -> None:
    """Requests that arrive in half: neither a deletion nor an output is taken for done."""
    through = Through(broker, link)
    with through.flow.running():
        assert through.middle.wait(UP_TO)
        with link.toxic("limit_data", stream="upstream", bytes=2500):
            pass_time(2.0)
        through.is_done()


def test_flow_goes_on_when_the_endpoint_comes_and_goes(broker: SqsHarness, link: Link) -> None:
    """Six times there and not there, each shorter than a reconnect's longest wait."""
    through = Through(broker, link)
    with through.flow.running():
        assert through.middle.wait(UP_TO)
        for _ in range(6):
            with link.down():
                pass_time(0.4)
            pass_time(0.3)
        through.is_done()


def test_publisher_says_what_did_not_arrive(broker: SqsHarness, link: Link) -> None:
    """With the endpoint gone every message has a retryable error; afterwards the same publisher works."""
    name = broker.fresh()
    broker.create(name)
    with open_publisher(f"sqs://{REGION}/{ACCOUNT}/{name}?endpoint={link.endpoint}") as made:
        with link.down():
            lost = made.publish(numbered(12))
        assert [one.error is not None and one.error.retryable for one in lost] == [True] * 12
        assert [one.error for one in made.publish(numbered(12))] == [None] * 12
    assert len(read(broker.source_url(name), 12)) == 12
