"""Files that rot: serving pods find them, engines are built again, and pods start over."""

import datetime

from reranker_contracts import Stage, StageReason, StageResult
from reranker_operator.api.meta import POD

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
