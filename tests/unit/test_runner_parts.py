"""The runner's parts, each alone: decisions, runs, stretches."""

from __future__ import annotations

import logging

import attrs
import pytest

from eventflows import (
    DecodeError,
    Delivery,
    EncodeError,
    Message,
    Observer,
    Reject,
    Retry,
    RetryPolicy,
    TooLargeError,
)
from eventflows.message import Chunk, Lane
from eventflows.observe import Observers
from eventflows.observe.logging import LoggingObserver
from eventflows.protocols import Capabilities
from eventflows.runner.held import GONE, SENDING, WAITING, Held, Span, join
from eventflows.runner.outcome import LONGEST_DETAIL, Decision, dead_letter_action, decide, detail_of
from eventflows.runner.outputs import cut_down, dead_letter_copy, id_prefix
from eventflows.runner.runs import Run

QUEUE = Capabilities(settle="message", redeliver=True, redeliver_delay=100.0, release="free", dead_letter=True)
FIFO = attrs.evolve(QUEUE, release="counts")
LOG = Capabilities(settle="watermark")
POLICY = RetryPolicy(attempts=3, delay=1, factor=2, jitter=0, hold=10)


def decided(
    error: BaseException,
    *,
    attempt: int = 1,
    capabilities: Capabilities = QUEUE,
    ordered: bool = False,
    undecodable: bool = False,
    policy: RetryPolicy = POLICY,
) -> Decision:
    """Decide with what a case does not care about filled in."""
    last = dead_letter_action(None, capabilities)
    return decide(
        error, undecodable=undecodable, attempt=attempt, policy=policy, capabilities=capabilities, last=last,
        ordered=ordered, luck=0.5,
    )  # fmt: skip


def chunk(size: int = 5) -> Chunk:
    """Make a chunk of numbers."""

    def build(index: int) -> Delivery:
        return Delivery(message=Message(b"%d" % index), source="local://a", position=str(index), identity=str(index))

    return Chunk([b"%d" % index for index in range(size)], build)


def test_failure_is_held_when_its_delay_is_short() -> None:
    """A delay up to `hold` is waited for in the process."""
    assert decided(ValueError(), attempt=2) == Decision(action="hold", delay=2.0)


def test_failure_goes_to_the_broker_when_its_delay_is_long() -> None:
    """A longer one is the broker's, where it can delay."""
    assert decided(Retry(delay=50)) == Decision(action="redeliver", delay=50)


def test_delay_is_capped_when_the_broker_cannot_wait_so_long() -> None:
    """Never longer than the broker can."""
    assert decided(Retry(delay=500)) == Decision(action="redeliver", delay=100.0, capped=True)


def test_failure_is_held_and_capped_when_the_source_is_a_log() -> None:
    """A log redelivers nothing."""
    assert decided(Retry(delay=50), capabilities=LOG) == Decision(action="hold", delay=10.0, capped=True)


def test_failure_is_held_when_others_wait_behind_it_and_a_release_counts() -> None:
    """Where a release counts as a delivery, the members behind would be used up."""
    assert decided(Retry(delay=50), capabilities=FIFO, ordered=True).action == "hold"


def test_retry_counts_as_an_attempt() -> None:
    """A flow cannot ask for ever."""
    assert decided(Retry(delay=0), attempt=3).reason == "attempts used up"


@pytest.mark.parametrize(
    ("error", "undecodable", "reason"),
    [
        (Reject("no"), False, "no"),
        (DecodeError("bad"), True, "undecodable"),
        (EncodeError("bad"), False, "its output cannot be published"),
        (TooLargeError("bad"), False, "its output cannot be published"),
    ],
)
def test_failure_is_final_at_once_when_trying_again_cannot_help(
    error: Exception, undecodable: bool, reason: str
) -> None:
    """These have no second attempt."""
    assert decided(error, undecodable=undecodable) == Decision(action="native", reason=reason)


def test_decode_error_of_apply_is_tried_again() -> None:
    """One that `apply` raised itself is a failure like any other."""
    assert decided(DecodeError("inside")).action == "hold"


@pytest.mark.parametrize(
    ("dead_letter", "capabilities", "action"),
    [
        (None, QUEUE, "native"),
        (None, LOG, "halt"),
        ("halt", QUEUE, "halt"),
        ("drop", LOG, "drop"),
        ("local://dead", QUEUE, "copy"),
    ],
)
def test_dead_letters_go_where_the_flow_says(dead_letter: str | None, capabilities: Capabilities, action: str) -> None:
    """The flow's word wins, then the broker's own place, else it halts."""
    assert dead_letter_action(dead_letter, capabilities) == action


def test_detail_is_cut_at_1_kib() -> None:
    """An error's text has a bound, in bytes."""
    assert len(detail_of(ValueError("é" * 5000)).encode()) <= LONGEST_DETAIL


