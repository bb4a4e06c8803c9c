"""The scenarios as a suite: what they come to on a real broker is what they come to in the simulation of it."""

from __future__ import annotations

from typing import ClassVar, Final

import pytest

from eventflows.testing.cases import Cases
from eventflows.testing.faults import LeasesEnd, PublishFails
from eventflows.testing.scenario import FAULTY_SCENARIOS, SCENARIOS, Scenario
from eventflows.testing.simulation import Played

ALL: Final = (*SCENARIOS, *FAULTY_SCENARIOS)


class ScenarioConformance(Cases):
    """Subclass it, name the harness and the broker that the simulation plays, and pytest does the rest."""

    played: ClassVar[Played]
    """What the simulation plays."""
    played_source: ClassVar[str] = "local://in"
    """Its URL there; a name that ends in `.fifo` is a FIFO queue."""

    @pytest.mark.parametrize("scenario", ALL, ids=[one.name.replace(" ", "-") for one in ALL])
    def test_scenario_comes_to_the_same_as_in_the_simulation(self, scenario: Scenario) -> None:
        """Processed, given up, published, halted: each is the same."""
        needed = {LeasesEnd: "expire_leases", PublishFails: "fail_message"}
        for name in [needed[type(fault)] for fault in scenario.faults if type(fault) in needed]:
            if getattr(self.broker.faults(self.topic), name, None) is None:
                pytest.skip(f"{self.broker.name} cannot be made to {name.replace('_', ' ')} by its harness")
        real = scenario.run_on(self.broker)
        assert real.outcome == scenario.simulate(self.played, source=self.played_source).outcome
