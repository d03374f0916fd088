"""A service that an autoscaler outside scales to 0: who holds its requests, and who wakes it."""

import pytest

from reranker_operator.api.meta import DEPLOYMENT
from reranker_operator.core.external import Outside, serving
from reranker_operator.core.signals import signals

from .controllers import NAMESPACE
from .simulation import Simulation
from .test_sleeping import asked, leads_to, run, until, watch

ACTIVATOR = "rank-activator"


async def at_work(sim: Simulation, *, owned: bool = False) -> None:
    """`owned`: a manifest had the number once, so that it is recorded who sets it."""
    if owned:
        sim.apply_service(replicas=1, holdAtZero=True)
    else:
        sim.create_service(holdAtZero=True)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    await run(sim, 10)


def seen_by_keda(sim: Simulation) -> Outside:
    """What the external scaler makes of the pods that there are."""
    pods = sim.pods_of("rank")
    loads = [sim._scrapes._load(pod) for pod in pods]
    return Outside(signals(loads, sim.now.timestamp()), serving(pods))


def has_activator(sim: Simulation) -> bool:
    return sim.cluster.find(DEPLOYMENT, NAMESPACE, ACTIVATOR) is not None


@pytest.mark.parametrize("owned", [False, True])
async def test_what_keda_sends_to_sleep_a_held_request_wakes(sim: Simulation, owned: bool) -> None:
    await at_work(sim, owned=owned)
    assert (leads_to(sim), has_activator(sim)) == ("serving", True)
    watch(sim)
    sim.busy = False
    assert not seen_by_keda(sim).active

    sim.scale_service(0, by="keda-operator")
    await until(sim, lambda: asked(sim) == 0)
    await sim.settle()
    assert leads_to(sim) == "activator"
    assert sim.condition("Serving") == ("True", "ScaledToZero")
    assert sim.condition("Ready")[0] == "True"
    assert not seen_by_keda(sim).active

    sim.requests_held = 1
    assert seen_by_keda(sim).active

    sim.scale_service(1, by="keda-operator")
    await until(sim, lambda: leads_to(sim) == "serving")
    assert asked(sim) == 1


async def test_without_the_field_zero_is_off(sim: Simulation) -> None:
    sim.create_service()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    sim.scale_service(0, by="keda-operator")
    await until(sim, lambda: asked(sim) == 0)
    assert not has_activator(sim)
    assert sim.condition("Serving") == ("False", "ScaledToZero")


@pytest.mark.parametrize("by", ["kubectl", "manifest"])
async def test_what_a_person_is_known_to_have_switched_off_nothing_wakes(
    sim: Simulation, by: str
) -> None:
    await at_work(sim, owned=True)
    if by == "kubectl":
        sim.scale_service(0, by=by)
    else:
        sim.apply_service(replicas=0, holdAtZero=True)
    await until(sim, lambda: asked(sim) == 0 and not has_activator(sim))
    await sim.settle()
    assert leads_to(sim) == "serving"
    assert sim.condition("Serving") == ("False", "ScaledToZero")
    assert not [name for name in sim.names("Pod") if name.startswith(ACTIVATOR)]

    sim.scale_service(1, by="keda-operator")
    await until(sim, lambda: asked(sim) == 1 and has_activator(sim))
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_sleeping_service_is_switched_off_by_taking_the_field_out(sim: Simulation) -> None:
    await at_work(sim)
    sim.scale_service(0, by="keda-operator")
    await until(sim, lambda: leads_to(sim) == "activator" and asked(sim) == 0)
    sim.edit_service(holdAtZero=False)
    await until(sim, lambda: not has_activator(sim))
    await sim.settle()
    assert sim.condition("Serving") == ("False", "ScaledToZero")
    assert "rank-pods" not in sim.names("Service")
