"""A probe set of the user's own: part of the engine's name, read by the builder alone."""

from typing import Any

import pytest

from reranker_contracts import StageReason
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import JOB

from .controllers import NAMESPACE, Fault
from .simulation import Simulation

ENGINE: dict[str, Any] = {"parity": {"probes": {"configMap": {"name": "questions"}}}}


@pytest.fixture
def sim() -> Simulation:
    found = Simulation()
    found.put_file("ConfigMap", "questions")
    return found


def _pod(sim: Simulation, stage: str) -> Json:
    jobs = sim.cluster.select(JOB, NAMESPACE, {"reranker.dev/stage": stage})
    spec: Json = list(jobs)[-1]["spec"]["template"]["spec"]
    return spec


def _container(sim: Simulation, stage: str, name: str) -> Json:
    pod = _pod(sim, stage)
    containers = [*pod["initContainers"], *pod["containers"]]
    return next(entry for entry in containers if entry["name"] == name)


async def _serving(sim: Simulation) -> str:
    """Digest of the engine that a service with its own probes gets."""
    sim.create_service(engine=ENGINE, rollout={"keepEngines": 0})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    return sim.engines()[0].spec.digest


async def test_the_file_is_mounted_where_it_is_read(sim: Simulation) -> None:
    sim.held.add("resolve")
    sim.create_service(engine=ENGINE)
    await sim.settle()
    mounts = [{"name": "probes", "mountPath": "/etc/probes", "readOnly": True}]
    resolve = _container(sim, "resolve", "resolve")
    assert [m for m in resolve["volumeMounts"] if m["name"] == "probes"] == mounts
    assert resolve["args"][resolve["args"].index("--probes") + 1] == "/etc/probes/probes.jsonl"
    sim.held.clear()
    await sim.converge()
    export = _container(sim, "prepare", "export")
    assert export["args"][export["args"].index("--probes-digest") + 1] == sim.probes
    assert [m for m in export["volumeMounts"] if m["name"] == "probes"] == mounts
    fetch = _container(sim, "prepare", "fetch")
    assert not [m for m in fetch["volumeMounts"] if m["name"] == "probes"]


async def test_other_questions_are_another_engine(sim: Simulation) -> None:
    before = await _serving(sim)
    sim.probes = "b" * 64
    sim.put_file("ConfigMap", "questions", "2")
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    (engine,) = sim.engines()
    assert engine.spec.digest != before
    assert engine.spec.prepare.probes == "b" * 64


async def test_a_config_map_that_only_says_the_same_again_is_no_other_engine(
    sim: Simulation,
) -> None:
    before = await _serving(sim)
    jobs = [name for name in sim.names("Job") if "resolve" not in name]
    sim.put_file("ConfigMap", "questions", "with another line in another key")
    await sim.converge()
    assert [engine.spec.digest for engine in sim.engines()] == [before]
    assert [name for name in sim.names("Job") if "resolve" not in name] == jobs


async def test_a_file_that_changes_under_the_build_is_looked_at_again(sim: Simulation) -> None:
    sim.faults["export"] = [Fault("refused", StageReason.SOURCE_CHANGED)]
    sim.create_service(engine=ENGINE)
    await sim.settle()
    assert sim.condition("ModelResolved") == ("False", "SourceChanged")
    sim.probes = "b" * 64
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    (engine,) = sim.engines()
    assert engine.spec.prepare.probes == "b" * 64


async def test_bad_questions_are_read_again_when_they_were_mended(sim: Simulation) -> None:
    sim.faults["resolve"] = [Fault("refused", StageReason.PROBES_INVALID)]
    sim.create_service(engine=ENGINE)
    await sim.converge()
    assert sim.condition("Ready") == ("False", "ProbesInvalid")
    await sim.advance(86400)
    assert sim.condition("Ready") == ("False", "ProbesInvalid")
    sim.put_file("ConfigMap", "questions", "better")
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_service_with_its_own_questions_shares_no_engine_with_one_without(
    sim: Simulation,
) -> None:
    await _serving(sim)
    sim.create_service("plain")
    await sim.converge()
    assert len(sim.engines()) == 2
    sim.create_service("same", engine=ENGINE, serving={"maxPassages": 7})
    await sim.converge()
    assert len(sim.engines()) == 2
