"""Files that rot: serving pods find them, engines are built again, and pods start over."""

import datetime

import pytest

from reranker_contracts import Stage, StageReason, StageResult
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import POD

from . import controllers
from .controllers import NAMESPACE
from .simulation import Simulation


async def _serving(sim: Simulation) -> None:
    sim.create_service()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_damaged_files_are_built_again_and_the_pod_starts_over(sim: Simulation) -> None:
    await _serving(sim)
    (engine,) = sim.engines()
    path = f"engines/{engine.spec.digest}"
    sim.damaged.add(path)
    (pod,) = _serving_pods(sim)
    sim.now += datetime.timedelta(minutes=5)
    sim.cluster.remove(POD, NAMESPACE, pod)
    await sim.settle()
    assert sim.condition("EngineReady") == ("False", "ChecksumMismatch")
    assert sim.message("EngineReady").count("; ") == 1
    (waiting,) = _serving_pods(sim)

    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert path not in sim.damaged
    assert f"{engine.metadata.name}-compile-2" in sim.names("Job")
    # A pod in its crash loop would be minutes away from trying again.
    assert waiting not in _serving_pods(sim)

    # And once more: no Job's name is used twice.
    sim.damaged.add(path)
    sim.now += datetime.timedelta(minutes=5)
    sim.cluster.remove(POD, NAMESPACE, _serving_pods(sim)[0])
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert f"{engine.metadata.name}-compile-3" in sim.names("Job")


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_node_whose_clock_is_wrong_has_the_engine_built_once(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    skew, real = datetime.timedelta(hours=hours), controllers._iso
    start = controllers.Controllers._start_serving

    def start_serving(self: controllers.Controllers, pod: Json) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(controllers, "_iso", lambda moment: real(moment + skew))
            start(self, pod)

    monkeypatch.setattr(controllers.Controllers, "_start_serving", start_serving)
    await _serving(sim)
    await sim.advance(600)
    (engine,) = sim.engines()
    path, jobs, pauses = f"engines/{engine.spec.digest}", len(sim.names("Job")), []
    for _ in range(3):
        sim.damaged.add(path)
        sim.cluster.remove(POD, NAMESPACE, _serving_pods(sim)[0])
        before = len(sim.cluster.calls)
        await sim.settle()
        pauses.append(sim.next_wake)
        for _ in range(30):
            await sim.advance(30)
        assert sim.condition("Ready") == ("True", "Ready")
        asked = [(call.verb, call.kind) for call in sim.cluster.calls[before:]]
        # The one that complained makes room for one that sees the new files.
        assert asked.count(("delete", POD.kind)) == 1
    assert pauses == [10, 20, 40]
    assert f"{engine.metadata.name}-compile-4" in sim.names("Job")
    assert len(sim.names("Job")) <= jobs + 3


async def test_pods_that_had_not_looked_yet_are_no_news_when_they_complain(
    sim: Simulation,
) -> None:
    """They waited for a node while the files were built, and saw the damaged ones at the end."""
    await _serving(sim)
    (engine,) = sim.engines()
    sim.damaged.add(f"engines/{engine.spec.digest}")
    sim.edit_service(replicas=2)
    sim.cluster.remove(POD, NAMESPACE, _serving_pods(sim)[0])
    sim.held.add("compile")
    await sim.converge()
    late, other = _serving_pods(sim)
    said = (sim.cluster.find(POD, NAMESPACE, other) or {})["status"]
    sim.told["serving"] = {"phase": "Pending", "initContainerStatuses": []}
    sim.told_of = lambda pod: bool(pod["metadata"]["name"] == late)
    await sim.settle()
    sim.held.clear()
    await sim.converge()
    assert sim.condition("EngineReady") == ("True", "Built")
    sim.told["serving"] = said
    await sim.settle()
    del sim.told["serving"]
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.engines()[0].status.damages == 1
    assert not {late, other} & set(_serving_pods(sim))


async def test_damage_again_and_again_is_mended_ever_more_slowly(sim: Simulation) -> None:
    await _serving(sim)
    (engine,) = sim.engines()
    pauses = []
    for minutes in (5, 5, 5, 60):
        sim.damaged.add(f"engines/{engine.spec.digest}")
        sim.now += datetime.timedelta(minutes=minutes)
        sim.cluster.remove(POD, NAMESPACE, _serving_pods(sim)[0])
        await sim.settle()
        pauses.append(sim.next_wake)
        said = sim.message("EngineReady")
        assert ("after 40 s, for the 3. time in a row" in said) == (len(pauses) == 3)
        await sim.converge()
        assert sim.condition("Ready") == ("True", "Ready")
    # The last one came long after the build before it.
    assert pauses == [10, 20, 40, 10]


async def test_a_pod_of_somebody_else_cannot_have_an_engine_built_again(sim: Simulation) -> None:
    await _serving(sim)
    (engine,) = sim.engines()
    sim.damaged.add(f"engines/{engine.spec.digest}")
    sim.now += datetime.timedelta(minutes=5)
    sim.pods_start = False
    name = _serving_pods(sim)[0]
    real = sim.cluster.find(POD, NAMESPACE, name) or {}
    sim.cluster.remove(POD, NAMESPACE, name)
    result = StageResult(
        stage=Stage.VERIFY,
        ok=False,
        reason=StageReason.CHECKSUM_MISMATCH,
        message="believe me",
        seconds=1,
    )
    end = {"exitCode": 1, "message": result.to_message()} | {
        "finishedAt": sim.now.strftime("%Y-%m-%dT%H:%M:%SZ")
    }
    statuses = [{"name": "verify", "image": "x", "state": {"terminated": end}}]
    for number, owners in enumerate(
        ([], [{"kind": "ReplicaSet", "name": "mine-5d8f", "uid": "x", "controller": True}])
    ):
        meta = {"name": f"fake-{number}", "namespace": NAMESPACE, "ownerReferences": owners}
        meta |= {"labels": real["metadata"]["labels"]}
        status = {"phase": "Pending", "initContainerStatuses": statuses}
        sim.cluster.put(real | {"metadata": meta, "status": status})
    await sim.settle()
    assert sim.engines()[0].status.stage == "Ready"
    assert len(sim.names("Job")) == 2


async def test_a_damaged_prepared_model_is_prepared_again(sim: Simulation) -> None:
    await _serving(sim)
    sim.damaged |= sim.stored[sim.store]
    sim.now += datetime.timedelta(minutes=5)
    sim.cluster.remove(POD, NAMESPACE, _serving_pods(sim)[0])
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.damaged == set()
    assert any("prepare-3" in name for name in sim.names("Job"))


def _serving_pods(sim: Simulation) -> list[str]:
    selector = {"reranker.dev/service": "rank", "app.kubernetes.io/component": "serving"}
    return [pod["metadata"]["name"] for pod in sim.cluster.select(POD, NAMESPACE, selector)]
