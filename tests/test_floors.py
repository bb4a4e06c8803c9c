"""Imports go one way: a module knows only the floors below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventflows

# From the ground up; the modules of a package share its floor.
FLOORS = (
    "errors",
    "secret",
    "message",
    "policy",
    "_codec_parts",
    "_codec_load",
    "_codec_structure",
    "_codec_plain",
    "codec",
    "_http",
    "catalog",
    "catalog_file",
    "hosted",
    "protocols",
    "observe",
    "adapters",
    "locate",
    "runner",
    "signature",
    "binding",
    "granted",
    "shown",
    "outlet",
    "flow",
    "decorators",
    "listing",
    "_listeners_rows",
    "_listeners_wire",
    "listeners",
    "redrive",
    "cli",
    "testing",
)
TOP = ("eventflows", "eventflows.__main__")
PACKAGES = {"observe", "adapters", "runner", "cli", "testing"}
# Modules that subclass a vendor's classes, so cannot be read without its SDK; only functions import them.
WITH_SDK = {"eventflows.adapters._kafka_python"} | {
    f"eventflows.adapters._kafka_python_{name}"
    for name in ("batches", "client", "consumer", "gone", "member", "producer", "reader", "records", "transactions")
}
WITH_SDK |= {"eventflows.adapters._kafka_rd"} | {
    f"eventflows.adapters._kafka_rd_{name}"
    for name in ("admin", "client", "consumer", "ids", "member", "producer", "reader", "transactions")
}
VENDORS = {"kafka", "confluent_kafka", "boto3", "botocore", "azure"}

ROOT = Path(eventflows.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def name_of(path: Path) -> str:
    """The module that a file of the package holds."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(module: str) -> int:
    """How far above the ground a module is.

    Raises:
        ValueError: It has no place in `FLOORS`.
    """
    return len(FLOORS) if module in TOP else FLOORS.index(module.split(".")[1])


