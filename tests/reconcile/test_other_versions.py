"""What an operator finds that a newer one has written: going back must not stop a service."""

from dataclasses import replace
from typing import Any

import pytest

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import DEPLOYMENT, RERANKER_ENGINE, RERANKER_SERVICE

from .controllers import NAMESPACE
from .simulation import Simulation


async def _serving(sim: Simulation, **spec: Any) -> None:
    sim.create_service(**spec)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


def _engine(sim: Simulation) -> Json:
    (engine,) = sim.cluster.select(RERANKER_ENGINE, NAMESPACE)
    return engine


def _conditions(entry: Json) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in entry["status"]["conditions"]}


@pytest.mark.parametrize(
    "status",
    [
        {"model": {"runtimes": {"newThing": "1.0"}}},
        {"model": {"maxLength": "long", "runtimes": {"newThing": "1.0"}}},
        {"engines": [{"name": "e", "parity": {"newThing": 1}}]},
        {"history": [{"revision": ["x"]}]},
        {"scale": {"replicas": "many"}},
        {"conditions": [{"type": "Ready", "status": "Perhaps"}]},
    ],
)
async def test_a_status_that_is_not_ours_is_observed_anew(sim: Simulation, status: Json) -> None:
    await _serving(sim)
    before = sim.service().status.model
    sim.cluster.edit(RERANKER_SERVICE, NAMESPACE, "rank", {"status": status})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    sim.edit_service(serving={"maxPassages": 77})
    await sim.converge()
    live = sim.cluster.find(RERANKER_SERVICE, NAMESPACE, "rank") or {}
    assert _conditions(live)["Ready"] == ("True", "Ready")
    assert live["status"]["observedGeneration"] == live["metadata"]["generation"]
    # Drift is put right as ever.
    (name,) = sim.names("Deployment")
    sim.cluster.meddle(DEPLOYMENT, NAMESPACE, name, {"spec": {"replicas": 7}})
    await sim.converge()
    assert (sim.cluster.find(DEPLOYMENT, NAMESPACE, name) or {})["spec"]["replicas"] == 1
    after = sim.service().status.model
    assert before and after and after.revision == before.revision


async def test_an_engines_status_that_is_not_ours_builds_nothing(sim: Simulation) -> None:
    await _serving(sim)
    name, jobs = _engine(sim)["metadata"]["name"], sim.names("Job")
    status = {"status": {"parity": {"newThing": 1}, "stages": [{"name": 5}]}}
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, name, status)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.names("Job") == jobs


async def test_an_engine_with_a_key_more_goes_on_serving(sim: Simulation) -> None:
    await _serving(sim)
    live, jobs = _engine(sim), sim.names("Job")
    identity = live["spec"]["identity"] | {"newThing": "1"}
    patch = {"spec": {"identity": identity}}
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, live["metadata"]["name"], patch)
    await sim.converge()
    assert sim.condition("EngineReady") == ("True", "Built")
    assert sim.condition("Ready") == ("True", "Ready")
    assert _conditions(_engine(sim))["Ready"][0] == "True"
    assert sim.names("Job") == jobs


async def test_an_engine_with_a_key_more_is_not_built(sim: Simulation) -> None:
    sim.held.add("export")
    sim.create_service()
    await sim.settle()
    live = _engine(sim)
    patch = {"spec": {"prepare": live["spec"]["prepare"] | {"newThing": "1"}}}
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, live["metadata"]["name"], patch)
    sim.held.clear()
    await sim.converge()
    assert sim.condition("EngineReady") == ("False", "InvalidSpec")
    assert "spec.prepare.newThing" in sim.message("EngineReady")
    assert "upgrade the operator" in sim.message("EngineReady")


async def test_an_engine_with_a_key_more_can_be_deleted(sim: Simulation) -> None:
    sim.add_claim("mine")
    sim.store = "mine"
    await _serving(sim, engine={"store": {"existingClaim": "mine"}})
    live = _engine(sim)
    patch = {"spec": {"prepare": live["spec"]["prepare"] | {"newThing": "1"}}}
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, live["metadata"]["name"], patch)
    sim.delete_service()
    await sim.converge()
    assert sim.names("RerankerEngine") == []
    assert sim.stored["mine"] == set()