def test_detail_is_empty_when_the_error_cannot_be_shown() -> None:
    """An error whose text raises is still an error."""

    class OddError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert detail_of(OddError()) == ""


def test_run_gives_back_what_is_not_begun() -> None:
    """A recall takes the tail, and leaves what the worker has."""
    held = Held(chunk(), 0)
    run = Run([((held, 0, 3), None), ((held, 4, 5), "unit")])
    next(run.parts[0][1])
    assert run.recall()[0] == [((held, 1, 3), None), ((held, 4, 5), "unit")]


def test_run_frees_only_units_of_which_nothing_was_begun() -> None:
    """Another worker may go on with those; the others wait for the message that is under way."""
    held = Held(chunk(), 0)
    run = Run([((held, 0, 1), "begun"), ((held, 1, 2), "untouched"), ((held, 2, 3), "begun")])
    next(run.parts[0][1])
    assert (run.recall()[1], run.recall()[1]) == ({"untouched"}, set())


def test_run_is_empty_after_a_recall() -> None:
    """The worker finds nothing more."""
    held = Held(chunk(), 0)
    run = Run([((held, 0, 5), None)])
    run.recall()
    assert [list(indices) for _, indices, _ in run.parts] == [[]]


def test_held_gives_the_stretches_of_a_state() -> None:
    """Contiguous messages of one state, in order."""
    held = Held(chunk(), 0)
    held.mark(1, 3, SENDING)
    held.mark(4, 5, GONE)
    assert [list(held.stretches(state)) for state in (WAITING, SENDING, GONE)] == [[(0, 1), (3, 4)], [(1, 3)], [(4, 5)]]


def test_spans_are_joined_when_they_touch() -> None:
    """Settlements are said over long stretches."""
    held, spans = Held(chunk(), 0), list[Span]()
    for start, stop in ((0, 1), (1, 3), (4, 5)):
        join(spans, held, start, stop)
    assert spans == [(held, 0, 3), (held, 4, 5)]


def test_dead_letter_copy_keeps_body_key_and_headers() -> None:
    """What is added stands beside what was there."""
    delivery = Delivery(
        message=Message(b"x", key="k", headers={"a": "b"}), source="local://a", position="7", identity="7"
    )
    copy = dead_letter_copy(delivery, flow="f", reason="why", attempts=3, error=ValueError("text"))
    added = {name: copy.headers[name] for name in ("a", "ef-reason", "ef-error", "ef-attempts", "ef-position")}
    assert (copy.body, copy.key, added) == (
        b"x", "k", {"a": "b", "ef-reason": "why", "ef-error": "text", "ef-attempts": "3", "ef-position": "7"},
    )  # fmt: skip


def test_dead_letter_copy_is_cut_down_in_the_stated_order() -> None:
    """First the error's text goes, then all but the few headers, then there is nothing smaller."""
    delivery = Delivery(message=Message(b"x", headers={"a": "b"}), source="local://a", position="7", identity="7")
    sizes = []
    copy: Message | None = dead_letter_copy(delivery, flow="f", reason="why", attempts=3, error=ValueError("text"))
    while copy is not None:
        sizes.append(len(copy.headers))
        copy = cut_down(copy)
    assert sizes == [9, 8, 4]


def test_ids_differ_when_the_flow_differs() -> None:
    """Two flows never swallow each other's outputs."""
    assert id_prefix("source", "one", "destination") != id_prefix("source", "two", "destination")


def test_observer_that_raises_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It changes nothing, and it does not flood the log."""

    class Faulty(Observer):
        def halted(self, *, flow: str, position: str | None, reason: str) -> None:
            raise ValueError("inside")

    observers = Observers("flow", [Faulty()])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            observers.tell("halted", position=None, reason="x")
    assert len(caplog.records) == 1


def test_nobody_listens_when_no_method_is_written() -> None:
    """What nobody reads is not built."""
    assert not Observers("flow", [Observer()]).listens("started")


def discard(observer: LoggingObserver, lane: Lane | None, count: int) -> None:
    """Tell it of so many outputs that were not published."""
    for position in range(count):
        delivery = Delivery(
            message=Message(b""), source="local://a", position=str(position), identity=str(position), lane=lane
        )
        observer.discarded(flow="flow", delivery=delivery, count=1, reason="its input is not ours any more")


def test_discarded_outputs_are_logged_once_when_their_lane_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands share the fate of the first."""
    lane, observer = Lane("images/0"), LoggingObserver()
    lane.lose()
    with caplog.at_level(logging.WARNING):
        discard(observer, lane, 3)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("flow flow: outputs of 0, and of what follows it in lane images/0, not published: ")


def test_discarded_outputs_are_each_logged_when_no_lane_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Leases are lost one by one."""
    with caplog.at_level(logging.WARNING):
        discard(LoggingObserver(), None, 3)
    assert len(caplog.records) == 3
