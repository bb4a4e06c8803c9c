"""The pytest plugin: installed with eventflows, it gives every test the fixture `simulate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from eventflows.testing.report import Report


@pytest.fixture
def simulate() -> Callable[..., Report]:
    """Run a flow in milliseconds on a broker that plays the real one: `eventflows.testing.simulate`."""
    from eventflows.testing.simulation import simulate

    return simulate
