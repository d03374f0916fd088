"""What a user does, from the first apply to the last delete, with everything else going well."""

from collections.abc import Callable
from typing import Any

import pytest

from reranker_operator.api.meta import DEPLOYMENT, JOB, SERVICE

from .controllers import NAMESPACE
from .simulation import Simulation, revision_of

Watch = Callable[[Simulation], None]
OTHER = {"source": "hf://org/other"}


async def _serving(sim: Simulation, **spec: Any) -> None:
    sim.create_service(**spec)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_source_alone_becomes_a_served_model(sim: Simulation) -> None:
    await _serving(sim)
    status, (engine,) = sim.service().status, sim.engines()
    assert {entry.type: entry.status for entry in status.conditions} == {
        "Accepted": "True", "ModelResolved": "True", "EngineReady": "True", "Serving": "True",
        "Integrated": "True", "Progressing": "False", "Ready": "True",
    }  # fmt: skip
    assert all(entry.observed_generation == 1 for entry in status.conditions)
    assert (status.stage, status.ready, status.url) == (
        "Serving",
        "1/1",
        "http://rank.shop.svc:8000",
    )
    assert (status.engine, status.revision) == (
        engine.metadata.name,
        revision_of(sim.selected() or {}),
    )
    assert sim.stored["reranker-engines"] >= {f"engines/{engine.spec.digest}"}
    stages = {entry.name for entry in engine.status.stages}
    assert stages >= {"fetch", "export", "compile", "validate", "publish", "publish-prepared"}
    assert not sim.errors


async def test_the_stages_can_be_followed_in_status(sim: Simulation) -> None:
    seen = []
    sim.create_service()
    for stage in ("resolve", "fetch", "export", "compile", "validate"):
        sim.held = {stage}
        await sim.settle()
        seen.append(sim.service().status.stage)
    sim.held.clear()
    sim.pods_start = False
    await sim.settle()
    seen.append(sim.service().status.stage)
    assert seen == ["Resolving", "Fetch", "Export", "Compile", "Validate", "Starting"]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"replicas": 0},
        {
            "serving": {"gateway": {"resources": {"limits": {"cpu": "0.5", "memory": 1073741824}}}},
            "model": {"source": "oci://registry/model:1", "aliases": ["a", "b"]},
        },
    ],
    ids=["defaults", "zero", "uncanonical quantities"],
)
async def test_a_reconcile_with_nothing_to_do_writes_nothing(
    sim: Simulation, spec: dict[str, Any]
) -> None:
    sim.create_service(**spec)
    await sim.converge()
    before = len(sim.cluster.writes)
    sim.restart_operator()
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[before:] == []


@pytest.mark.parametrize(
    "change",
    [
        {"type": "NodePort"},
        {"selector": {"app": "x"}},
        {"selector": {"reranker.dev/revision": "x"}},
    ],
    ids=["value", "added to an atomic map", "moved selector"],
)
async def test_drift_is_repaired(sim: Simulation, change: dict[str, Any]) -> None:
    await _serving(sim)
    good = sim.picture()
    name = sim.names("Deployment")[0]
    sim.cluster.edit(SERVICE, NAMESPACE, "rank", {"spec": change})
    sim.cluster.edit(DEPLOYMENT, NAMESPACE, name, {"spec": {"replicas": 7}})
    await sim.settle()
    assert sim.picture() == good


