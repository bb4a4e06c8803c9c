"""R4, R8, R9, R14, R16 and R24 with real processes: signals, kills and exit statuses."""

from __future__ import annotations

import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from eventflows.testing.cases import numbered
from eventflows.testing.conditions import wait_until
from eventflows.testing.flows import IDLE, Calls, FlowCases

PROGRAM = """
import logging, os, pathlib, signal, threading, time
from eventflows import RetryPolicy, publisher, subscriber

HERE = pathlib.Path(__file__).parent

def note(word, body):
    line = b"%s %s\\n" % (word, body)
    out = os.open(HERE / "calls.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(out, line)
    os.close(out)

def until(name):
    while not (HERE / name).exists():
        threading.Event().wait(0.01)

class Drains(logging.Handler):
    def emit(self, record):
        if "drains" in record.msg:
            note(b"drains", b"")

logging.getLogger("eventflows").addHandler(Drains())

{load}
{publisher}
@subscriber({url!r}, name="conformance", {settings} **{options!r})
def apply(input: bytes{state}):
    note(b"begin", input)
    {work}
    note(b"end", input)
    return input
"""
HOLDING = """
import os, signal
from eventflows import open_subscriber
subscriber = open_subscriber(URL, **OPTIONS)
subscriber.open()
got = 0
while got < 3:
    got += sum(map(len, subscriber.receive(3 - got, max_bytes=1 << 20, timeout=5)))
os.kill(os.getpid(), signal.SIGKILL)
"""


