"""Simulations: a flow in milliseconds, on brokers that are played, with what goes wrong in them."""

from __future__ import annotations

import itertools
import pathlib
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

import pytest

from eventflows import Flow, Message, Retry, RetryPolicy, publisher, subscriber
from eventflows.errors import CapabilityError, ConfigError
from eventflows.testing import (
    SCENARIOS,
    ApplyRaises,
    LeasesEnd,
    PublishFails,
    Rebalance,
    Report,
    Restart,
    Scenario,
    SimulationError,
    simulate,
)

PLAYED = ("kafka", "eventhubs", "sqs", "servicebus", "local")
QUEUES = ("sqs", "servicebus", "local")
THRICE = RetryPolicy(attempts=3, jitter=0)


def double(input: int) -> int:
    """Work on something."""
    return 2 * input


def flow(apply: Callable[..., object] = double, **settings: Any) -> Flow[..., Any]:
    """A flow of it, under one name, so that its output ids are the same each time."""
    given = {"name": "doubler", "retry": THRICE, **settings}
    return publisher("local://out")(subscriber("local://in", **given)(apply))


def keyed(keys: int, each: int) -> list[Message]:
    """Numbers from 0 on, of several keys, mixed."""
    return [Message(b"%d" % (n * keys + key), key=f"key-{key}") for n in range(each) for key in range(keys)]


def published(report: Report) -> list[int]:
    """The outputs, each once, sorted."""
    return sorted({int(message.body or b"") for message in report.published})


@pytest.mark.parametrize("played", PLAYED)
def test_simulation_processes_everything(played: Any) -> None:
    """Nothing goes wrong: every input is processed once, its output published, nothing left."""
    report = simulate(flow(), keyed(5, 8), emulate=played)
    assert (sorted(report.processed), report.duplicates, report.left) == (list(range(40)), {}, [])
    assert published(report) == list(range(0, 80, 2))


@pytest.mark.parametrize("played", PLAYED)
def test_simulation_loses_nothing_when_everything_goes_wrong(played: Any) -> None:
    """Failures, a rebalance, lost leases, refused outputs and a kill: each input is processed or given up."""
    faults = [ApplyRaises(3, times=None), ApplyRaises(9), PublishFails(3), Rebalance(15), Restart(25), LeasesEnd(40)]
    patient = flow(dead_letter="drop", workers=3, retry=RetryPolicy(attempts=9))  # a kill, too, costs an attempt
    report = simulate(patient, keyed(5, 8), emulate=played, faults=faults)
    assert (report.lost, report.left, [dead.input for dead in report.dead_lettered]) == ([], [], [3])
    assert published(report) == [2 * number for number in range(40) if number != 3]


@pytest.mark.parametrize("played", PLAYED)
def test_same_arguments_give_the_same_report(played: Any) -> None:
    """A simulation is decided by its arguments alone: what failed once can be looked at again."""

    def once() -> Report:
        faults = [ApplyRaises(3, times=2), PublishFails(2), Rebalance(11), Restart(19)]
        return simulate(flow(workers=3), keyed(4, 6), emulate=played, faults=faults, seed=7)

    first, second = once(), once()
    assert (first.calls, first.outcome, first.seconds) == (second.calls, second.outcome, second.seconds)


def test_log_commits_to_its_end() -> None:
    """On a log, what is committed at the end is the number of messages of each partition."""
    report = simulate(flow(), [Message(b"1") for _ in range(8)], emulate="kafka", options={"partitions": 2})
    assert report.committed == {"0": 4, "1": 4}


def test_log_does_not_hand_out_again() -> None:
    """On a log, attempts are made in the process; the broker's own count stays at 1."""
    report = simulate(flow(), [1], emulate="kafka", faults=[ApplyRaises(0, times=2)])
    assert [(call.attempt, call.error) for call in report.calls] == [
        (1, "RuntimeError"), (1, "RuntimeError"), (1, None),
    ]  # fmt: skip


def test_kill_repeats_what_was_not_committed_on_a_log() -> None:
    """After a kill, a log gives what lies behind the committed position again, and nothing before it."""
    report = simulate(flow(max_in_flight=4), [Message(b"%d" % n, key="one") for n in range(20)], emulate="kafka",
                      faults=[Restart(10)])  # fmt: skip
    assert (report.restarts, report.lost, max(report.duplicates, default=-1) < 10) == (1, [], True)


