"""A decorated function in other hands: another process, a forked one, and a platform's development kit."""

from __future__ import annotations

import inspect
import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

import eventflows
from eventflows import Delivery, publisher, subscriber
from eventflows.protocols import Browsable

FLOWS = """
import eventflows

@eventflows.subscriber("local://in", name="double", workers=3)
@eventflows.publisher("local://out")
def apply(input: int) -> int:
    return 2 * input

def seen(flow):
    return flow is apply, flow.source, flow.destination, flow(4)
"""
SPAWNS = """
import concurrent.futures, multiprocessing
import flows

if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        print(*pool.submit(flows.seen, flows.apply).result(60))
"""
FORKS = """
import os, traceback
import eventflows

@eventflows.publisher("local://out?file=flows.db")
def apply(input: int) -> int:
    return input

apply(1)
child = os.fork()
if child == 0:
    try:
        apply(2)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
_, status = os.waitpid(child, 0)
apply(3)
raise SystemExit(os.waitstatus_to_exitcode(status))
"""


def run(folder: pathlib.Path, script: str) -> str:
    """Run a script as a program of its own, and give what it printed."""
    (folder / "script.py").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_flow_is_the_same_when_it_comes_to_a_spawned_process(tmp_path: pathlib.Path) -> None:
    """It is pickled by reference: there it is the module's own flow, with its source and destination."""
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    assert run(tmp_path, SPAWNS) == "True local://in local://out 8"


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_call_publishes_in_the_child_when_it_was_called_before_the_fork(tmp_path: pathlib.Path) -> None:
    """The child connects anew, and the parent goes on with its own connection."""
    run(tmp_path, FORKS)
    source = eventflows.open_subscriber(f"local://out?file={tmp_path}/flows.db")
    assert isinstance(source, Browsable)
    assert sorted(delivery.message.body or b"" for delivery in source.peek(10, timeout=5)) == [b"1", b"2", b"3"]


def kit_accepts(apply: Callable[..., object]) -> bool:
    """Judge as the platform's development kit does: by the names of the positional parameters."""
    return len(inspect.getfullargspec(apply).args) in (1, 2)


def plain(input: int) -> int:
    """Take an input."""
    return input


def stateful(input: int, state: int) -> int:
    """Take what was loaded, too."""
    return input + state


def told(input: int, *, delivery: Delivery | None = None) -> int:
    """Take the delivery, too."""
    return input if delivery is None else delivery.attempt


def both(input: int, state: int, *, delivery: Delivery | None = None) -> int:
    """Take all there is."""
    return input + state if delivery is None else delivery.attempt


@pytest.mark.parametrize("function", [plain, stateful, told, both], ids=lambda function: function.__name__)
@pytest.mark.parametrize("ends", ["source", "destination", "both"])
def test_kit_accepts_a_decorated_function(function: Callable[..., int], ends: str) -> None:
    """The kit refuses a function of more than two positional parameters; decorating adds none."""
    load = {"load": lambda: 1} if "state" in inspect.signature(function).parameters else {}
    flow: Callable[..., object] = function
    if ends != "source":
        flow = publisher("local://out")(flow)
    if ends != "destination":
        flow = subscriber("local://in", **load)(flow)
    assert kit_accepts(flow)


def test_kit_refuses_what_has_three_positional_parameters() -> None:
    """The rule that is applied here does tell functions apart."""
    assert not kit_accepts(lambda input, state, more: None)
