"""The command, as a person at a terminal or a script would use it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pty
import re
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

@subscriber("local://in?file=flows.db", drain_timeout=0.1)
def pools(input: int) -> None:
    import concurrent.futures, threading
    with concurrent.futures.ThreadPoolExecutor() as pool:
        print("hanging", flush=True)
        pool.submit(threading.Event().wait).result()

@subscriber("local://in?file=flows.db", dead_letter="local://letters?file=flows.db")
def rejects(input: int) -> None:
    from eventflows import Reject
    raise Reject("too small")

@subscriber("local://in?file=flows.db", load=lambda: [[] for _ in range(1000)])
def spared(input: int, state: list) -> None:
    import gc
    print("spared", gc.get_freeze_count() > 1000, any(one is state for one in gc.get_objects()), flush=True)

def plain(input): ...
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with some flows."""
    (tmp_path / "scorer.py").write_text(FLOWS, encoding="utf-8")
    (tmp_path / "wrong.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    (tmp_path / "raises.py").write_text("x = 1\nimport json\njson.loads('SECRET-BODY')\n", encoding="utf-8")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    (tmp_path / "syntax.py").write_text("def (:\n", encoding="utf-8")
    (tmp_path / "badly.py").write_text(
        "import eventflows\n\n@eventflows.subscriber('local://in', ordr='key')\ndef apply(x): ...\n", encoding="utf-8"
    )
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "scorer.py").write_text(FLOWS, encoding="utf-8")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "part.py").write_text("from . import other\n", encoding="utf-8")
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
    assert command(folder, "tail", "local://whole?file=flows.db").stdout == "1\tk\t4\ta\\nb\\n\n"


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
        (("run", "scorr:apply"), "did you mean 'scorer'?"),
        (("run", "scorr.py:apply"), "did you mean scorer.py?"),
        (("run", "./scorer:apply"), "./scorer.py:apply"),
        (("run", "raises:apply"), "raises cannot be imported: JSONDecodeError at raises.py:3"),
        (("run", "raises.py:apply"), "raises.py cannot be imported: JSONDecodeError at raises.py:3"),
        (("run", "exits:apply"), "SystemExit at exits.py:2"),
        (("run", "syntax.py:apply"), "SyntaxError at syntax.py:1"),
        (("run", "badly:apply"), "badly at badly.py:3: local:// has no source option 'ordr'"),
        (("run", "package/part.py:apply"), "it is package.part"),
        (("run", "scorer.py:apply", "again/scorer.py:apply"), "the name of another module"),
        (("run", "scorer:apply", "scorer:apply"), "given twice"),
        (("run",), "Missing argument"),
        (("run", "scorer:apply", "--limit", "0"), "--limit"),
        (("run", "scorer:apply", "--limt", "1"), "Did you mean '--limit'?"),
        (("rum", "scorer:apply"), "Did you mean 'run'?"),
        (("tail", "locl://in"), "did you mean 'local://'?"),
        (("tail", "local://in?fil=flows.db"), "did you mean 'file'?"),
        (("tail", "in"), "is not a URL"),
        (("tail", "local://in"), "memory of one process"),
        (("tail", "local://in?file=nothing.db"), "there is no file nothing.db"),
        (("preview", "scorer:apply"), "there is no file flows.db"),
        (("send", "local://in"), "memory of one process"),
        (("send", "local://in?password=hidden"), "secrets are never given in a URL"),
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


@pytest.mark.parametrize("flow", ["hangs", "pools"])
def test_drain_that_times_out_ends_with_3(folder: pathlib.Path, flow: str) -> None:
    """A hung `apply` cannot keep the process alive, nor can threads of its own."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    process = begun(folder, "run", f"scorer:{flow}")
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
    assert "Memory lives in one process" in done.stderr


def test_memory_between_two_flows_of_one_run_is_not_warned_of(folder: pathlib.Path) -> None:
    """What one flow publishes, the other reads."""
    (folder / "chain.py").write_text(
        "from eventflows import publisher, subscriber\n"
        "first = publisher('local://middle')(subscriber('local://in?file=flows.db')(lambda value: value))\n"
        "second = subscriber('local://middle')(lambda value: None)\n",
        encoding="utf-8",
    )
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    done = command(folder, "run", "chain:first", "chain:second", "--until-idle", "0.3")
    assert ("Memory" in done.stderr, done.stdout.count("1 acked")) == (False, 2), done.stderr


def test_broker_that_cannot_be_reached_ends_with_1(folder: pathlib.Path) -> None:
    """Where no connection can be made, the error's class is named."""
    done = command(folder, "send", "local://in?file=nowhere/flows.db", given=b"1\n")
    assert (done.returncode, done.stderr.startswith("eventflows: NotFoundError: ")) == (1, True), done.stderr


