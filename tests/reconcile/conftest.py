"""A world for each test."""

from collections.abc import Callable

import pytest

from .simulation import Simulation


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
