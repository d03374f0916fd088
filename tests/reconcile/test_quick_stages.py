"""Stages that nothing is judged in are passed as they are, and none of them twice."""

from typing import Any

import pytest

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import POD

from .controllers import NAMESPACE
from .judging import busy, let, numbers, serving
from .simulation import Simulation

ROUTE = {"route": {"parentRefs": [{"name": "gate"}]}}


def _asked(sim: Simulation, serves: str) -> list[int]:
    """From now on every number of pods that another revision's Deployment is given."""
    asked: list[int] = []

    def note(_: object = None) -> None:
        now = [count for revision, count in numbers(sim).items() if revision != serves]
        if now and asked[-1:] != now[:1]:
            asked.append(now[0])

    sim.cluster.after_call = note
    return asked


@pytest.mark.parametrize("expose", [{}, ROUTE])
@pytest.mark.parametrize(
    "steps",
    [
        [(10, 0), (50, 60)],
        [(20, 0), (40, 0), (60, 60)],
        [(10, 0), (50, 0)],
        [(10, 60), (50, 0)],
        [(10, 5), (20, 0), (50, 60)],
    ],
)
async def test_a_step_without_time_is_passed_once(
    steps: list[tuple[int, int]], expose: Json, sim: Simulation
) -> None:
    canary = {"steps": [{"weight": weight, "seconds": seconds} for weight, seconds in steps]}
    more: dict[str, Any] = {"expose": expose} if expose else {}
    good = await serving(sim, replicas=5, rollout={"strategy": "canary", "canary": canary}, **more)
    await busy(sim)
    asked = _asked(sim, good)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 400)
    assert asked == sorted(asked)
    assert numbers(sim) == {sim.service().status.revision: 5}
    assert sim.service().status.revision != good


async def test_pods_that_are_lost_undo_no_step(sim: Simulation) -> None:
    steps = [{"weight": 10, "seconds": 0}, {"weight": 50, "seconds": 600}]
    rollout = {"strategy": "canary", "canary": {"steps": steps}}
    good = await serving(sim, replicas=5, rollout=rollout)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 30)
    asked = _asked(sim, good)
    new = next(revision for revision in numbers(sim) if revision != good)
    sim.pods_start = False
    for pod in [name for name in sim.names("Pod") if f"-{new}-" in name]:
        sim.cluster.remove(POD, NAMESPACE, pod)
    await let(sim, 30)
    assert (asked, numbers(sim)[new]) == ([5], 5)