class Processes(FlowCases):
    """`eventflows run` in a process of its own, stopped and killed."""

    folder: pathlib.Path

    def start(
        self,
        work: str,
        *,
        settings: str = "",
        load: str = "",
        state: str = "",
        source: Mapping[str, object] | None = None,
        destination: str | None = None,
    ) -> subprocess.Popen[str]:
        """Start the command on a program whose `apply` does some work; skip where processes share nothing.

        Args:
            work: A statement.
            settings: Of the flow, each with a comma behind it.
            load: The function `load`.
            state: The parameter for its result, with a comma before it.
            source: Options of the source.
            destination: Where inputs are copied to; None: nowhere.
        """
        if not self.can.durable:
            self.skip("keeps nothing beyond the process, so no other process can work on it")
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="eventflows-conformance-"))
        self._exit.callback(shutil.rmtree, self.folder, ignore_errors=True)
        url, options = self.broker.source(self.topic, None, **(source or {}))
        given = {"settings": settings, "work": work, "load": load, "state": state, "publisher": ""}
        if destination is not None:
            place, more = self.broker.destination(destination)
            given["publisher"] = f"@publisher({place!r}, **{more!r})"
        text = PROGRAM.format(url=url, options=options, **given)
        (self.folder / "program.py").write_text(text, encoding="utf-8")
        return self.again()

    def again(self) -> subprocess.Popen[str]:
        """Start the command on the same program."""
        process = subprocess.Popen(
            [sys.executable, "-m", "eventflows", "run", "program:apply"],
            cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._exit.callback(self._end, process)
        return process

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.kill()
        process.communicate()

    def noted(self, word: str) -> list[bytes]:
        """Read what the program noted."""
        log = self.folder / "calls.log"
        lines = log.read_bytes().splitlines() if log.exists() else []
        return [line.partition(b" ")[2] for line in lines if line.startswith(word.encode() + b" ")]

    def until_noted(self, process: subprocess.Popen[str], word: str, count: int) -> None:
        """Wait until the program has noted a word so often."""

        def enough() -> bool:
            assert process.poll() is None or len(self.noted(word)) >= count, process.communicate()[0]
            return len(self.noted(word)) >= count

        wait_until(enough, self.broker.patience, what=f"{count} notes of {word!r}")

    def ended(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the end; give exit status and output."""
        output, _ = process.communicate(timeout=self.broker.patience)
        return process.returncode, output

    def test_r04_the_command_of_a_halted_flow_exits_with_1(self) -> None:
        """A flow that halts ends its command with status 1 and a line that names the position, no traceback."""
        self.publish(b"poison")
        settings = 'dead_letter="halt", retry=RetryPolicy(attempts=1),'
        status, output = self.ended(self.start("raise ValueError('always')", settings=settings))
        assert (status, "halt" in output, "Traceback" in output) == (1, True, False), output
        assert self.left() == [b"poison"]

    def test_r08_sigterm_finishes_what_runs_and_starts_no_more(self) -> None:
        """On SIGTERM the running calls end, none begins, the untouched go back, and the command exits with 0."""
        self.publish(*numbered(20))
        process = self.start("until('go')", settings="workers=2,")
        self.until_noted(process, "begin", 2)
        process.send_signal(signal.SIGTERM)
        self.until_noted(process, "drains", 1)
        left = self.left() if self.can.release == "free" else []  # handed back before the running calls end
        (self.folder / "go").touch()
        status, output = self.ended(process)
        begun, ended = self.noted("begin"), self.noted("end")
        assert (status, sorted(begun), len(ended)) == (0, sorted(ended), 2), output
        assert set(left or self.left()) | set(ended) == {b"%d" % number for number in range(20)}
        assert set(self.left()) & set(ended) == set()

    def test_r08_leases_are_renewed_during_the_drain(self) -> None:
        """What runs when SIGTERM comes keeps its lease until it ends, however long: it runs once."""
        options = self.broker.short_lease()
        if options is None:
            self.skip("has no short lease in its harness")
        self.publish(b"long")
        process = self.start(f"time.sleep({3 * self.broker.lease})", source=options)
        self.until_noted(process, "begin", 1)
        process.send_signal(signal.SIGTERM)
        status, output = self.ended(process)
        assert (status, self.noted("end"), self.left()) == (0, [b"long"], []), output

    def test_r09_the_drain_time_ends_a_hanging_command_with_3(self) -> None:
        """A call that never returns cannot keep the process: status 3 after the drain time, the message stays."""
        self.publish(b"hangs")
        process = self.start("time.sleep(3600)", settings="drain_timeout=0.3,")
        self.until_noted(process, "begin", 1)
        process.send_signal(signal.SIGTERM)
        status, output = self.ended(process)
        assert (status, self.left()) == (3, [b"hangs"]), output

    def test_r09_a_second_signal_skips_the_wait(self) -> None:
        """The second SIGTERM ends a drain that would last for long."""
        self.publish(b"hangs")
        process = self.start("time.sleep(3600)", settings="drain_timeout=3600,")
        self.until_noted(process, "begin", 1)
        began, pause, due = time.monotonic(), 0.5, 0.0

        def gone() -> bool:
            nonlocal pause, due
            if time.monotonic() - began >= due:
                # The first one drains, each further one hurries. Ever more seldom: one that comes when the run is over
                # and its handlers are gone would end the interpreter before it says its status.
                process.send_signal(signal.SIGTERM)
                pause *= 2
                due += pause
            return process.poll() is not None

        wait_until(gone, self.broker.patience, what="the end after a second signal", every=0.05)
        status, output = self.ended(process)
        assert (status, self.left()) == (3, [b"hangs"]), output

    def test_r14_a_kill_skips_nothing(self) -> None:
        """Killed after out-of-order completions, the next start gets every message that was not finished."""
        self.publish(*numbered(60))
        process = self.start("until('never') if input == b'0' else None", settings="workers=4,")
        self.until_noted(process, "end", 25)
        process.kill()
        self.ended(process)
        finished = set(self.noted("end"))
        calls = Calls()
        self.run(self.flow(calls), until_idle=IDLE + self.broker.unseen)
        everything = {b"%d" % number for number in range(60)}
        assert (everything - finished) - set(calls.finished) == set(), "skipped by the restart"
        assert self.left() == []

    def test_r16_a_failing_load_ends_the_command_with_1(self) -> None:
        """A `load()` that raises ends the command with status 1 and a readable line, no message touched."""
        self.publish(b"waits")
        load = "def load():\n    raise OSError('no such model')\n"
        status, output = self.ended(self.start("pass", settings="load=load,", load=load, state=", model"))
        assert (status, "load()" in output, "Traceback" in output) == (1, True, False), output
        assert self.left() == [b"waits"]

    def test_r24_until_idle_waits_for_what_a_dead_process_held(self) -> None:
        """What a killed process held is handled before the flow counts as idle."""
        if not self.can.durable:
            self.skip("keeps nothing beyond the process, so no other process can hold any of it")
        self.publish(*numbered(3))
        url, options = self.broker.source(self.topic, None, **(self.broker.short_lease() or {}))
        assert self.elsewhere(HOLDING, url, options).returncode == -signal.SIGKILL
        calls = Calls()
        self.run(self.flow(calls), until_idle=self.broker.quiet + self.broker.unseen)
        assert sorted(calls.finished) == [b"0", b"1", b"2"]
