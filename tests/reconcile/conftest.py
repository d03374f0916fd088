"""A world for each test."""

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

from .simulation import Simulation

#: Stories are slow, and most of them are odd: that is their point.
for _name, _examples in (("suite", 500), ("nightly", 10_000), ("quick", 25)):
    settings.register_profile(
        _name, max_examples=_examples, deadline=None, suppress_health_check=list(HealthCheck)
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


@pytest.fixture
def sim() -> Simulation:
    return Simulation()


@pytest.fixture
def traffic_is_served() -> Callable[[Simulation], None]:
    """From now on the address leads to a ready pod, after every single call and step."""

    def watch(sim: Simulation) -> None:
        def check(_: object = None) -> None:
            target = sim.selected()
            assert target is not None, "the address leads nowhere"
            assert target["status"]["readyReplicas"] > 0, "the address leads to no ready pod"

        sim.cluster.after_call = sim.after_step = check

    return watch