def test_kill_brings_back_what_was_held_after_its_visibility() -> None:
    """On SQS, what a killed process held comes again when its visibility time-out is over, as the second attempt."""
    report = simulate(flow(max_in_flight=1), [1], emulate="sqs", faults=[Restart(1)])
    [call] = report.calls
    assert (call.attempt, call.at >= 30, report.restarts) == (2, True, 1)


@pytest.mark.parametrize("played", ["kafka", "eventhubs", "sqs", "servicebus"])
def test_crash_loop_is_bounded(played: Any) -> None:
    """A message that kills its process each time is given up when its attempts are used up."""
    looping = flow(dead_letter="drop", retry=RetryPolicy(attempts=5))
    report = simulate(looping, [1], emulate=played, faults=[Restart(call) for call in range(1, 9)])
    assert (report.restarts, [dead.input for dead in report.dead_lettered], report.processed) == (5, [0], [])


def test_crash_loop_costs_the_message_at_the_head_alone() -> None:
    """On a log, what lies behind the message that kills is done once that is given up."""
    looping = flow(dead_letter="drop", retry=RetryPolicy(attempts=5))
    messages = [Message(b"%d" % number, key="one") for number in range(4)]
    report = simulate(looping, messages, emulate="kafka", faults=[Restart(call) for call in range(1, 6)])
    assert ([dead.input for dead in report.dead_lettered], report.processed) == ([0], [1, 2, 3])


@pytest.mark.parametrize("played", ["kafka", "eventhubs"])
def test_outputs_of_a_lost_lane_are_discarded(played: Any) -> None:
    """What was finished on a claim that has ended is not published from there; the next claim does it again."""
    report = simulate(flow(), [Message(b"%d" % n, key="one") for n in range(6)], emulate=played, faults=[Rebalance(3)])
    assert (report.discarded > 0, len(report.published), report.lost) == (True, 6, [])


@pytest.mark.parametrize("played", QUEUES)
def test_queue_takes_a_long_retry_back(played: Any) -> None:
    """A delay of ten minutes takes no real time, on a broker that can delay and on one that cannot."""
    tries = itertools.count()

    def apply(input: int) -> int:
        if next(tries) == 0:
            raise Retry(delay=600)
        return input

    report = simulate(flow(apply, retry=RetryPolicy(hold=900)), [1], emulate=played)
    assert (report.retried, report.seconds >= 600, report.processed) == (1, True, [0])


def test_publishing_again_does_not_call_apply_again() -> None:
    """Outputs that were refused for a while are sent again; the inputs are not run again."""
    report = simulate(flow(), [1, 2, 3], emulate="kafka", faults=[PublishFails(5)])
    assert (len(report.calls), published(report)) == (3, [2, 4, 6])


def test_native_dead_letters_are_used_where_there_are_any() -> None:
    """On Service Bus, what is given up goes to the broker's own place."""
    report = simulate(flow(), [1], emulate="servicebus", faults=[ApplyRaises(0, times=None)])
    assert [(dead.input, dead.reason, dead.to) for dead in report.dead_lettered] == [
        (0, "attempts used up", "the broker's own place")
    ]


def test_halt_is_reported_and_leaves_the_message() -> None:
    """On a log without a dead-letter place the flow halts; the message is left, its position unmoved."""
    report = simulate(flow(), [Message(b"1", key="one")], emulate="kafka", faults=[ApplyRaises(0, times=None)])
    assert (report.halted is not None, report.left, sum(report.committed.values())) == (True, [0], 0)


@pytest.mark.parametrize("played", ["kafka", "local"])
def test_key_keeps_its_order_over_failures(played: Any) -> None:
    """With four workers and failures, the messages of a key are finished in their order."""
    faults = [ApplyRaises(number, times=2) for number in (0, 6, 13)]
    report = simulate(flow(workers=4), keyed(4, 6), emulate=played, faults=faults)
    by_key = [[number for number in report.processed if number % 4 == key] for key in range(4)]
    assert by_key == [list(range(key, 24, 4)) for key in range(4)]


def test_workers_share_the_simulated_time() -> None:
    """Eight calls of a second each, on four workers, take two seconds of the simulation's."""
    report = simulate(flow(workers=4), list(range(8)), emulate="local", seconds=1.0)
    assert max(call.at for call in report.calls) < 3.0


