"""The command, as a person at a terminal or a script would use it."""

from __future__ import annotations

import os
import pathlib
import pty
import signal
import subprocess
import sys

import pytest

FLOWS = """
import sys
from eventflows import publisher, subscriber

@subscriber("local://in?file=flows.db", name="double")
@publisher("local://out?file=flows.db")
def apply(input: int) -> int:
    return 2 * input

@subscriber("local://in?file=flows.db", dead_letter="halt")
def halts(input: int) -> None:
    raise ValueError("SECRET-BODY")

def broken():
    raise RuntimeError("no model")

@subscriber("local://in?file=flows.db", load=broken)
def unloadable(input: int, state: object) -> None: ...

@subscriber("local://in?file=flows.db", drain_timeout=0.1)
def hangs(input: int) -> None:
    print("hanging", flush=True)
    while True:
        pass

@subscriber("local://in?file=flows.db")
def waits(input: int) -> None:
    print("working", flush=True)

@subscriber("local://memory")
def remembers(input: int) -> None: ...

def plain(input): ...
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with some flows."""
    (tmp_path / "scorer.py").write_text(FLOWS, encoding="utf-8")
    (tmp_path / "wrong.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    (tmp_path / "raises.py").write_text("x = 1\nraise ValueError('SECRET-BODY')\n", encoding="utf-8")
    return tmp_path


def command(folder: pathlib.Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "eventflows", *words],
        cwd=folder, input=given, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


def begun(folder: pathlib.Path, *words: str) -> subprocess.Popen[str]:
    """Start the command."""
    return subprocess.Popen(
        [sys.executable, "-m", "eventflows", *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_send_run_and_tail_work_together(folder: pathlib.Path) -> None:
    """What is sent is worked on, and its outputs can be seen."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n\n2\n3\n")
    command(folder, "run", "scorer:apply", "--until-idle", "0.2")
    shown = command(folder, "tail", "local://out?file=flows.db").stdout
    assert sorted(line.split()[-1] for line in shown.splitlines()) == ["2", "4", "6"]


def test_run_ends_with_0_when_it_drained(folder: pathlib.Path) -> None:
    """An idle flow drains and says what it did."""
    done = command(folder, "run", "scorer.py:apply", "--until-idle", "0.1")
    assert (done.returncode, done.stdout.startswith("double: 0 received")) == (0, True)


def test_run_stops_after_its_limit(folder: pathlib.Path) -> None:
    """No more than the limit is taken."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n2\n3\n")
    done = command(folder, "run", "scorer:apply", "--limit", "2")
    assert "2 received, 2 acked" in done.stdout


def test_send_says_how_many_were_sent(folder: pathlib.Path) -> None:
    """Empty lines are no messages."""
    done = command(folder, "send", "local://in?file=flows.db", given=b"1\n\n2\n")
    assert done.stderr == "2 sent to local://in?file=flows.db\n"


def test_send_whole_sends_one_message(folder: pathlib.Path) -> None:
    """A file as one message, its bytes as they are."""
    (folder / "file.bin").write_bytes(b"a\nb\n")
    command(folder, "send", "local://whole?file=flows.db", "file.bin", "--whole", "--key", "k")
    assert command(folder, "tail", "local://whole?file=flows.db").stdout == "1 key=k 4 B  a\\nb\\n\n"


def test_tail_takes_nothing(folder: pathlib.Path) -> None:
    """Seen twice is seen alike."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n2\n")
    first, second = (command(folder, "tail", "local://in?file=flows.db").stdout for _ in range(2))
    assert (first, len(first.splitlines())) == (second, 2)


def test_preview_shows_input_and_output(folder: pathlib.Path) -> None:
    """What the flow would do."""
    command(folder, "send", "local://in?file=flows.db", given=b"21\n")
    assert command(folder, "preview", "scorer:apply").stdout.startswith("21  ->  42")


def test_describe_shows_the_source(folder: pathlib.Path) -> None:
    """What the flow is."""
    assert "local://in?file=flows.db" in command(folder, "describe", "scorer:apply").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("run", "scorer:aply"), "did you mean 'apply'?"),
        (("run", "scorer:plain"), "is a function, not a flow"),
        (("run", "scorer"), "is not MODULE:FLOW"),
        (("run", "nowhere:apply"), "no module 'nowhere'"),
        (("run", "nowhere.py:apply"), "there is no file nowhere.py"),
        (("run", "wrong:apply"), "'nothing_of_that_name' is not installed"),
        (("run", "raises:apply"), "raises.py:2"),
        (("run",), "Missing argument"),
        (("run", "scorer:apply", "--limit", "0"), "--limit"),
        (("run", "scorer:apply", "--limt", "1"), "--limit"),
        (("rum", "scorer:apply"), "rum"),
        (("tail", "locl://in"), "did you mean 'local://'?"),
        (("tail", "local://in?fil=flows.db"), "did you mean 'file'?"),
        (("tail", "in"), "is not a URL"),
        (("tail", "local://in"), "memory of one process"),
        (("send", "local://in"), "memory of one process"),
        (("send", "local://in?file=flows.db", "none.jsonl"), "none.jsonl"),
        (("send", "local://in?file=scorer.py"), "is not a SQLite database"),
        (("preview", "scorer:remembers"), "memory of one process"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_mistake_is_one_line_and_status_2(folder: pathlib.Path, words: tuple[str, ...], text: str) -> None:
    """Every mistake is named in one line, without a traceback."""
    done = command(folder, *words)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), lines[0].startswith("eventflows: "), text in lines[0]) == (
        2, 1, True, True,
    ), done.stderr  # fmt: skip


def test_body_stays_out_of_an_import_error(folder: pathlib.Path) -> None:
    """The text of somebody's exception is not shown."""
    assert "SECRET-BODY" not in command(folder, "run", "raises:apply").stderr


def test_halted_flow_ends_with_1_and_names_the_position(folder: pathlib.Path) -> None:
    """A halt says where, and what to do."""
    command(folder, "send", "local://in?file=flows.db", given=b'"text"\n')
    done = command(folder, "run", "scorer:halts")
    assert (done.returncode, "halted at local://in?file=flows.db position 1" in done.stderr) == (1, True), done.stderr


def test_failing_load_ends_with_1(folder: pathlib.Path) -> None:
    """A load that raises is named, without a traceback."""
    done = command(folder, "run", "scorer:unloadable")
    assert (done.returncode, "load() raised RuntimeError" in done.stderr, "Traceback" in done.stderr) == (
        1, True, False,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_drains_and_ends_with_0(folder: pathlib.Path, number: int) -> None:
    """Ctrl-C and SIGTERM finish what runs."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    process = begun(folder, "run", "scorer:waits")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, "1 acked" in output, "Traceback" in errors) == (0, True, False), errors


def test_drain_that_times_out_ends_with_3(folder: pathlib.Path) -> None:
    """A hung `apply` cannot keep the process alive."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    process = begun(folder, "run", "scorer:hangs")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 3


def test_closed_pipe_is_quiet(folder: pathlib.Path) -> None:
    """A reader that goes away is no error."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n" * 20_000)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m eventflows tail 'local://in?file=flows.db' -n 20000 | head -n 1"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr == ""


def test_memory_source_is_warned_of(folder: pathlib.Path) -> None:
    """A run on a memory broker says that nothing from outside arrives."""
    done = command(folder, "run", "scorer:remembers", "--until-idle", "0.1")
    assert "lives in the memory of this process alone" in done.stderr


def test_run_on_a_terminal_shows_a_live_line(folder: pathlib.Path) -> None:
    """Counts and rate, on a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "eventflows", "run", "scorer:apply", "--until-idle", "0.5"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=follower, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    try:
        while b"messages/s" not in shown:
            shown += os.read(leader, 4096)
    finally:
        os.close(leader)
        process.wait(timeout=30)
    assert b"acked" in shown


@pytest.mark.parametrize("name", ["run", "preview", "describe", "send", "tail"])
def test_help_teaches_with_an_example(folder: pathlib.Path, name: str) -> None:
    """Each command's help shows one that can be copied."""
    assert f"eventflows {name} " in command(folder, name, "--help").stdout.split("Example")[1]
