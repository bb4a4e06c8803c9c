"""Many processes and threads on one file: nothing confirmed is lost, whoever is killed, forked or first."""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

import eventflows
from eventflows import Message
from eventflows.adapters.local import LocalSubscriber
from eventflows.policy import Settlement, Verdict
from eventflows.protocols import Browsable

POISON = 7
"""Every message whose number this divides is a dead letter."""

WORKER = """
import sys
import eventflows
from eventflows.policy import Settlement, Verdict

idle = 0
with eventflows.open_subscriber("local://in?file=flows.db") as source, \\
        eventflows.open_publisher("local://out?file=flows.db") as target:
    print("ready", flush=True)
    while idle < {idle}:
        chunks = source.receive(37, max_bytes=10**6, timeout=0.3)
        idle = 0 if chunks else idle + 1
        for chunk in chunks:
            for index, delivery in enumerate(chunk):
                spans = [(chunk, slice(index, index + 1))]
                if int(delivery.message.body) % {poison} == 0:
                    source.settle([Settlement(verdict=Verdict.DEAD_LETTER, spans=spans, reason="poison")])
                else:
                    target.publish([delivery.message])
                    source.settle([Settlement(verdict=Verdict.ACK, spans=spans)])
"""

SHARER = """
import sys
import eventflows
from eventflows.policy import Settlement, Verdict

done, idle = 0, 0
with eventflows.open_subscriber("local://in?file=flows.db") as source:
    print("ready", flush=True)
    sys.stdin.readline()
    while idle < 2:
        chunks = source.receive(20, max_bytes=10**6, timeout=0.5)
        idle = 0 if chunks else idle + 1
        for chunk in chunks:
            for body in chunk.bodies:
                sum(range(20_000))
                done += 1
        source.settle([Settlement(verdict=Verdict.ACK, spans=[(c, slice(0, len(c))) for c in chunks])])
print(done)
"""

FORKER = """
import os
import eventflows
from eventflows import Message

publisher = eventflows.open_publisher("local://in?file=flows.db")
publisher.publish([Message(b"parent before")])
child = os.fork()
if child == 0:
    results = publisher.publish([Message(b"child")])
    os._exit(0 if results[0].error is None else 1)
{order}
"""
PARENT_STAYS = """
_, status = os.waitpid(child, 0)
publisher.publish([Message(b"parent after")])
raise SystemExit(status)
"""
PARENT_GOES = """
publisher.publish([Message(b"parent after")])
"""

FORKED_HOLDER = """
import os
import eventflows
from eventflows.policy import Settlement, Verdict

source = eventflows.open_subscriber("local://in?file=flows.db")
chunks = source.receive(10, max_bytes=10**6, timeout=5)
verdict = [Settlement(verdict=Verdict.ACK, spans=[(chunk, slice(0, len(chunk))) for chunk in chunks])]
child = os.fork()
if child == 0:
    os._exit(len(source.settle(verdict)))
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), len(source.settle(verdict)))
"""

CREATOR = """
import sys
import eventflows
from eventflows import Message
publisher = eventflows.open_publisher("local://in?file=flows.db")
print("ready", flush=True)
sys.stdin.readline()
publisher.publish([Message(sys.argv[1].encode())])
"""

TWO_TOPICS = """
import sys
import eventflows
from eventflows import Message
first = eventflows.open_publisher("local://in?file=flows.db")
first.publish([Message(b"before")])
eventflows.open_publisher("local://other?file=flows.db").publish([Message(b"x")])
print("ready", flush=True)
sys.stdin.readline()
first.publish([Message(b"after")])
print("published", flush=True)
sys.stdin.readline()
"""


