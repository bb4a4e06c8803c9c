"""Simulations of flows, and conformance suites: prove that a flow, an adapter or a runner does what it should.

`simulate(flow, messages, emulate="kafka")` runs a flow in milliseconds; in pytest it is a fixture, too.

For an adapter, subclass `Harness` for the broker, `AdapterConformance` for the exam, and let pytest collect it:

```python
class MyHarness(Harness):
    name = "mybroker"

    def source_url(self, name: str) -> str:
        return f"mybroker://localhost/{name}"

class TestMyBroker(AdapterConformance):
    harness = MyHarness
```
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventflows.testing.adapter import AdapterConformance as AdapterConformance
    from eventflows.testing.cases import Taken as Taken
    from eventflows.testing.conditions import Background as Background
    from eventflows.testing.conditions import wait_until as wait_until
    from eventflows.testing.driver import Outcome as Outcome
    from eventflows.testing.driver import sit as sit
    from eventflows.testing.faults import ApplyRaises as ApplyRaises
    from eventflows.testing.faults import LeasesEnd as LeasesEnd
    from eventflows.testing.faults import PublishFails as PublishFails
    from eventflows.testing.faults import Rebalance as Rebalance
    from eventflows.testing.faults import Restart as Restart
    from eventflows.testing.harness import Faults as Faults
    from eventflows.testing.harness import Harness as Harness
    from eventflows.testing.platform import playing_platform as playing_platform
    from eventflows.testing.report import Report as Report
    from eventflows.testing.runner import RunnerConformance as RunnerConformance
    from eventflows.testing.scenario import FAULTY_SCENARIOS as FAULTY_SCENARIOS
    from eventflows.testing.scenario import SCENARIOS as SCENARIOS
    from eventflows.testing.scenario import Scenario as Scenario
    from eventflows.testing.scenario_suite import ScenarioConformance as ScenarioConformance
    from eventflows.testing.simulation import simulate as simulate
    from eventflows.testing.world import SimulationError as SimulationError

_HOMES = {
    "SCENARIOS": "scenario",
    "AdapterConformance": "adapter",
    "ApplyRaises": "faults",
    "Background": "conditions",
    "FAULTY_SCENARIOS": "scenario",
    "Faults": "harness",
    "Harness": "harness",
    "LeasesEnd": "faults",
    "Outcome": "driver",
    "PublishFails": "faults",
    "Rebalance": "faults",
    "Report": "report",
    "Restart": "faults",
    "RunnerConformance": "runner",
    "Scenario": "scenario",
    "ScenarioConformance": "scenario_suite",
    "SimulationError": "world",
    "Taken": "cases",
    "playing_platform": "platform",
    "simulate": "simulation",
    "sit": "driver",
    "wait_until": "conditions",
}

if "pytest" in sys.modules:  # so that a failed assertion shows its values, as in the user's own tests
    sys.modules["pytest"].register_assert_rewrite(
        *(name for _, name, _ in pkgutil.iter_modules(__path__, f"{__name__}.") if name not in sys.modules)
    )

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    """Import a public name where it is first used: the suites need pytest, the package does not."""
    if name not in _HOMES:
        raise AttributeError(f"module 'eventflows.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"eventflows.testing.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return list(__all__)
