"""Pods of which only Events tell: what it costs to ask, and what is said of those fallen silent."""

from typing import Any

from reranker_operator.api.meta import POD

from .controllers import NAMESPACE
from .simulation import Simulation
from .symptoms import creating, gateway_up, placed, triton_up, verified


def _reads(sim: Simulation) -> int:
    found = sum((call.verb, call.kind) == ("list", "Event") for call in sim.cluster.calls)
    sim.cluster.calls.clear()
    return found


async def test_few_events_are_read_of_many_stuck_pods(sim: Simulation) -> None:
    sim.told["serving"] = placed(init=creating("verify", "triton"), main=creating("gateway"))
    # Else the deadline of the rollout would have it looked at as well.
    sim.create_service(replicas=8, rollout={"progressDeadlineSeconds": 86400})
    await sim.settle()
    assert _reads(sim) == 0
    for pause in (20, 20, 40, 80, 160, 320, 600, 600):
        assert sim.next_wake == pause
        await sim.advance(pause)
        assert _reads(sim) == 3
    assert sim.condition("Serving") == ("False", "Starting")


async def test_pods_that_fall_silent_are_told_at_once_and_cost_nothing(sim: Simulation) -> None:
    sim.create_service(replicas=2)
    await sim.converge()
    _reads(sim)
    unready: Any = {"phase": "Running", "since": "2026-01-05T12:05:00Z"}
    silent = placed(init=[verified(), triton_up()], main=[gateway_up()], **unready)
    (first, second) = sim.cluster.select(POD, NAMESPACE, {"reranker.dev/service": "rank"})
    sim.told["serving"] = silent
    await sim.settle()
    assert sim.condition("Serving") == ("False", "NotAnswering")
    assert sim.condition("Ready") == ("False", "NotAnswering")
    assert min(first["metadata"]["name"], second["metadata"]["name"]) in sim.message("Ready")
    assert sim.next_wake is None
    await sim.resync()
    await sim.advance(3600)
    assert _reads(sim) == 0
    assert sim.condition("Serving") == ("False", "NotAnswering")
    sim.told["serving"] = placed(
        init=[verified(), triton_up()],
        main=[gateway_up() | {"ready": True}],
        **unready | {"ready": "True"},
    )
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