def test_batches_are_simulated() -> None:
    """A flow of batches runs as one."""

    def apply(input: list[int]) -> list[int]:
        return [2 * one for one in input]

    report = simulate(flow(apply, batch=4), list(range(10)), emulate="sqs", faults=[ApplyRaises(5)])
    assert (sorted(report.processed), published(report)) == (list(range(10)), list(range(0, 20, 2)))


def test_coroutines_are_simulated() -> None:
    """A flow of coroutines runs as one."""

    async def apply(input: int) -> int:
        return 2 * input

    assert published(simulate(flow(apply), [1, 2, 3], emulate="eventhubs")) == [2, 4, 6]


def test_what_a_broker_cannot_do_is_refused() -> None:
    """A flow that a real broker would refuse at the start is refused here."""
    with pytest.raises(CapabilityError, match="order"):
        simulate(flow(order="lane"), [1], emulate="sqs")


def test_size_limits_are_those_of_the_broker() -> None:
    """An output larger than the real broker takes fails its input, without a retry."""
    big = publisher("local://out?emulate=servicebus")(
        subscriber("local://in", name="big", dead_letter="drop")(lambda input: "x" * 300_000)
    )
    report = simulate(big, [1], emulate="kafka")
    assert [dead.reason for dead in report.dead_lettered] == ["its output cannot be published"]


def test_fault_of_an_input_that_there_is_not_is_refused() -> None:
    """A fault that could never strike is a mistake."""
    with pytest.raises(ConfigError, match="1 inputs"):
        simulate(flow(), [1], faults=[ApplyRaises(1)])


def test_simulation_without_an_end_says_so() -> None:
    """What would go on for ever ends with an error, after a time of the simulation's own."""
    with pytest.raises(SimulationError, match="within 100 s"):
        simulate(flow(), [1], faults=[PublishFails(10_000)], until=100)


def test_report_reads_as_text_and_as_html() -> None:
    """What happened is on a line each; what did not, is not."""
    report = simulate(flow(dead_letter="drop"), [1, 2], emulate="kafka", faults=[ApplyRaises(0, times=None)])
    text, html = str(report), report._repr_html_()
    assert ("dead-lettered  0 (attempts used up)" in text, "restarts" in text) == (True, False)
    assert "<th>dead-lettered</th><td>0 (attempts used up)</td>" in html


def test_simulation_leaves_no_broker_behind() -> None:
    """What it made is forgotten."""
    from eventflows import open_publisher

    simulate(flow(), [1], emulate="kafka")
    left: Sequence[str] = open_publisher("local://any").entities()  # type: ignore[attr-defined]
    assert [name for name in left if name.startswith("simulated-")] == []


@pytest.mark.parametrize("played", ["kafka", "sqs", "servicebus"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_scenario_comes_to_the_same_in_real_time(scenario: Scenario, played: Any) -> None:
    """What the simulation says is what a broker does: here the same one, with threads and the machine's clock."""
    source, destination = (f"local://scenario-{uuid.uuid4().hex}" for _ in range(2))
    real = scenario.run(f"{source}?emulate={played}", destination, idle=0.1)
    assert real.outcome == scenario.simulate(played).outcome


def test_scenario_refuses_what_it_cannot_bring_about() -> None:
    """A fault of the broker's own is refused on a real one, not passed over."""
    scenario = Scenario(name="s", apply=double, messages=[1], faults=[Rebalance(1)])
    with pytest.raises(ConfigError, match="Rebalance"):
        scenario.run("local://in", "local://out")


USERS_TEST = """
from eventflows import subscriber

@subscriber("local://orders", name="orders")
def apply(input: int) -> None: ...

def test_it(simulate):
    assert sorted(simulate(apply, [1, 2, 3], emulate="kafka").processed) == [0, 1, 2]
"""


def test_fixture_is_there_for_tests_of_users(tmp_path: pathlib.Path) -> None:
    """A test that asks for `simulate` gets it: the package brings its plugin."""
    (tmp_path / "test_users.py").write_text(USERS_TEST, encoding="utf-8")
    installed = any(point.value == "eventflows.testing.plugin" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "eventflows.testing.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout


def test_plugin_is_an_entry_point_of_the_package() -> None:
    """Installing the package is enough."""
    project = tomllib.loads((pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["entry-points"]["pytest11"] == {"eventflows": "eventflows.testing.plugin"}