async def test_a_model_change_builds_first_and_rolls_then(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    await _serving(sim, replicas=2)
    old = sim.selected()
    assert old is not None
    traffic_is_served(sim)

    sim.held = {"compile"}
    sim.edit_service(model=OTHER)
    await sim.converge()
    assert sim.names("Deployment") == [old["metadata"]["name"]]
    assert sim.condition("EngineReady")[0] == "Unknown"
    assert sim.condition("Serving") == ("True", "Available")

    sim.held.clear()
    sim.pods_start = False
    await sim.settle()
    assert len(sim.names("Deployment")) == 2
    assert revision_of(sim.selected() or {}) == revision_of(old)
    assert sim.condition("Ready") == ("False", "Rolling")

    sim.pods_start = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    by_model = {entry.spec.model_name: entry.metadata.name for entry in sim.engines()}
    # The former one is kept for the way back.
    assert set(by_model) == {"tiny", "other"}
    assert sim.engine_of(sim.selected() or {}) == by_model["other"]
    assert len(sim.names("Deployment")) == 1


async def test_an_edit_during_a_rollout_leaves_no_third_revision(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    await _serving(sim)
    traffic_is_served(sim)
    sim.pods_start = False
    for passages in (100, 200, 300):
        sim.edit_service(serving={"maxPassages": passages})
        await sim.settle()
        assert len(sim.names("Deployment")) == 2
    sim.pods_start = True
    await sim.converge()
    (name,) = sim.names("Deployment")
    assert name == f"rank-{sim.service().status.revision}"


async def test_going_back_during_a_rollout_keeps_the_serving_revision(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    await _serving(sim, serving={"maxPassages": 512})
    good = sim.picture()
    traffic_is_served(sim)
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 100})
    await sim.settle()
    sim.edit_service(serving={"maxPassages": 512})
    await sim.converge()
    assert sim.picture() == good


async def test_replicas_are_followed_also_while_a_build_runs(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    await _serving(sim)
    traffic_is_served(sim)
    sim.edit_service(replicas=3)
    await sim.converge()
    assert sim.service().status.ready == "3/3"
    revision = sim.service().status.revision

    sim.held = {"export"}
    sim.edit_service(model=OTHER)
    await sim.converge()
    sim.edit_service(replicas=2)
    await sim.converge()
    assert (sim.service().status.ready, sim.service().status.revision) == ("2/2", revision)

    sim.held.clear()
    await sim.converge()
    assert sim.service().status.ready == "2/2"
    assert sim.service().status.revision != revision


@pytest.mark.parametrize("during", ["build", "rollout", "invalid edit"])
async def test_a_deleted_address_comes_back_to_the_same_pods(sim: Simulation, during: str) -> None:
    await _serving(sim)
    revision = sim.service().status.revision
    sim.held, sim.pods_start = {"compile"}, False
    changes: dict[str, dict[str, Any]] = {
        "build": {"model": OTHER},
        "rollout": {"serving": {"maxPassages": 100}},
        "invalid edit": {"model": {"source": "gopher://x"}},
    }
    sim.edit_service(**changes[during])
    await sim.converge()
    sim.cluster.remove(SERVICE, NAMESPACE, "rank")
    await sim.converge()
    target = sim.selected()
    assert target is not None
    assert revision_of(target) == revision
    assert target["status"]["readyReplicas"] == 1


async def test_a_new_operator_version_rolls_existing_services(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    """The users' specs are carried out all the time: `Ready` stays, `Progressing` tells of it."""
    await _serving(sim)
    before = sim.service().status
    traffic_is_served(sim)
    sim.defaults = type(sim.defaults)("builder:2", "gateway:2", "triton:2", "triton:2-gpu")
    sim.toolchain = sim.toolchain.model_copy(update={"recipe": 2})
    sim.restart_operator()
    await sim.resync()
    for stage, reason in (("Resolving", "Resolving"), ("Compile", "Running"), ("Rolling",) * 2):
        sim.held, sim.pods_start = {stage.lower(), "resolve"[: 7 * (stage == "Resolving")]}, False
        await sim.settle()
        assert sim.service().status.stage == stage
        assert sim.condition("Progressing") == ("True", reason)
        for kind in ("ModelResolved", "EngineReady", "Ready"):
            assert sim.condition(kind)[0] == "True"
    sim.pods_start = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    after = sim.service().status
    assert (after.revision != before.revision, after.engine != before.engine) == (True, True)


async def test_a_change_of_the_spec_during_an_upgrade_is_no_longer_ready(sim: Simulation) -> None:
    await _serving(sim)
    sim.defaults = type(sim.defaults)("builder:2", "gateway:2", "triton:2", "triton:2-gpu")
    sim.held = {"resolve"}
    sim.restart_operator()
    await sim.resync()
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    sim.edit_service(replicas=2)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    sim.edit_service(engine={"maxBatchSize": 8})
    await sim.converge()
    assert sim.condition("Ready") == ("False", "Resolving")


async def test_garbage_of_a_build_does_not_pile_up(sim: Simulation) -> None:
    await _serving(sim)
    sim.edit_service(rollout={"keepEngines": 0})
    for number in range(4):
        sim.edit_service(model={"source": f"hf://org/model-{number}"})
        await sim.converge()
    (engine,) = sim.engines()
    assert all(name.startswith(engine.metadata.name) for name in sim.names("Job"))
    assert [
        job for job in sim.cluster.select(JOB, NAMESPACE) if "resolve" in job["metadata"]["name"]
    ] == []
