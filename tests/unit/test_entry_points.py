"""An adapter of another package is found by its entry point, as an installed one is."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import textwrap

import pytest

ADAPTER = """
    from eventflows.protocols import AdapterSpec, Capabilities

    ADAPTER = AdapterSpec(
        scheme="parrot",
        form="parrot://place",
        capabilities=lambda location, values: Capabilities(settle="message", redeliver=False),
        validate=lambda location, values, side: None,
        subscriber=lambda location, values: ("subscriber", location.authority),
        publisher=lambda location, values: ("publisher", location.authority),
    )
"""


def install(folder: pathlib.Path, source: str, *, name: str = "ADAPTER") -> None:
    """Lay a package out as an installer does: its module, and what it registers."""
    (folder / "parrot_adapter.py").write_text(textwrap.dedent(source), encoding="utf-8")
    about = folder / "parrot-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(
        f"[eventflows.adapters]\nparrot = parrot_adapter:{name}\n", encoding="utf-8"
    )


def run(folder: pathlib.Path, code: str) -> str:
    """Run a script that has the folder among its packages, and give what it printed."""
    script = f"import sys; sys.path.append({str(folder)!r}); import eventflows, eventflows.locate as locate\n{code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ASKED = """
try:
    eventflows.subscriber("parrot://tree")(lambda input: None)
except eventflows.ConfigError as error:
    print(error)
"""


def test_adapter_is_found_by_its_scheme_when_a_package_registers_it(tmp_path: pathlib.Path) -> None:
    """A URL with the scheme reaches the package's adapter."""
    install(tmp_path, ADAPTER)
    assert run(tmp_path, "print(eventflows.open_subscriber('parrot://tree'))") == "('subscriber', 'tree')"


def test_scheme_is_listed_when_a_package_registers_it(tmp_path: pathlib.Path) -> None:
    """Who asks which schemes there are is told of it."""
    install(tmp_path, ADAPTER)
    assert "parrot" in run(tmp_path, "print(*locate.schemes())").split()


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("raise ValueError('hunter2')", "ADAPTER", "ValueError"),
        ("import no_such_client", "ADAPTER", "no_such_client"),
        (ADAPTER, "ADAPTOR", "AttributeError"),
        ("ADAPTER = 3", "ADAPTER", "a int, not an AdapterSpec"),
    ],
    ids=["raises", "needs a module", "names nothing", "is no adapter"],
)
def test_broken_adapter_is_a_clear_error_when_its_scheme_is_used(
    tmp_path: pathlib.Path, source: str, name: str, reason: str
) -> None:
    """The error names the scheme and what is wrong with the package behind it."""
    install(tmp_path, source, name=name)
    said = run(tmp_path, ASKED)
    assert ("parrot://" in said, reason in said, "hunter2" in said) == (True, True, False), said


def test_broken_adapter_harms_nobody_else_when_another_scheme_is_used(tmp_path: pathlib.Path) -> None:
    """A package that cannot be imported is not imported for another's URL."""
    install(tmp_path, "raise ValueError")
    assert run(tmp_path, "print(eventflows.subscriber('local://tree')(abs).source)") == "local://tree"
