"""Worker processes: what crosses, what cannot, and what is refused."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

import pytest

import eventflows
import runner_flows
from eventflows import ConfigError, Delivery, DrainTimeoutError, Message, Observer
from eventflows.testing import wait_until

PATIENCE = 60.0


def outputs(name: str) -> list[Message]:
    """Look at what a flow published, in the order of its keys and bodies."""
    got = eventflows.open_subscriber(runner_flows.destination(name)).peek(1000, timeout=5)
    return sorted((one.message for one in got), key=lambda message: (message.key or "", message.body or b""))


def run(flow: Any, *values: object, **settings: Any) -> list[Message]:
    """Send values, run a flow over them, and give what it published."""
    name = flow.__wrapped__.__name__
    eventflows.send(runner_flows.source(name), *values)
    flow.run(limit=len(values), signals=False)
    return outputs(name)


def test_process_results_come_back_with_deterministic_ids() -> None:
    """What `apply` returns there is published here, under the ids that a thread would have given."""
    made = run(runner_flows.doubles, *range(50))
    assert sorted(json.loads(message.body or b"") for message in made) == [2 * number for number in range(50)]
    assert len({message.id for message in made}) == 50
    assert {str(message.id).rpartition("-")[2] for message in made} == {"0"}


def test_process_computes_keys_where_the_result_is() -> None:
    """A `key=` function gets the result, in the worker process."""
    made = run(runner_flows.keys, 1, 2, 3)
    assert [(message.key, message.body) for message in made] == [("key-0", b"2"), ("key-1", b"1"), ("key-1", b"3")]


def test_process_results_may_be_messages_and_none() -> None:
    """`Messages`, a `Message` and None mean what they mean on a thread."""
    made = run(runner_flows.several, 0, 1, 2)
    assert [(message.key, message.body) for message in made] == [(None, b"1"), (None, b"alone"), ("own", b"own")]
    assert all(message.id for message in made)


def test_process_errors_keep_their_names_when_they_cannot_be_pickled() -> None:
    """The dead letter names the class of an error that cannot cross, and the reason of a `Reject`."""
    eventflows.send(runner_flows.source("odd"), 0, 1)
    runner_flows.odd.run(limit=2, signals=False)
    kinds = {message.headers["ef-error-type"]: message.headers["ef-reason"] for message in outputs("odd")}
    assert kinds == {"OddError": "attempts used up", "Reject": "rejected there"}


def test_process_apply_gets_its_delivery() -> None:
    """Without the client's own object, which cannot cross."""
    with eventflows.open_publisher(runner_flows.source("told")) as source:
        source.publish([Message(b"body", key="k", headers={"a": "b"})])
    runner_flows.told.run(limit=1, signals=False)
    assert [message.body for message in outputs("told")] == [b"1 k b None"]


def test_process_runs_batches() -> None:
    """A run is a batch there, too."""
    assert [message.body for message in run(runner_flows.batches, 1, 2, 3, 4)] == [b"4"] * 4


def test_process_awaits_coroutine_functions() -> None:
    """An `async def apply` runs on a loop of the worker process."""
    assert [message.body for message in run(runner_flows.awaits, 7)] == [b"7"]


def test_process_flow_is_found_by_the_name_it_was_assigned_to() -> None:
    """A flow of a lambda has no name of its own; its variable has."""
    eventflows.send(runner_flows.source("assigned"), 5)
    runner_flows.ASSIGNED.run(limit=1, signals=False)
    assert [message.body for message in outputs("assigned")] == [b"5"]


def test_process_calls_are_told_to_observers() -> None:
    """`started` and `finished` come with the report."""

    class Watch(Observer):
        def __init__(self) -> None:
            self.seen: list[tuple[str, float]] = []

        def finished(self, *, flow: str, delivery: Delivery, seconds: float, error: BaseException | None) -> None:
            self.seen.append((delivery.position, seconds))

    watch = Watch()
    eventflows.send(runner_flows.source("watched"), *range(5))
    from eventflows.flow import run_observed

    run_observed([runner_flows.watched], [watch], limit=5, signals=False)
    assert (len({position for position, _ in watch.seen}), all(seconds > 0 for _, seconds in watch.seen)) == (5, True)


