"""R17, R18, R31, R33, R36 and R37: worker processes, batches, and the other guarantees."""

from __future__ import annotations

import importlib
import pathlib
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

import pytest

from eventflows.errors import BatchResultError, CapabilityError, HaltedError
from eventflows.flow import Flow
from eventflows.message import Chunk, Message
from eventflows.observe import Observer
from eventflows.policy import RetryPolicy
from eventflows.testing.cases import numbered
from eventflows.testing.conditions import wait_until
from eventflows.testing.flows import IDLE, Calls
from eventflows.testing.runner_processes import Processes

MODULE = """
import os, pathlib, signal, threading
from eventflows import RetryPolicy, publisher, subscriber

HERE = pathlib.Path(__file__).parent

def note(word, body):
    out = os.open(HERE / "calls.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(out, b"%s %s\\n" % (word, body))
    os.close(out)

def load():
    note(b"load", b"%d" % os.getpid())
    return os.getpid()

@subscriber({url!r}, name="conformance", load=load, executor="process", {settings} **{options!r})
def apply(input: bytes, state):
    note(b"begin", input)
    {work}
    note(b"end", input)
"""
SEGFAULT = "if input == b'13': signal.raise_signal(11)"  # unlike os.kill, it does not return


class Came(Observer):
    """Notes when something was received."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def received(self, *, flow: str, chunk: Chunk) -> None:
        """Note it."""
        self.at.append(time.monotonic())


class Executors(Processes):
    """Other ways to call `apply` than one by one on a thread."""

    def module_flow(self, work: str, settings: str, topic: str | None = None) -> Flow[..., Any]:
        """Make a flow in a module of its own, so that worker processes can import it."""
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="eventflows-conformance-"))
        self._exit.callback(shutil.rmtree, self.folder, ignore_errors=True)
        name = self.folder.name.replace("-", "_")
        url, options = self.broker.source(topic or self.topic)
        text = MODULE.format(url=url, options=options, settings=settings, work=work)
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")
        sys.path.insert(0, str(self.folder))
        self._exit.callback(sys.path.remove, str(self.folder))
        importlib.invalidate_caches()
        module: Any = importlib.import_module(name)
        self._exit.callback(sys.modules.pop, name, None)
        module.apply = self.broker.flow(module.apply)
        flow: Flow[..., Any] = module.apply
        return flow

    def letters(self) -> tuple[str, str]:
        """Give a place for dead letters: its name, and the settings of a flow that sends them there."""
        name = self.fresh()
        url, _ = self.broker.destination(name)
        return name, f"dead_letter={url!r}, retry=RetryPolicy(attempts=2, delay=0.05, jitter=0),"

    def test_r17_a_crash_costs_only_its_own_message(self) -> None:
        """A worker process that segfaults is replaced; every other message is handled, once where it was not lost."""
        dead, settings = self.letters()
        self.publish(*numbered(40))
        result = self.run(self.module_flow(SEGFAULT, settings + "workers=2,"), limit=40)
        assert (result.acked, result.dead_lettered) == (39, 1)
        assert self.arrived(dead, 1) == [b"13"]
        assert self.noted("begin").count(b"13") == 2

    def test_r17_a_call_that_takes_too_long_is_ended(self) -> None:
        """With `timeout=` the process is killed and replaced, and the message fails."""
        dead, settings = self.letters()
        self.publish(*numbered(10))
        work = "if input == b'3': threading.Event().wait()"
        result = self.run(self.module_flow(work, settings + "timeout=0.5,"), limit=10)
        assert (result.acked, result.dead_lettered, self.arrived(dead, 1)) == (9, 1, [b"3"])

    def test_r17_the_state_is_loaded_once_in_each_process(self) -> None:
        """`load()` runs in every worker process, once."""
        self.publish(*numbered(30))
        self.run(self.module_flow("assert state == os.getpid()", "workers=2,"), limit=30)
        loads = self.noted("load")
        assert (len(loads), len(set(loads))) == (2, 2)

    def test_r33_a_message_that_kills_its_process_is_bounded(self) -> None:
        """Under threads a crash takes everything down; the count over starts ends it, or the processes do."""
        dead, settings = self.letters()
        self.publish(b"13")
        process = self.start(SEGFAULT.replace("if input == b'13': ", ""), settings=settings)
        for _ in range(2):
            assert self.ended(process)[0] == -signal.SIGSEGV
            process = self.again()
        assert self.arrived(dead, 1) == [b"13"]
        process.send_signal(signal.SIGTERM)
        assert (self.ended(process)[0], self.noted("begin")) == (0, [b"13", b"13"])

    def test_r18_one_poison_among_a_batch_fails_alone(self) -> None:
        """When a batch raises it is split until the poison is alone; the others are acknowledged."""
        calls: list[list[bytes]] = []

        def apply(input: list[bytes]) -> list[None]:
            calls.append(input)
            if b"13" in input:
                raise ValueError("poison")
            return [None] * len(input)

        dead = self.fresh()
        url, _ = self.broker.destination(dead)
        self.publish(*numbered(32))
        retry = RetryPolicy(attempts=1)
        result = self.run(self.connect(apply, batch=32, batch_wait=1.0, dead_letter=url, retry=retry), limit=32)
        assert (result.acked, result.dead_lettered, self.arrived(dead, 1)) == (31, 1, [b"13"])
        assert max(map(len, calls)) > 1

    @pytest.mark.parametrize("results", [[], [1, 2, 3], "text", {"a": 1}])
    def test_r18_a_wrong_number_of_results_ends_the_flow(self, results: object) -> None:
        """It is an error of the flow, named as such, and nothing of the batch is acknowledged."""
        self.publish(*numbered(2))

        def apply(input: list[bytes]) -> object:
            return results

        with pytest.raises(BatchResultError, match="sequence of"):
            self.run(self.connect(apply, batch=2, batch_wait=self.broker.quiet))
        assert sorted(filter(None, self.left())) == [b"0", b"1"]

    def test_r18_a_lone_message_waits_no_longer_than_batch_wait(self) -> None:
        """A batch that does not fill goes when the time is over: after `batch_wait`, and not much later."""
        came, called = Came(), list[float]()

        def apply(input: list[bytes]) -> None:
            called.append(time.monotonic())

        with self.running(self.connect(apply, batch=64, batch_wait=0.2, observers=[came])):
            self.publish(b"lone")
            wait_until(lambda: called, self.broker.patience, what="the call")
        assert called[0] - came.at[0] < 0.2 + self.broker.slack

    def test_r31_exactly_once_survives_a_kill_or_is_refused(self) -> None:
        """Killed after ends out of order, each output is seen once; without transactions the flow does not start."""
        self.publish(*numbered(60))
        out = self.fresh()
        if not self.can.transactions:
            with pytest.raises(CapabilityError, match="exactly-once"):
                self.run(self.flow(Calls(), guarantee="exactly-once", destination=out))
            assert len(self.left()) == 60
            return
        settings = 'guarantee="exactly-once", workers=4,'
        process = self.start("until('never') if input == b'0' else None", settings=settings, destination=out)
        self.until_noted(process, "end", 30)
        process.kill()
        self.ended(process)
        calls = Calls(lambda body: body)
        self.run(self.flow(calls, guarantee="exactly-once", destination=out))
        assert sorted(int(body or b"") for body in self.arrived(out, 60)) == list(range(60))
        assert set(calls.finished) & set(self.noted("end")), "nothing had to be done again: the case shows nothing"

    def test_r36_at_most_once_runs_no_input_twice(self) -> None:
        """Killed at any moment, the next start runs nothing that has begun before."""
        self.publish(*numbered(60))
        settings = 'guarantee="at-most-once", dead_letter="drop",'
        process = self.start("until('never') if input == b'20' else None", settings=settings)
        self.until_noted(process, "begin", 5)
        process.kill()
        self.ended(process)
        begun = self.noted("begin")
        calls = Calls()
        flow = self.flow(calls, guarantee="at-most-once", dead_letter="drop")
        self.run(flow, until_idle=IDLE + self.broker.unseen)
        assert set(begun) & set(calls.bodies) == set()
        assert len(calls.bodies) == len(set(calls.bodies))

    def test_r36_a_failure_is_not_tried_again(self) -> None:
        """At most once is once for failures, too: the flow halts where they have no place."""
        calls = Calls(_fails)
        self.publish(b"1")
        with pytest.raises(HaltedError, match="does not come again"):
            self.run(self.flow(calls, guarantee="at-most-once"), limit=1)
        assert (calls.bodies, self.left()) == ([b"1"], [])

    def test_r37_later_items_of_a_key_follow_the_one_that_failed(self) -> None:
        """In a batch with equal keys, what is behind a failed item of its key runs again, after it."""
        if self.can.ordering == "none":
            self.skip("keeps no order of keys")
        failures = [b"a1"]

        def apply(input: list[bytes]) -> list[object]:
            results: list[object] = []
            for body in input:
                failed = body in failures
                if failed:
                    failures.remove(body)
                results.append(ValueError("once") if failed else body)
            return results

        out = self.fresh()
        self.publish(*[Message(body, key=body[:1].decode()) for body in (b"a0", b"a1", b"b0", b"a2", b"b1")])
        self.run(self.connect(apply, batch=5, batch_wait=1.0, destination=out), limit=5)
        done = [body for body in self.arrived(out, 5) if body is not None]
        assert [body for body in done if body.startswith(b"a")] == [b"a0", b"a1", b"a2"]
        assert sorted(done) == [b"a0", b"a1", b"a2", b"b0", b"b1"]


def _fails(_: bytes) -> None:
    raise ValueError("always")
