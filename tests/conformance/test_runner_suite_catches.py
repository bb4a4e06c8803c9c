"""The runner suite is tested itself: each broken runner fails exactly the cases named for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import broken_runners
from eventflows.testing import RunnerConformance, sit
from local_harness import LocalHarness

RUNNERS: dict[broken_runners.Alter, str] = {
    broken_runners.acks_before_publish: "R01",
    broken_runners.swallows_a_halt: "R04 R35",
    broken_runners.retries_in_a_loop: "R13",
    broken_runners.shards_by_hash: "R19 R34",
    broken_runners.ignores_the_cap: "R20",
    broken_runners.invents_ids: "R22",
    broken_runners.publishes_on_the_pump: "R30",
    broken_runners.drops_on_drain: "R34",
    broken_runners.ignores_the_order: "R19 R37 R39",
    broken_runners.forgets_the_timeout: "R17",
    broken_runners.acknowledges_late: "R31 R36",
    broken_runners.fails_the_whole_batch: "R18",
    broken_runners.mixes_up_a_batch: "R37",
}
NEIGHBOURS = {"R02", "R06", "R12", "R16", "R21", "R23", "R25", "R32"}
"""Quick cases that none of them may fail; by `make trials` they sit the whole suite."""


class QuickHarness(LocalHarness):
    """The embedded broker, with shorter waits."""

    patience = 3.0
    quiet = 0.05
    lease = 0.2
    delay = 0.2
    volume = 200


def failed(
    alter: broken_runners.Alter, want: Callable[[str], bool], harness: type[LocalHarness] = QuickHarness
) -> set[str]:
    """Sit the cases with a broken runner, and give the numbers of those that failed."""
    kind = broken_runners.running(alter, harness)

    class Suite(RunnerConformance):
        harness = kind

    return {one.case for one in sit(Suite, want) if one.verdict == "failed"}


@pytest.mark.parametrize("alter", RUNNERS, ids=lambda alter: alter.__name__)
def test_a_broken_runner_fails_the_case_named_for_it(alter: broken_runners.Alter) -> None:
    """A runner with one thing wrong fails its cases, and none of the neighbours."""
    named = set(RUNNERS[alter].split())
    assert failed(alter, lambda name: name.split("_")[1].upper() in named | NEIGHBOURS) == named


def test_a_sound_runner_fails_nothing() -> None:
    """The plan that nobody altered passes: what the broken ones fail is their own."""
    assert failed(lambda plan: plan, lambda name: name.split("_")[1].upper() in NEIGHBOURS | {"R01"}) == set()


@pytest.mark.trial
@pytest.mark.timeout(600)
@pytest.mark.parametrize("alter", RUNNERS, ids=lambda alter: alter.__name__)
def test_a_broken_runner_fails_nothing_else_of_the_whole_suite(alter: broken_runners.Alter) -> None:
    """Over the whole suite a broken runner fails exactly the cases named for it."""
    assert failed(alter, lambda _: True, LocalHarness) == set(RUNNERS[alter].split())