def test_process_that_hangs_is_ended_with_the_drain(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the drain time no worker process is left behind."""
    mark = tmp_path / "mark"
    monkeypatch.setenv("EVENTFLOWS_TEST_MARK", str(mark))
    eventflows.send(runner_flows.source("hangs"), 1)
    flow: Any = runner_flows.hangs
    stopper = threading.Thread(target=lambda: (wait_until(mark.exists, PATIENCE, what="the call"), flow.stop()))
    stopper.start()
    with pytest.raises(DrainTimeoutError):
        flow.run(signals=False)
    stopper.join()
    import multiprocessing

    wait_until(lambda: not multiprocessing.active_children(), PATIENCE, what="the end of the worker processes")


def test_process_flow_of_a_local_function_is_refused_at_the_start() -> None:
    """The text says what to do."""

    @eventflows.subscriber("local://never", executor="process")
    def apply(input: int) -> None: ...

    with pytest.raises(ConfigError, match="top level"):
        apply.run(until_idle=0.01)


SCRIPT = """
import os, sys
from eventflows import subscriber, publisher, send, open_subscriber

@subscriber("local://in", executor="process", workers=2)
@publisher("local://out")
def apply(input: int) -> int:
    return input * (1 if os.getpid() == {parent} else 2)

{guard}
    send("local://in", 1, 2, 3)
    apply.run(limit=3)
    print(sorted(one.message.body for one in open_subscriber("local://out").peek(9, timeout=1)))
"""


def script(
    folder: pathlib.Path, guard: str, *command: str, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own."""
    text = SCRIPT.format(parent=0, guard=guard)
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, *(command or ("script.py",))], cwd=folder, input=text if given else None,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_process_flow_of_a_script_runs_as_main(tmp_path: pathlib.Path) -> None:
    """`python script.py` works, with the usual guard."""
    done = script(tmp_path, 'if __name__ == "__main__":')
    assert (done.returncode, done.stdout) == (0, "[b'2', b'4', b'6']\n"), done.stderr


def test_process_flow_of_a_script_without_a_guard_says_what_is_missing(tmp_path: pathlib.Path) -> None:
    """A worker process that imports the script must not run it again."""
    done = script(tmp_path, "if True:")
    assert (done.returncode, '__name__ == "__main__"' in done.stderr) == (1, True), done.stderr


def test_process_flow_from_standard_input_is_refused_with_the_way_out(tmp_path: pathlib.Path) -> None:
    """What was typed, or piped, cannot be imported by another process."""
    done = script(tmp_path, 'if __name__ == "__main__":', "-", given="yes")
    assert (done.returncode, "module of its own" in done.stderr) == (1, True), done.stderr


def test_process_ends_with_its_parent(tmp_path: pathlib.Path) -> None:
    """A kill -9 of the parent leaves no worker process behind."""
    (tmp_path / "orphan.py").write_text(
        "import os, pathlib, signal\n"
        "from eventflows import send, subscriber\n"
        "@subscriber('local://in', executor='process')\n"
        "def apply(input):\n"
        "    pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "    os.kill(os.getppid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    send('local://in', 1)\n"
        "    apply.run()\n"
    )
    subprocess.run([sys.executable, "orphan.py"], cwd=tmp_path, timeout=PATIENCE, check=False)
    pid = int((tmp_path / "pid").read_text())

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"

    wait_until(gone, PATIENCE, what="the end of the worker process")


def test_process_hands_back_what_it_has_not_begun_when_stopped(tmp_path: pathlib.Path) -> None:
    """A stop recalls the rest of a run that has crossed already: it ends with the message that it is on."""
    eventflows.send(runner_flows.source("sleeps"), *([0.01] * 30 + [0.5] * 20))
    flow: Any = runner_flows.sleeps
    calls: list[int] = []

    class Watch(Observer):
        def settled(self, *, flow: str, verdict: object, count: int) -> None:
            calls.append(count)

    from eventflows.flow import run_observed

    stopper = threading.Thread(
        target=lambda: (wait_until(lambda: sum(calls) >= 20, PATIENCE, what="some calls"), flow.stop())
    )
    stopper.start()
    [result] = run_observed([flow], [Watch()], signals=False)
    stopper.join()
    assert (result.acked < 45, result.released > 0, result.acked + result.released) == (True, True, result.received)


def test_process_spares_what_is_loaded_the_garbage_collector() -> None:
    """A worker process is the library's own: what was there when it was ready is gone through no more."""
    [spared] = run(runner_flows.spared, 1)

    assert spared.body == b"true"