def test_full_disk_on_standard_output_is_one_line(folder: pathlib.Path) -> None:
    """What cannot be written is said, without a traceback."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "eventflows", "tail", "local://in?file=flows.db"],
            cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "eventflows: No space left on device: standard output\n")


def test_closed_standard_input_is_one_line(folder: pathlib.Path) -> None:
    """A script without standard input is told so."""
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m eventflows send 'local://in?file=flows.db' <&-"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_command_alone_shows_its_help(folder: pathlib.Path) -> None:
    """Whoever types only the name is taught."""
    done = command(folder)
    assert (done.returncode, done.stderr.startswith("Usage: eventflows")) == (2, True)


def test_run_spares_what_is_loaded_the_garbage_collector(folder: pathlib.Path) -> None:
    """A model is gone through once, not whenever messages have come and gone."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    done = command(folder, "run", "scorer:spared", "--limit", "1")
    assert "spared True False" in done.stdout


def test_flow_that_is_run_from_code_leaves_the_garbage_collector_alone(folder: pathlib.Path) -> None:
    """The process is not the library's: what it does with its memory is its own affair."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    code = "import scorer; scorer.spared.run(limit=1)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    assert "spared False True" in done.stdout


def test_run_in_a_pipe_logs_plain_lines(folder: pathlib.Path) -> None:
    """A dead letter is a log line with its place, without escape codes and without the body."""
    command(folder, "send", "local://in?file=flows.db", given=b"77777\n")
    errors = command(folder, "run", "scorer:rejects", "--limit", "1").stderr
    assert (" at 1 dead-lettered to local://letters" in errors, "\x1b" in errors, "77777" in errors) == (
        True, False, False,
    ), errors  # fmt: skip


def test_tail_shows_why_a_dead_letter_is_one(folder: pathlib.Path) -> None:
    """A dead letter has its reason as the last column."""
    command(folder, "send", "local://in?file=flows.db", "--key", "k", given=b"7\n")
    command(folder, "run", "scorer:rejects", "--limit", "1")
    row = command(folder, "tail", "local://letters?file=flows.db").stdout.rstrip("\n").split("\t")
    assert (row[1:4], "too small" in row[4]) == (["k", "1", "7"], True)


def test_tail_says_so_when_nothing_waits(folder: pathlib.Path) -> None:
    """No output at all would leave one wondering."""
    command(folder, "send", "local://in?file=flows.db", given=b"7\n")
    done = command(folder, "tail", "local://other?file=flows.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing waits at local://other?file=flows.db\n")


def test_halted_run_prints_its_numbers(folder: pathlib.Path) -> None:
    """What was done before the halt is not lost from sight."""
    command(folder, "send", "local://in?file=flows.db", given=b'"text"\n')
    assert "1 received, 0 acked" in command(folder, "run", "scorer:halts").stdout


def test_send_sends_what_a_pipe_brings_before_it_ends(folder: pathlib.Path) -> None:
    """A line is there for others while the pipe stays open."""
    process = subprocess.Popen(
        [sys.executable, "-m", "eventflows", "send", "local://in?file=flows.db"],
        cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(b"7\n")
    process.stdin.flush()
    done = command(folder, "run", "scorer:waits", "--limit", "1")
    process.communicate(timeout=30)
    assert "1 acked" in done.stdout


def on_a_terminal(folder: pathlib.Path, *words: str) -> bytes:
    """Run the command with a terminal for its standard error, and give what was shown there."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "eventflows", *words],
        cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=follower,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while block := os.read(leader, 4096):
            shown += block
    os.close(leader)
    process.wait(timeout=30)
    return shown


def test_run_on_a_terminal_shows_a_live_line(folder: pathlib.Path) -> None:
    """Counts and rate, on a terminal."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n2\n")
    shown = on_a_terminal(folder, "run", "scorer:apply", "--until-idle", "0.5")
    assert re.search(rb"2 acked, 2 published, 0 retried, 0 dead-lettered, \d+ messages/s", shown), shown


def test_send_on_a_terminal_shows_a_live_line(folder: pathlib.Path) -> None:
    """Counts and rate, on a terminal."""
    (folder / "lines.txt").write_bytes(b"1\n" * 1000)
    shown = on_a_terminal(folder, "send", "local://in?file=flows.db", "lines.txt")
    assert re.search(rb"1,000 sent to local://in\?file=flows.db, [\d,]+ messages/s", shown), shown


def test_output_of_apply_goes_to_its_file_when_only_errors_are_a_terminal(folder: pathlib.Path) -> None:
    """The live line does not take what `apply` prints."""
    command(folder, "send", "local://in?file=flows.db", given=b"1\n")
    shown = on_a_terminal(folder, "run", "scorer:waits", "--until-idle", "0.5")
    assert (b"1 acked" in shown, b"working" in shown) == (True, False)


@pytest.mark.parametrize("name", ["run", "preview", "describe", "send", "tail"])
def test_help_teaches_with_an_example(folder: pathlib.Path, name: str) -> None:
    """Each command's help shows one that can be copied."""
    assert f"eventflows {name} " in command(folder, name, "--help").stdout.split("Example")[1]