def start(code: str, folder: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that runs some code in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    """Wait for a line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: subprocess.Popen[str]) -> None:
    """Let a process that waits for a line go on."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process that is to end well; give what it printed."""
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


def waiting(url: str) -> list[bytes]:
    """Look at everything that waits."""
    source = eventflows.open_subscriber(url)
    assert isinstance(source, Browsable)
    return sorted(delivery.message.body or b"" for delivery in source.peek(1_000_000, timeout=30))


def waiting_elsewhere(folder: pathlib.Path) -> list[str]:
    """Look at everything that waits, as a process that has just begun sees it."""
    code = (
        "import eventflows\n"
        "for d in eventflows.open_subscriber('local://in?file=flows.db').peek(1_000_000, timeout=30):\n"
        "    print(d.message.body.decode())"
    )
    return sorted(finish(start(code, folder)).splitlines())


@pytest.mark.trial
@pytest.mark.timeout(300)
def test_nothing_is_lost_when_processes_are_killed_30_times(tmp_path: pathlib.Path) -> None:
    """30 kills at random moments: all is processed or a dead letter, and no kill costs more than an attempt."""
    seed, count, kills = random.randrange(2**32), 2_000, 30
    print(f"seed {seed}")
    luck = random.Random(seed)
    with eventflows.open_publisher(f"local://in?file={tmp_path}/flows.db") as publisher:
        publisher.publish([Message(b"%d" % n) for n in range(count)])
    for _ in range(kills):
        worker = start(WORKER.format(poison=POISON, idle=10**6), tmp_path)
        assert line(worker) == "ready"
        until = time.monotonic() + luck.uniform(0, 0.1)
        while time.monotonic() < until:
            pass
        worker.send_signal(signal.SIGKILL)
        worker.communicate(timeout=30)
    source = eventflows.open_subscriber(f"local://in?file={tmp_path}/flows.db")
    assert isinstance(source, LocalSubscriber)
    with source:
        chunks = source.receive(count, max_bytes=10**9, timeout=5)
        highest = max((delivery.attempt for chunk in chunks for delivery in chunk), default=1)
        source.settle([Settlement(verdict=Verdict.RELEASE, spans=[(c, slice(0, len(c))) for c in chunks])])
    finish(start(WORKER.format(poison=POISON, idle=2), tmp_path))
    processed = {int(body) for body in waiting(f"local://out?file={tmp_path}/flows.db")}
    dead = [int(body) for body in waiting(f"local://in?file={tmp_path}/flows.db&dead-letter")]
    assert processed == {n for n in range(count) if n % POISON}
    assert sorted(dead) == [n for n in range(count) if n % POISON == 0]
    assert highest <= kills + 1


@pytest.mark.timeout(200)
def test_competing_processes_get_fair_shares_when_work_is_short(tmp_path: pathlib.Path) -> None:
    """Four processes on one file each get at least half of an even share, and all of it is done."""
    count, processes = 8_000, 4
    with eventflows.open_publisher(f"local://in?file={tmp_path}/flows.db") as publisher:
        publisher.publish([Message(b"%d" % n) for n in range(count)])
    running = [start(SHARER, tmp_path) for _ in range(processes)]
    assert [line(process) for process in running] == ["ready"] * processes
    for process in running:
        tell(process)
    shares = [int(finish(process)) for process in running]
    print(f"shares {shares}")
    assert sum(shares) == count
    assert min(shares) >= count / processes / 2


@pytest.mark.parametrize("order", [PARENT_STAYS, PARENT_GOES], ids=["parent_stays", "parent_goes"])
def test_everything_arrives_when_a_forked_child_uses_its_parents_publisher(tmp_path: pathlib.Path, order: str) -> None:
    """Whichever of the two ends first."""
    finish(start(FORKER.format(order=order), tmp_path))
    assert waiting_elsewhere(tmp_path) == ["child", "parent after", "parent before"]


def test_forked_child_settles_nothing_when_its_parent_holds_the_message(tmp_path: pathlib.Path) -> None:
    """What a parent holds is the parent's: the child's word is a lost lease, the parent's counts."""
    with eventflows.open_publisher(f"local://in?file={tmp_path}/flows.db") as publisher:
        publisher.publish([Message(b"x")])
    assert finish(start(FORKED_HOLDER, tmp_path)).split() == ["1", "0"]


def test_everything_arrives_when_threads_share_a_publisher(tmp_path: pathlib.Path) -> None:
    """Eight threads, one publisher: each batch is there once."""
    url, threads, batches = f"local://in?file={tmp_path}/flows.db", 8, 25
    with eventflows.open_publisher(url) as publisher:

        def publish(thread: int) -> None:
            for batch in range(batches):
                publisher.publish([Message(b"%d-%d-%d" % (thread, batch, n)) for n in range(4)])

        running = [threading.Thread(target=publish, args=(number,)) for number in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(60)
    expected = [b"%d-%d-%d" % (t, b, n) for t in range(threads) for b in range(batches) for n in range(4)]
    assert waiting(url) == sorted(expected)


def test_everything_arrives_when_processes_create_the_file_at_once(tmp_path: pathlib.Path) -> None:
    """Four at the same moment: one file, four messages."""
    running = [start(CREATOR, tmp_path, str(number)) for number in range(4)]
    assert [line(process) for process in running] == ["ready"] * 4
    for process in running:
        tell(process)
    for process in running:
        finish(process)
    assert waiting(f"local://in?file={tmp_path}/flows.db") == [b"0", b"1", b"2", b"3"]


def test_everything_arrives_when_another_process_comes_and_goes(tmp_path: pathlib.Path) -> None:
    """A process that ends leaves the log to one that has two topics open."""
    stays = start(TWO_TOPICS, tmp_path)
    assert line(stays) == "ready"
    assert waiting_elsewhere(tmp_path) == ["before"]
    tell(stays)
    assert line(stays) == "published"
    found = waiting_elsewhere(tmp_path)
    tell(stays)
    finish(stays)
    assert found == ["after", "before"]


def test_owner_leaves_nothing_behind_when_it_was_killed(tmp_path: pathlib.Path) -> None:
    """The next owner removes the file that marked the dead one."""
    url = f"local://in?file={tmp_path}/flows.db"
    eventflows.send(url, 1)
    holder = start(
        "import eventflows, sys\n"
        "source = eventflows.open_subscriber('local://in?file=flows.db')\n"
        "source.receive(10, max_bytes=10**6, timeout=5)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()",
        tmp_path,
    )
    assert line(holder) == "ready"
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=30)
    with eventflows.open_subscriber(url) as source:
        source.receive(10, max_bytes=10**6, timeout=5)
        left = list(pathlib.Path(f"{tmp_path}/flows.db.owners").iterdir())
    assert len(left) == 1