def targets(node: ast.Import | ast.ImportFrom, module: str, *, package: bool) -> Iterator[str]:
    """The absolute names of the modules that one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        parts = parts[: len(parts) - node.level + package]
        base = ".".join([*parts, base] if base else parts)
    for alias in node.names:
        # A package hands out its modules; anything else it hands out is its own.
        is_module = base == "eventflows.adapters" or (base == "eventflows" and alias.name in FLOORS)
        yield f"{base}.{alias.name}" if is_module else base


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are not inside a function, and not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from at_import(child)


def same_adapter(one: str, other: str) -> bool:
    """Whether two modules are parts of one adapter, as `local` and `_local_store` are."""
    public, private = sorted((one, other), key=lambda name: name.startswith("_"))
    return private == f"_{public}" or private.startswith(f"_{public}_")


def complaint(module: str, target: str) -> str | None:
    """What is wrong with `module` importing `target`, both of this package."""
    here, there = module.split(".")[1:], target.split(".")[1:]
    if there[:1] == ["adapters"] and here[:1] != ["adapters"] and here[:1] != ["testing"]:
        return f"{module} imports {target}: only eventflows.testing may know an adapter"
    if here and there and here[0] == there[0] and here[0] in PACKAGES:
        if here[0] == "adapters" and len(here) > 1 and len(there) > 1:
            mine, theirs = here[1], there[1]
            if mine != theirs and not theirs.startswith("_") and not same_adapter(mine, theirs):
                return f"{module} imports {target}: adapters do not know each other"
        return None
    if there and there[0] not in FLOORS and target not in TOP:
        return f"{module} imports {target}, which has no floor"
    if floor_of(target) >= floor_of(module):
        return f"{module} imports {target}, which is not below it"
    return None


def complaints(source: str, module: str, *, package: bool = False) -> list[str]:
    """What is wrong with the imports of a module, one line each."""
    tree = ast.parse(source)
    found = [
        complaint(module, target)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in targets(node, module, package=package)
        if target.split(".")[0] == "eventflows"
    ]
    found += [
        f"{module} imports {target} at its top level: a vendor's SDK is imported where it is used"
        for node in at_import(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in targets(node, module, package=package)
        if (target.split(".")[0] in VENDORS or target in WITH_SDK) and module not in WITH_SDK
    ]
    return [line for line in found if line]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_module_stands_on_a_named_floor(path: Path) -> None:
    """Every module has its place in the list of floors."""
    module = name_of(path)

    assert module in TOP or module.split(".")[1] in FLOORS


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_module_imports_only_from_below(path: Path) -> None:
    """No module imports from its own height or above, an adapter it must not know, or an SDK at its top level."""
    source = path.read_text(encoding="utf-8")

    assert complaints(source, name_of(path), package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eventflows.errors", "from eventflows.secret import Secret"),
        ("eventflows.policy", "import eventflows.codec"),
        ("eventflows.message", "from eventflows import policy"),
        ("eventflows.message", "from .policy import Verdict"),
        ("eventflows.message", "from . import policy"),
        ("eventflows.codec", "import eventflows"),
        ("eventflows.cli.send", "from eventflows import send"),
        ("eventflows.observe.logging", "from ..runner.held import Held"),
        ("eventflows.runner.pump", "from eventflows.flow import Flow"),
        ("eventflows.runner", "from eventflows.flow import Flow"),
        ("eventflows.flow", "import eventflows.__main__"),
    ],
)
def test_check_complains_when_a_module_imports_from_above(module: str, source: str) -> None:
    """An import upwards is found however it is written."""
    assert len(complaints(source, module, package=module == "eventflows.runner")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n    from eventflows.flow import Flow",
        "def later():\n    from eventflows.flow import Flow",
        "try:\n    import eventflows.flow\nexcept ImportError:\n    pass",
        "class Holder:\n    from eventflows.flow import Flow",
    ],
)
def test_check_complains_when_an_import_is_hidden(source: str) -> None:
    """An import upwards counts inside a function, a class, a `try` and a type-checking block."""
    assert complaints(source, "eventflows.runner.pump") == [
        "eventflows.runner.pump imports eventflows.flow, which is not below it"
    ]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eventflows.locate", "from eventflows.adapters.local import Publisher"),
        ("eventflows.locate", "from eventflows.adapters import local"),
        ("eventflows.runner.pump", "from eventflows.adapters import _split"),
        ("eventflows.flow", "import eventflows.adapters"),
        ("eventflows.cli", "from ..adapters.kafka import spec"),
        ("eventflows", "from eventflows.adapters import local"),
    ],
)
def test_check_complains_when_anybody_but_testing_knows_an_adapter(module: str, source: str) -> None:
    """An adapter is reached by its URL, never by an import."""
    package = module in {"eventflows", "eventflows.cli"}

    assert [line.rpartition(": ")[2] for line in complaints(source, module, package=package)] == [
        "only eventflows.testing may know an adapter"
    ]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eventflows.adapters.kafka", "from eventflows.adapters.local import local_broker"),
        ("eventflows.adapters.kafka", "from eventflows.adapters import local"),
        ("eventflows.adapters.kafka", "from .local import local_broker"),
        ("eventflows.adapters.kafka", "from . import local"),
        ("eventflows.adapters._split", "from eventflows.adapters.kafka import spec"),
    ],
)
def test_check_complains_when_adapters_know_each_other(module: str, source: str) -> None:
    """An adapter does not import another one, and what they share imports none."""
    assert [line.rpartition(": ")[2] for line in complaints(source, module)] == ["adapters do not know each other"]


@pytest.mark.parametrize("vendor", sorted(VENDORS))
@pytest.mark.parametrize("template", ["import {}", "from {}.part import name", "if CONDITION:\n    import {}.part"])
def test_check_complains_when_an_sdk_is_imported_at_top_level(vendor: str, template: str) -> None:
    """Importing a module of ours never imports a vendor's SDK."""
    assert len(complaints(template.format(vendor), "eventflows.adapters.kafka")) == 1


def test_check_complains_when_the_imported_module_has_no_floor() -> None:
    """A module that nobody has given a place cannot be imported."""
    assert complaints("import eventflows.nowhere", "eventflows.flow") == [
        "eventflows.flow imports eventflows.nowhere, which has no floor"
    ]


def test_check_complains_of_each_import_when_several_are_wrong() -> None:
    """Every wrong import has a line of its own."""
    source = "import boto3\nfrom eventflows import flow, errors, cli\n"

    assert len(complaints(source, "eventflows.adapters.sqs")) == 3


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("eventflows.policy", "from eventflows.message import Chunk\nfrom . import errors\nimport json"),
        ("eventflows.runner.pump", "from eventflows.runner.held import Held\nfrom .held import Span"),
        ("eventflows.adapters.local", "from eventflows.adapters._local_store import Store"),
        ("eventflows.adapters._local_store", "from eventflows.adapters.local import Broker"),
        ("eventflows.adapters.kafka", "from eventflows.adapters import _watermark"),
        ("eventflows.adapters.kafka", "def connect():\n    import kafka\n    from azure.identity import Credential"),
        ("eventflows.testing.harness", "from eventflows.adapters.local import local_broker"),
        ("eventflows.__main__", "from eventflows.cli import main"),
    ],
)
def test_check_is_silent_when_imports_go_down(module: str, source: str) -> None:
    """What the design allows is let through."""
    assert complaints(source, module) == []
