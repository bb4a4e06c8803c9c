"""The adapter suite is tested itself: each broken adapter fails exactly the case named for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest

import broken
from eventflows.testing import AdapterConformance, Harness, sit
from local_harness import LocalHarness
from tiny_log import Claim, TinyLogHarness, TinySubscriber

RUNNING = {f"c{number}" for number in (37, 38, 39, 40, 42, 43, 44, 45, 46, 49, 50, 54, 60)}
"""Cases that run a flow: a broken adapter is not reached by its URL."""
SLOW = {"c08", "c11", "c19", "c22", "c29", "c41", "c55", "c56", "c58"}
"""Cases that take their time; they are sat where they are the ones named, and by `make trials` always."""

PUBLISHERS: dict[type[broken.Publisher], str] = {
    broken.LosesIds: "C01",
    broken.DropsEmptyBodies: "C02",
    broken.FormatsJson: "C05",
    broken.LosesOddHeaders: "C06",
    broken.CutsHeaders: "C07",
    broken.Truncates: "C08",
    broken.DropsOneOfABatch: "C09",
    broken.ReordersAKey: "C09",
    broken.SwallowsAPartialFailure: "C10",
    broken.ForgetsWhatWasSent: "C12",
    broken.PublishesAfterClose: "C13",
    broken.RetriesInSilence: "C16",
    broken.PublishesPastItsTimeout: "C55",
}
SUBSCRIBERS: dict[type[broken.Subscriber], str] = {
    broken.ReceivesAfterClose: "C13",
    broken.RetriesAReceiveInSilence: "C16",
    broken.BlocksPastItsTimeout: "C19",
    broken.SpinsWhenIdle: "C19",
    broken.IgnoresTheLimit: "C20",
    broken.IgnoresTheBytes: "C20",
    broken.DeliversOnZero: "C20",
    broken.ForgetsAcks: "C25",
    broken.AcksOnClose: "C26 C32",
    broken.SwallowsAPartialSettleFailure: "C27",
    broken.RaisesOnASecondAck: "C27",
    broken.RetriesAsAFirstAttempt: "C28",
    broken.IgnoresTheDelay: "C29",
    broken.CountsAReleaseAsAnAttempt: "C30",
    broken.LosesTheReason: "C31",
    broken.PretendsToExtend: "C41",
    broken.HoldsWhatItLost: "C41",
    broken.IgnoresWake: "C48",
    broken.KeepsALostLeaseAlive: "C57",
    broken.LeaksAThread: "C57",
    broken.PeeksByTaking: "C59",
}


class QuickHarness(LocalHarness):
    """The embedded broker, with shorter waits."""

    patience = 2.0
    slack = 1.2
    quiet = 0.03
    short = 0.2
    lease = 0.2
    delay = 0.2
    volume = 160


def failed(harness_class: type[Harness], want: Callable[[str], bool]) -> set[str]:
    """Sit the cases with a harness, and give the numbers of those that failed."""

    class Suite(AdapterConformance):
        harness = harness_class

    outcomes = sit(Suite, lambda name: name.split("_")[1] not in RUNNING and want(name))
    return {one.case for one in outcomes if one.verdict == "failed"}


def with_publisher(kind: type[broken.Publisher]) -> type[Harness]:
    """Make a harness whose publishers are broken."""

    class BrokenHarness(QuickHarness):
        def publisher(self, name: str, **options: Any) -> Any:
            return kind(super().publisher(name, **options))

    return BrokenHarness


def with_subscriber(kind: type[broken.Subscriber]) -> type[Harness]:
    """Make a harness whose subscribers are broken."""

    class BrokenHarness(QuickHarness):
        def subscriber(self, name: str, group: str | None = None, **options: Any) -> Any:
            return kind(super().subscriber(name, group, **options))

    return BrokenHarness


def quick(cases: str) -> Callable[[str], bool]:
    """Want everything but the slow cases, those named included."""
    left_out = SLOW - {case.lower() for case in cases.split()}
    return lambda name: name.split("_")[1] not in left_out


@pytest.mark.parametrize("kind", PUBLISHERS, ids=lambda kind: kind.__name__)
def test_a_broken_publisher_fails_the_case_named_for_it(kind: type[broken.Publisher]) -> None:
    """A publisher with one thing wrong fails that case and no other."""
    assert failed(with_publisher(kind), quick(PUBLISHERS[kind])) == set(PUBLISHERS[kind].split())


@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.__name__)
def test_a_broken_subscriber_fails_the_case_named_for_it(kind: type[broken.Subscriber]) -> None:
    """A subscriber with one thing wrong fails that case and no other."""
    assert failed(with_subscriber(kind), quick(SUBSCRIBERS[kind])) == set(SUBSCRIBERS[kind].split())


@pytest.mark.trial
@pytest.mark.parametrize("kind", [*PUBLISHERS, *SUBSCRIBERS], ids=lambda kind: kind.__name__)
def test_a_broken_adapter_fails_nothing_else_of_the_whole_suite(kind: type[broken.Wrapped]) -> None:
    """Over all cases that need no runner, a broken adapter fails exactly those named for it."""
    if issubclass(kind, broken.Publisher):
        assert failed(with_publisher(kind), lambda _: True) == set(PUBLISHERS[kind].split())
    else:
        assert issubclass(kind, broken.Subscriber)
        assert failed(with_subscriber(kind), lambda _: True) == set(SUBSCRIBERS[kind].split())


# Logs.


class CommitsPastAGap(TinySubscriber):
    """Commits one past the highest that is done."""

    def commit(self, claim: Claim) -> None:
        self._log.committed[self._group][claim.number] = max(claim.acked) + 1


class StallsAtAGap(TinySubscriber):
    """Takes offsets for a row without holes."""

    def commit(self, claim: Claim) -> None:
        committed = self._log.committed[self._group]
        position = committed.get(claim.number, 0)
        while position in claim.acked:
            position += 1
        committed[claim.number] = position


class FallsBack(TinySubscriber):
    """Commits one less than before, once."""

    def commit(self, claim: Claim) -> None:
        super().commit(claim)
        if len(claim.acked) == 5 and claim.offsets:
            self._log.committed[self._group][claim.number] -= 1


class KeepsALostLane(TinySubscriber):
    """Settles for a claim that has ended as if it were its own."""

    def _settle_one(self, delivery: Any, verdict: Any) -> Any:
        if delivery.lane is not None and delivery.lane.lost and delivery.lane not in self._claims:
            return []
        return super()._settle_one(delivery, verdict)


LOGS: dict[type[TinySubscriber], str] = {
    TinySubscriber: "",
    CommitsPastAGap: "C32 C34",
    StallsAtAGap: "C33",
    FallsBack: "C34",
    KeepsALostLane: "C35 C52 C57",
}
NEEDS_URL = {"c18", "c22", "c56"}
"""Cases that open by URL, or that share between members: the tiny log has neither."""


@pytest.mark.parametrize("kind", LOGS, ids=lambda kind: kind.__name__)
def test_a_broken_log_fails_the_case_named_for_it(kind: type[TinySubscriber]) -> None:
    """A log with one thing wrong fails the cases of its kind and no other; one without fails none."""
    harness = type("BrokenLogHarness", (TinyLogHarness,), {"kind": kind})
    assert failed(harness, lambda name: name.split("_")[1] not in NEEDS_URL) == set(LOGS[kind].split())


# What may be skipped.


class StrictHarness(TinyLogHarness):
    """Allows no skip."""

    allowed_skips: ClassVar[Mapping[str, str] | None] = {}


def test_a_skip_that_is_not_allowed_fails() -> None:
    """A harness that allows no skips turns each into a failure."""
    assert "C59" in failed(StrictHarness, lambda name: "c59" in name)


def test_a_case_that_was_taken_away_is_missed() -> None:
    """A subclass that hides a case is found out."""

    class Hiding(AdapterConformance):
        harness = TinyLogHarness
        test_c02_an_empty_body_survives = None  # type: ignore[assignment]

    [outcome] = sit(Hiding, lambda name: name == "test_c00_no_case_is_missing")
    assert (outcome.verdict, "2" in outcome.text) == ("failed", True)
