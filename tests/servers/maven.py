"""Java programs from Maven Central, by the Maven that is installed and its own settings."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess

from servers.process import needs

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>eventflows.tests</groupId><artifactId>{name}</artifactId><version>1</version>
  <dependencies>{dependencies}</dependencies>
</project>
"""
_DEPENDENCY = "<dependency><groupId>{0}</groupId><artifactId>{1}</artifactId><version>{2}</version></dependency>"


def jars(*coordinates: str) -> pathlib.Path:
    """Give a folder with the jars of `group:artifact:version` and all that they need; fetched once for each user."""
    needs("java", "the server of this test runs on it")
    name = hashlib.sha256(" ".join(coordinates).encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or str(pathlib.Path.home() / ".cache")
    folder = pathlib.Path(home) / "eventflows-tests" / name
    if (folder / "complete").exists():
        return folder
    maven = needs("mvn", f"it fetches {', '.join(coordinates)}")
    folder.mkdir(parents=True, exist_ok=True)
    dependencies = "".join(_DEPENDENCY.format(*one.split(":")) for one in coordinates)
    (folder / "pom.xml").write_text(_POM.format(name=name, dependencies=dependencies))
    subprocess.run(
        [
            maven, "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime",
            f"-DoutputDirectory={folder}",
        ],
        cwd=folder, check=True, timeout=600, capture_output=True,
    )  # fmt: skip
    (folder / "complete").touch()
    return folder