async def test_an_engine_that_cannot_be_read_is_told_and_keeps_what_it_said(
    sim: Simulation,
) -> None:
    await _serving(sim)
    live = _engine(sim)
    name, said = live["metadata"]["name"], _conditions(live)
    wrong = live["spec"]["identity"] | {"precision": "fp8"}
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, name, {"spec": {"identity": wrong}})
    await sim.converge()
    assert sim.condition("Serving")[0] == "True"
    assert sim.condition("EngineReady") == ("False", "InvalidSpec")
    assert "can't be read" in sim.message("EngineReady")
    now = _conditions(_engine(sim))
    assert now["Ready"] == now["Accepted"] == ("False", "InvalidSpec")
    assert {kind: now[kind] for kind in said if kind != "Ready"} == {
        kind: told for kind, told in said.items() if kind != "Ready"
    }
    writes = len(sim.cluster.writes)
    await sim.resync()
    await sim.settle()
    assert len(sim.cluster.writes) == writes
    # The newer operator is back: nothing is built again.
    right = {"spec": {"identity": live["spec"]["identity"]}}
    jobs = sim.names("Job")
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, name, right)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.names("Job") == jobs


async def test_an_engine_that_cannot_be_read_can_be_deleted(sim: Simulation) -> None:
    sim.add_claim("mine")
    sim.store = "mine"
    await _serving(sim, engine={"store": {"existingClaim": "mine"}})
    live = _engine(sim)
    name, stored = live["metadata"]["name"], set(sim.stored["mine"])
    wrong = live["spec"]["identity"] | {"precision": "fp8"}
    sim.cluster.edit(RERANKER_ENGINE, NAMESPACE, name, {"spec": {"identity": wrong}})
    await sim.converge()
    assert "delete this RerankerEngine" in sim.message("EngineReady")
    await sim.cluster.delete(RERANKER_ENGINE, NAMESPACE, name)
    await sim.converge()
    # Its files are not known, so they stay; the service asks for another one of that name.
    assert _engine(sim)["metadata"]["uid"] != live["metadata"]["uid"]
    assert sim.condition("Ready") == ("True", "Ready")
    assert stored and stored <= sim.stored["mine"]


def _deployments(sim: Simulation) -> dict[str, Json]:
    found = sim.cluster.select(DEPLOYMENT, NAMESPACE)
    return {entry["metadata"]["name"]: entry["spec"] for entry in found}


async def test_pods_are_not_made_anew_without_what_a_newer_operator_knows(sim: Simulation) -> None:
    await _serving(sim)
    before = _deployments(sim)
    sim.edit_service(serving={"pod": {"newThing": {"a": 1}}})
    await sim.converge()
    # With newer definitions any service may have such a key by default.
    assert sim.condition("Ready") == ("True", "Ready")
    sim.defaults = replace(sim.defaults, gateway_image="gateway:0")
    sim.restart_operator()
    await sim.converge()
    assert sim.condition("Accepted") == sim.condition("Ready") == ("False", "InvalidSpec")
    assert "spec.serving.pod.newThing" in sim.message("Accepted")
    assert "upgrade the operator" in sim.message("Accepted")
    assert sim.condition("Serving") == ("True", "Available")
    assert _deployments(sim) == before
    # What serves follows the number of pods as ever.
    sim.edit_service(replicas=2)
    await sim.converge()
    assert [spec["replicas"] for spec in _deployments(sim).values()] == [2]
    assert _deployments(sim).keys() == before.keys()
    sim.edit_service(serving={"pod": {"newThing": None}})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _deployments(sim).keys().isdisjoint(before)


async def test_no_first_pods_without_what_a_newer_operator_knows(sim: Simulation) -> None:
    sim.create_service(serving={"pod": {"newThing": 1}})
    await sim.converge()
    assert sim.condition("Accepted") == ("False", "InvalidSpec")
    assert sim.condition("EngineReady")[0] == "True"
    assert _deployments(sim) == {}


async def test_a_rollout_goes_on_beside_newer_definitions(sim: Simulation) -> None:
    await _serving(sim)
    before = _deployments(sim)
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 77})
    await sim.settle()
    (begun,) = _deployments(sim).keys() - before.keys()
    sim.edit_service(serving={"newThing": 1})
    await sim.settle()
    assert begun in _deployments(sim)
    sim.pods_start = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert list(_deployments(sim)) == [begun]
