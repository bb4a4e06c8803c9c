"""The embedded broker sits the adapter suite and the runner suite, in memory and in a file."""

from __future__ import annotations

from eventflows.testing import AdapterConformance, RunnerConformance
from local_harness import LocalFileHarness, LocalHarness


class TestLocalMemory(AdapterConformance):
    """In memory."""

    harness = LocalHarness


class TestLocalFile(AdapterConformance):
    """In one SQLite file."""

    harness = LocalFileHarness


class TestRunnerOnLocalMemory(RunnerConformance):
    """The runner, over memory."""

    harness = LocalHarness


class TestRunnerOnLocalFile(RunnerConformance):
    """The runner, over a SQLite file."""

    harness = LocalFileHarness
