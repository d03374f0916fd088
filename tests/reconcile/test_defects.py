"""What somebody changed by hand must stop no service, and a defect of ours must not be silent."""

import pytest

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import (
    DEPLOYMENT,
    RERANKER_ENGINE,
    RERANKER_SERVICE,
    Resource,
)
from reranker_operator.errors import Unavailable
from reranker_operator.names import ENGINE_LABEL, TEMPLATE_ANNOTATION

from .controllers import NAMESPACE
from .simulation import Simulation
from .test_sleeping import serving as asleep


@pytest.mark.parametrize(
    "value", [{"value": "soon"}, {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
)
async def test_an_activator_that_somebody_told_another_time(sim: Simulation, value: Json) -> None:
    await asleep(sim)
    name = "COLD_START_SECONDS"
    live = sim.cluster.find(DEPLOYMENT, NAMESPACE, "rank-activator") or {}
    container = live["spec"]["template"]["spec"]["containers"][0]
    kept = [entry for entry in container["env"] if not entry["name"].endswith(name)]
    container = container | {"env": [*kept, {"name": f"RERANKER_{name}"} | value]}
    patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
    sim.cluster.edit(DEPLOYMENT, NAMESPACE, "rank-activator", patch)
    await sim.settle()
    # It is looked at as ever: what is asked for now is done.
    sim.edit_service(serving={"gateway": {"image": "gateway:2"}})
    await sim.settle()
    live = sim.cluster.find(DEPLOYMENT, NAMESPACE, "rank-activator") or {}
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "gateway:2"


async def test_a_damaged_template_of_a_paused_service(sim: Simulation) -> None:
    sim.create_service(replicas=2)
    await sim.converge()
    sim.edit_service(rollout={"paused": True})
    sim.edit_service(serving={"maxPassages": 100})
    await sim.converge()
    (name,) = sim.names("Deployment")
    damage = {
        "metadata": {"annotations": {TEMPLATE_ANNOTATION: "x"}},
        "spec": {"template": {"metadata": {"labels": {ENGINE_LABEL: "e"}}}},
    }
    sim.cluster.edit(DEPLOYMENT, NAMESPACE, name, damage)
    await sim.settle()
    assert any("MAX_PASSAGES" in line for line in sim.service().status.pending_changes)


@pytest.mark.parametrize("kind", [RERANKER_SERVICE, RERANKER_ENGINE])
async def test_a_defect_is_told_once_and_nothing_else_is_lost(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch, kind: Resource
) -> None:
    sim.create_service()
    await sim.converge()
    before = sim.service().status

    def fails(world: object) -> None:
        raise KeyError("hf_secret of a tenant")

    with monkeypatch.context() as patch:
        part = "service" if kind is RERANKER_SERVICE else "engine"
        patch.setattr(f"reranker_operator.runtime.reconciler.plan_{part}", fails)
        sim.defects_are_expected = True
        for _ in range(3):
            await sim.resync()
            await sim.advance(1)
    (live,) = sim.cluster.select(kind, NAMESPACE)
    told = {entry["type"]: entry for entry in live["status"]["conditions"]}
    # An engine is as ready as it was.
    assert told["Ready"]["reason"] == ("InternalError" if kind is RERANKER_SERVICE else "Ready")
    assert told["Progressing"]["reason"] == "InternalError"
    message = told["Progressing"]["message"]
    assert "KeyError" in message and "hf_" not in message
    assert sim.service().status.model == before.model
    assert sim.condition("Serving") == ("True", "Available")
    assert [entry["reason"] for entry in sim.events()].count("InternalError") == 1

    sim.defects_are_expected = False
    await sim.resync()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    (live,) = sim.cluster.select(kind, NAMESPACE)
    assert "InternalError" not in {entry["reason"] for entry in live["status"]["conditions"]}


async def test_a_defect_that_cannot_be_told_is_still_the_defect(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim.create_service()
    await sim.converge()
    sim.cluster.refusals["apply_status", RERANKER_SERVICE.kind] = Unavailable("timeout")

    def fails(world: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("reranker_operator.runtime.reconciler.plan_service", fails)
    await sim.resync()
    with pytest.raises(ZeroDivisionError):
        await sim.settle()
