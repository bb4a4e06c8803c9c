"""The catalogue's file under change: comments, crashes, several writers."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import random
import signal
import stat
import subprocess
import sys

import pytest

from eventflows.catalog import Grant, load
from eventflows.catalog_file import CatalogFile
from eventflows.errors import ConfigError

TEXT = """# ours
[connections.prod]   # the big one
kind = "kafka"
place = "one:9092"

# who
[[grants]]
algorithm = "owner/a"   # first
role = "subscriber"
place = "prod/x"
"""
GRANT = Grant(algorithm="owner/b", role="publisher", place="prod/y")
FIRST = Grant(algorithm="owner/a", role="subscriber", place="prod/x")


@pytest.fixture
def file(tmp_path: pathlib.Path) -> CatalogFile:
    """A file with comments."""
    (tmp_path / "eventflows.toml").write_text(TEXT)
    return CatalogFile(tmp_path / "eventflows.toml")


def test_comments_and_order_stay_when_something_is_added(file: CatalogFile) -> None:
    """What was there is there byte for byte."""
    file.add_grant(GRANT)
    file.put_connection("dev", {"kind": "local"})
    file.put_flow("f", {"algorithm": "m:f"})
    assert all(line in file.path.read_text().splitlines() for line in TEXT.splitlines())
    assert file.read().grants == (FIRST, GRANT)


def test_adding_and_removing_leaves_the_file_as_it_was(file: CatalogFile) -> None:
    """But for empty lines."""
    file.add_grant(GRANT)
    file.remove_grant(GRANT)
    file.put_connection("dev", {"kind": "local"})
    file.remove_connection("dev")
    assert [line for line in file.path.read_text().splitlines() if line] == [line for line in TEXT.splitlines() if line]


def test_last_grant_can_be_removed_and_another_added(file: CatalogFile) -> None:
    """The list may become empty."""
    file.remove_grant(FIRST)
    file.add_grant(GRANT)
    assert file.read().grants == (GRANT,)


def test_grant_is_written_once(file: CatalogFile) -> None:
    """The second time says so."""
    assert (file.add_grant(GRANT), file.add_grant(GRANT), len(file.read().grants)) == (True, False, 2)


def test_new_file_is_made_when_there_is_none(tmp_path: pathlib.Path) -> None:
    """Where the process runs, or where it is told."""
    file = CatalogFile(tmp_path / "eventflows.toml")
    file.put_connection("dev", {"kind": "local", "file": "flows.db"})
    assert file.read().connections["dev"].kind == "local"


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.put_connection("prod", {"kind": "kafka", "place": "x"}),
        lambda file: file.put_connection("new", {"kind": "kafka", "place": "x", "password": "hush"}),
        lambda file: file.put_connection("new", {"kind": "rabbit", "place": "x"}),
        lambda file: file.remove_connection("prod"),
        lambda file: file.remove_connection("other"),
        lambda file: file.remove_grant(GRANT),
        lambda file: file.add_grant(Grant(algorithm="owner/b", role="publisher", place="missing/y")),
        lambda file: file.put_flow("missing", {"enabled": False}, new=False),
        lambda file: file.put_flow("f", {"timeout": 3.0}),
    ],
)
def test_refused_change_leaves_the_file_untouched(file: CatalogFile, change: object) -> None:
    """Byte for byte, and says why without the secret."""
    with pytest.raises(ConfigError) as caught:
        change(file)  # type: ignore[operator]
    assert (file.path.read_text(), "hush" in str(caught.value)) == (TEXT, False)


def test_rights_of_the_file_stay(file: CatalogFile) -> None:
    """A file that only its owner reads stays so."""
    file.path.chmod(0o600)
    file.add_grant(GRANT)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_link_is_followed(file: CatalogFile, tmp_path: pathlib.Path) -> None:
    """It stays a link, and its target is changed."""
    (tmp_path / "link.toml").symlink_to(file.path)
    CatalogFile(tmp_path / "link.toml").add_grant(GRANT)
    assert ((tmp_path / "link.toml").is_symlink(), len(file.read().grants)) == (True, 2)


def write(path: str, writer: int, count: int) -> None:
    """Add grants, as one of several writers."""
    for number in range(count):
        CatalogFile(path).add_grant(Grant(algorithm=f"owner/w{writer}", role="subscriber", place=f"prod/t{number}"))


def test_no_edit_is_lost_when_eight_write_at_once(file: CatalogFile) -> None:
    """Each of them adds ten grants."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(str(file.path), writer, 10)) for writer in range(8)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert len(set(file.read().grants)) == 1 + 8 * 10


WRITER = """
import sys
from eventflows.catalog import Grant
from eventflows.catalog_file import CatalogFile
number = int(sys.argv[2])
while True:
    CatalogFile(sys.argv[1]).add_grant(Grant(algorithm="owner/w", role="subscriber", place=f"prod/t{number}"))
    print(number, flush=True)
    number += 1
"""


def test_file_is_whole_when_writers_are_killed(file: CatalogFile) -> None:
    """At random moments, and everything that was said to be written is there."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    luck, last = random.Random(seed), -1
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(file.path), str(last + 1)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(luck.randrange(1, 12)):
                last = int(writer.stdout.readline())
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split()
            last = max([last, *map(int, rest)])
    written = {grant.place for grant in file.read().grants}
    assert {f"prod/t{number}" for number in range(last + 1)} <= written
    assert load(file.path) is not None
