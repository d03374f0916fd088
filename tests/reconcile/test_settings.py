"""Settings of a build may change while the engine is what it is."""

from typing import Any

import pytest

from reranker_operator.api.meta import JOB

from .controllers import NAMESPACE, Fault
from .simulation import Simulation

OTHER = {"source": "hf://org/other"}
QUOTA = "exceeded quota: tight, requested: limits.memory=8Gi, used: 0, limited: limits.memory=2Gi"


def _memory(amount: str) -> dict[str, Any]:
    return {"resources": {"limits": {"memory": amount}}}


def _jobs(sim: Simulation, step: str) -> list[str]:
    jobs = sim.cluster.select(JOB, NAMESPACE, {"reranker.dev/stage": step})
    return [job["metadata"]["name"] for job in jobs]


def _limits(sim: Simulation, step: str) -> list[Any]:
    jobs = sim.cluster.select(JOB, NAMESPACE, {"reranker.dev/stage": step})
    pods = [job["spec"]["template"]["spec"] for job in jobs]
    return [pod["containers"][0]["resources"]["limits"]["memory"] for pod in pods]


async def test_a_failed_resolve_with_more_memory_is_tried_at_once(sim: Simulation) -> None:
    sim.faults["resolve"], now = [Fault("oom")], sim.now
    sim.create_service(engine=_memory("1Mi"))
    await sim.settle()
    assert sim.condition("ModelResolved") == ("False", "OutOfMemory")
    sim.edit_service(engine=_memory("1Gi"))
    await sim.settle()
    assert (sim.condition("Ready"), sim.now) == (("True", "Ready"), now)


async def test_a_failed_build_with_more_memory_is_tried_at_once(sim: Simulation) -> None:
    sim.faults["compile"] = [Fault("oom"), Fault("oom")]
    sim.create_service(engine=_memory("1Gi"))
    await sim.settle()
    await sim.advance(10)
    (engine,) = sim.engines()
    assert sim.condition("EngineReady") == ("False", "OutOfMemory")
    now = sim.now
    sim.edit_service(engine=_memory("4Gi"))
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.now == now
    assert [entry.metadata.uid for entry in sim.engines()] == [engine.metadata.uid]
    assert _limits(sim, "compile") == ["1Gi", "4Gi"]
    # What is left out again goes from the engine, too.
    sim.edit_service(engine={"resources": None})
    await sim.settle()
    assert sim.engines()[0].spec.build.resources is None


async def test_a_failure_with_former_settings_does_not_hold_up_the_new_ones(
    sim: Simulation,
) -> None:
    """The Job ends just when they were changed."""
    sim.held = {"compile"}
    sim.create_service(engine=_memory("1Gi"))
    await sim.settle()
    sim.edit_service(engine=_memory("4Gi"))
    await sim.settle()
    assert _limits(sim, "compile") == ["1Gi"]
    sim.faults["compile"], now = [Fault("oom")], sim.now
    sim.held.clear()
    await sim.settle()
    assert (sim.condition("Ready"), sim.now) == (("True", "Ready"), now)


async def test_a_job_that_is_stuck_with_former_settings_is_replaced(sim: Simulation) -> None:
    sim.held = {"fetch"}
    secret = {"source": "hf://org/tiny", "secretRef": {"name": "hub"}}
    sim.create_service(model=secret)
    await sim.settle()
    (engine,) = sim.engines()
    sim.missing_secrets, sim.held = {"hub"}, set()
    await sim.settle()
    assert sim.condition("EngineReady") == ("False", "SecretNotFound")
    sim.edit_service(model=secret | {"secretRef": {"name": "token"}})
    await sim.settle()
    assert sim.condition("Ready") == ("True", "Ready")
    assert [entry.metadata.uid for entry in sim.engines()] == [engine.metadata.uid]
    assert f"{engine.metadata.name}-prepare-1" not in sim.names("Job")


@pytest.mark.parametrize("step", ["resolve", "prepare", "compile"])
async def test_a_job_that_waits_for_room_is_made_anew_with_less(sim: Simulation, step: str) -> None:
    before = {"resolve": "", "prepare": "resolve", "compile": "publish"}[step]
    sim.held = {before}
    sim.refusal = None if before else QUOTA
    sim.create_service(engine=_memory("8Gi"))
    await sim.settle()
    sim.refusal, sim.held = QUOTA, set()
    await sim.settle()
    await sim.advance(10)
    assert sim.condition("Ready") == ("False", "QuotaExceeded")
    (waiting,) = _jobs(sim, step)
    sim.edit_service(engine=_memory("1Gi"))
    await sim.settle()
    assert _limits(sim, step) == ["1Gi"]
    assert _jobs(sim, step) != [waiting]
    sim.refusal, now = None, sim.now
    await sim.settle()
    assert (sim.condition("Ready"), sim.now) == (("True", "Ready"), now)


async def test_one_of_the_services_that_share_an_engine_decides(sim: Simulation) -> None:
    sim.create_service("one", engine=_memory("1Gi"))
    await sim.converge()
    sim.create_service("two", engine=_memory("2Gi"))
    await sim.converge()
    (engine,) = sim.engines()
    assert engine.spec.build.to_dict()["resources"] == {"limits": {"memory": "1Gi"}}
    before = len(sim.cluster.writes)
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[before:] == []

    sim.delete_service("one")
    await sim.converge()
    (kept,) = sim.engines()
    assert kept.metadata.uid == engine.metadata.uid
    assert kept.spec.build.to_dict()["resources"] == {"limits": {"memory": "2Gi"}}


async def test_a_superseded_build_ends_at_once(sim: Simulation) -> None:
    sim.held = {"export"}
    sim.create_service()
    await sim.settle()
    (old,), now = sim.engines(), sim.now
    sim.edit_service(model=OTHER)
    await sim.settle()
    (new,) = sim.engines()
    assert (new.spec.model_name, sim.now) == ("other", now)
    assert not [name for name in sim.names("Job") if name.startswith(old.metadata.name)]
