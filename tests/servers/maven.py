"""Programs from Maven repositories, fetched with the user's own `mvn` and kept outside the repository."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

FETCH_TIMEOUT = 900.0  # seconds; the first run downloads some 50 MB
_COMPLETE = ".complete"


def missing(tool: str, why: str) -> None:
    """Skip the test for want of a tool, or fail it where `CI=true`.

    Args:
        tool: The command that is not on the path.
        why: What the tests need it for, to be read after "needs <tool> ".
    """
    text = f"needs {tool!r} {why}, and it is not on the path"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI {text}", pytrace=False)
    pytest.skip(text)


def cache_folder(name: str) -> Path:
    """Give a folder of the user's cache, outside the repository, made where it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(base) / "eventflows-tests" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a lock between processes while the body of the `with` runs."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def jars(*coordinates: str) -> list[Path]:
    """Give the jars of some artifacts and of everything they need at run time, in a fixed order.

    They are fetched once, by whatever repositories the user's Maven is set up for.

    Args:
        coordinates: Each as `group:artifact:version`.
    """
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            missing(tool, "for a real broker")
    digest = hashlib.sha256("\n".join(coordinates).encode()).hexdigest()[:12]
    folder = cache_folder(f"{coordinates[0].split(':')[1]}-{digest}")
    with only_one(folder / ".lock"):
        if not (folder / _COMPLETE).exists():
            _fetch(folder, coordinates)
            (folder / _COMPLETE).touch()
    return sorted(folder.glob("*.jar"))


def _fetch(folder: Path, coordinates: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="eventflows-maven-") as project:
        pom = Path(project) / "pom.xml"
        pom.write_text(_pom(coordinates))
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=FETCH_TIMEOUT, check=False)
    if done.returncode != 0:
        pytest.fail(
            f"mvn could not fetch {', '.join(coordinates)}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}", pytrace=False
        )


def _pom(coordinates: Sequence[str]) -> str:
    dependencies = []
    for coordinate in coordinates:
        group, artifact, version = map(escape, coordinate.split(":"))
        dependencies.append(
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>tests</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>"
        f"<dependencies>{''.join(dependencies)}</dependencies></project>"
    )
