"""Steps of the stories in which a new revision is judged beside the former one."""

import datetime
from typing import Any

from reranker_operator import names
from reranker_operator.api.meta import DEPLOYMENT, SERVICE
from reranker_operator.api.rollout import FailedRevision

from .controllers import NAMESPACE
from .simulation import Simulation
from .traffic import Traffic


async def serving(sim: Simulation, **spec: Any) -> str:
    """A service of this spec that serves, and whose routes are accepted; its revision."""
    sim.gateway_says = "True"
    sim.create_service(**spec)
    await sim.converge()
    assert sim.condition("Serving") == ("True", "Available")
    return str(sim.service().status.revision)


async def busy(sim: Simulation, seconds: float = 60) -> Traffic:
    """Traffic that has gone on for a while."""
    traffic = sim.send(20)
    await let(sim, seconds)
    return traffic


async def let(sim: Simulation, seconds: float) -> None:
    """Time goes on, from one of the operator's own deadlines to the next."""
    await sim.settle()
    end = sim.now + datetime.timedelta(seconds=seconds)
    while (left := (end - sim.now).total_seconds()) > 0:
        wake = sim.next_wake
        await sim.advance(left if wake is None else min(left, max(wake, 0.1)))


async def until_given_up(sim: Simulation) -> tuple[FailedRevision, float]:
    """The failure, and how long after it was begun."""
    begun = sim.now
    await sim.settle()
    while not sim.service().status.failed:
        assert (sim.now - begun).total_seconds() < 900, sim.service().status.rollout
        await let(sim, 5)
    return sim.service().status.failed[0], (sim.now - begun).total_seconds()


def address(sim: Simulation, name: str = "rank") -> str | None:
    """The revision that an address leads to alone."""
    address = sim.cluster.find(SERVICE, NAMESPACE, name)
    assert address is not None
    found: str | None = address["spec"]["selector"].get(names.REVISION_LABEL)
    return found


def numbers(sim: Simulation) -> dict[str, int]:
    """Pods asked for, by revision."""
    return {
        entry["metadata"]["labels"][names.REVISION_LABEL]: entry["spec"]["replicas"]
        for entry in sim.cluster.select(DEPLOYMENT, NAMESPACE)
    }


def none() -> Any:
    """In place of a status that must be there."""
    raise AssertionError("nothing is under way")
