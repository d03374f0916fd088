"""Engines and their store: shared by services, released, deleted, and made again."""

from collections.abc import Callable
from typing import Any

import pytest

from reranker_operator.api.meta import DEPLOYMENT, POD, PVC, RERANKER_ENGINE
from reranker_operator.core.plan import Plan
from reranker_operator.core.service_plan import plan_service
from reranker_operator.core.world import ServiceWorld

from .controllers import NAMESPACE
from .simulation import Simulation

OTHER = {"source": "hf://org/other"}


async def _serving(sim: Simulation, **spec: Any) -> None:
    sim.create_service(**spec)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_two_services_share_an_engine_until_the_last_one_goes(sim: Simulation) -> None:
    sim.create_service("one")
    sim.create_service("two", serving={"maxPassages": 7})
    await sim.converge()
    (engine,) = sim.engines()
    owners = sim.cluster.find(RERANKER_ENGINE, NAMESPACE, engine.metadata.name) or {}
    assert len(owners["metadata"]["ownerReferences"]) == 2
    assert sum("prepare" in name for name in sim.names("Job")) == 1

    sim.delete_service("one")
    await sim.converge()
    assert [entry.metadata.uid for entry in sim.engines()] == [engine.metadata.uid]
    assert sim.condition("Ready", "two") == ("True", "Ready")

    sim.delete_service("two")
    await sim.converge()
    assert (sim.engines(), sim.picture(), dict(sim.stored)) == ([], {}, {})


@pytest.mark.parametrize("store", ["mine", "reranker-engines"])
async def test_files_of_a_deleted_engine_are_removed_while_the_store_stays(
    sim: Simulation, store: str
) -> None:
    """Those in a claim of the user's at once, those in one of ours with the next publish."""
    where: dict[str, Any] = {}
    if store == "mine":
        sim.add_claim(store)
        where = {"store": {"existingClaim": store}}
    sim.create_service("one", engine=where | {"maxBatchSize": 8})
    sim.create_service("two", engine=where | {"maxBatchSize": 16})
    sim.create_service("three", engine=where, model=OTHER)
    await sim.converge()
    everything = set(sim.stored[store])
    by_batch = {entry.spec.identity.max_batch_size: entry for entry in sim.engines()}

    async def next_publish() -> None:
        await sim.advance(1)
        sim.create_service("another", engine=where, model={"source": "hf://org/another"})
        await sim.converge()
        sim.delete_service("another")
        await sim.converge()
        await sim.advance(1)

    sim.delete_service("one")
    await sim.converge()
    if store == "reranker-engines":
        assert sim.stored[store] == everything
        await next_publish()
    # The prepared model is still that of `two`.
    left = everything - {f"engines/{by_batch[8].spec.digest}"}
    assert sim.stored[store] & everything == left

    sim.delete_service("two")
    await sim.converge()
    if store == "reranker-engines":
        await next_publish()
    assert len(sim.stored[store] & everything) == 2
    assert sim.condition("Ready", "three") == ("True", "Ready")


async def test_engines_of_other_names_keep_the_same_files(sim: Simulation) -> None:
    """Two claims with equal files: one digest, two names."""
    sim.revisions |= {"pvc://data/a": "sha256:same", "pvc://data/b": "sha256:same"}
    sim.add_claim("data", "ReadOnlyMany")
    sim.add_claim("mine")
    mine = {"store": {"existingClaim": "mine"}}
    sim.create_service("one", engine=mine, model={"source": "pvc://data/a"})
    sim.create_service("two", engine=mine, model={"source": "pvc://data/b"})
    await sim.converge()
    assert len({entry.spec.digest for entry in sim.engines()}) == 1
    assert len(sim.engines()) == 2
    files = set(sim.stored["mine"])
    sim.delete_service("one")
    await sim.converge()
    assert len(sim.engines()) == 1
    assert sim.stored["mine"] == files


async def test_without_the_operator_everything_can_still_be_deleted(sim: Simulation) -> None:
    """It was uninstalled, or has lost its rights in a namespace that goes away."""
    await _serving(sim)
    sim.delete_service()
    while sim.cluster.collect_garbage() or sim.step():
        pass
    assert sim.picture() == {}


async def test_a_service_that_never_gets_an_engine_does_not_hold_the_store(sim: Simulation) -> None:
    await _serving(sim)
    sim.create_service("bad", model={"source": "gopher://x"})
    await sim.converge()
    before = len(sim.cluster.writes)
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[before:] == []
    sim.delete_service()
    await sim.converge()
    assert sim.names("PersistentVolumeClaim") == []


async def test_a_claim_of_the_user_stays(sim: Simulation) -> None:
    sim.add_claim("mine")
    await _serving(sim, engine={"store": {"existingClaim": "mine"}})
    assert sim.names("PersistentVolumeClaim") == ["mine"]
    sim.delete_service()
    await sim.converge()
    assert list(sim.picture()) == ["PersistentVolumeClaim/mine"]
    assert "ownerReferences" not in sim.picture()["PersistentVolumeClaim/mine"]["metadata"]
    assert sim.stored["mine"] == set()


async def test_deleted_and_created_again_before_garbage_collection(sim: Simulation) -> None:
    await _serving(sim)
    first = sim.service().metadata.uid
    sim.delete_service()
    sim.create_service()
    # The operator may be faster than the garbage collector.
    await sim.reconcile_pending()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.service().metadata.uid != first
    assert f"engines/{sim.engines()[0].spec.digest}" in sim.stored["reranker-engines"]


async def test_results_of_a_former_engine_of_the_same_name_are_not_believed(
    sim: Simulation,
) -> None:
    """Garbage collection may take the files with their claim before it takes the Jobs."""
    await _serving(sim)
    (engine,) = sim.engines()
    sim.garbage_is_collected = False
    sim.delete_service()
    sim.create_service()
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, engine.metadata.name)
    await sim.reconcile_pending()
    for resource in (DEPLOYMENT, POD, PVC):
        for name in sim.names(resource.kind):
            sim.cluster.remove(resource, NAMESPACE, name)
    await sim.settle()
    assert sim.condition("EngineReady")[0] == "Unknown"
    assert f"{engine.metadata.name}-compile-1" in sim.names("Job")
    sim.garbage_is_collected = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert f"engines/{engine.spec.digest}" in sim.stored[sim.store]


async def test_a_store_on_its_way_out_is_waited_for(sim: Simulation) -> None:
    await _serving(sim)
    spec = {
        "containers": [],
        "volumes": [{"persistentVolumeClaim": {"claimName": "reranker-engines"}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": {"phase": "Running"}}
    sim.cluster.put(pod | {"metadata": {"name": "lingering", "namespace": NAMESPACE}})
    sim.delete_service()
    await sim.converge()
    sim.create_service()
    await sim.settle()
    assert (
        "deletionTimestamp"
        in (sim.cluster.find(PVC, NAMESPACE, "reranker-engines") or {})["metadata"]
    )
    sim.cluster.remove(POD, NAMESPACE, "lingering")
    await sim.settle()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_released_engine_leaves_status_with_the_release(sim: Simulation) -> None:
    """Scaled to zero, no pod's event would bring the service back later."""
    await _serving(sim)
    sim.edit_service(replicas=0)
    await sim.converge()
    sim.edit_service(model=OTHER)
    await sim.converge()
    assert [entry.name for entry in sim.service().status.engines] == [
        entry.metadata.name for entry in sim.engines()
    ]


async def test_an_engine_made_anew_for_another_service_is_not_reported(sim: Simulation) -> None:
    """It has the name of the one that runs here, but only its owner hears of its changes."""
    await _serving(sim)
    sim.create_service("two")
    await sim.converge()
    sim.edit_service(model={"source": "gopher://x"})
    await sim.converge()
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, sim.engines()[0].metadata.name)
    await sim.converge()
    assert [entry.name for entry in sim.service().status.engines] == []
    assert [entry.state for entry in sim.service("two").status.engines] == ["Ready"]
    before = len(sim.cluster.writes)
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[before:] == []


async def test_an_engine_deleted_by_hand_is_made_again(sim: Simulation) -> None:
    await _serving(sim)
    (engine,) = sim.engines()
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, engine.metadata.name)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.engines()[0].metadata.uid != engine.metadata.uid


async def test_an_engine_deleted_by_hand_leaves_its_claim_to_the_pods_that_mount_it(
    sim: Simulation,
) -> None:
    await _serving(sim)
    (engine,) = sim.engines()
    # The operator is away while the garbage collector looks at the claim.
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, engine.metadata.name)
    while sim.cluster.collect_garbage():
        pass
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_another_store_is_another_engine_and_lets_the_old_one_go(
    sim: Simulation, traffic_is_served: Callable[[Simulation], None]
) -> None:
    await _serving(sim)
    sim.edit_service(rollout={"keepEngines": 0})
    (old,) = sim.engines()
    traffic_is_served(sim)
    sim.held = {"export"}
    sim.edit_service(engine={"store": {"storageClassName": "fast"}})
    await sim.converge()
    assert len(sim.engines()) == len(sim.names("PersistentVolumeClaim")) == 2
    sim.held.clear()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    (new,) = sim.engines()
    assert new.metadata.name != old.metadata.name
    assert new.spec.digest == old.spec.digest
    (claim,) = sim.names("PersistentVolumeClaim")
    assert claim != "reranker-engines"
    assert list(sim.stored) == [claim]
    # And a claim of the user's is another store again.
    sim.add_claim("mine")
    sim.edit_service(engine={"store": {"storageClassName": None, "existingClaim": "mine"}})
    await sim.converge()
    assert sim.names("PersistentVolumeClaim") == ["mine"]
    assert sim.condition("Ready") == ("True", "Ready")
    assert [entry.metadata.finalizers for entry in sim.engines()] == [("reranker.dev/cleanup",)]


@pytest.mark.parametrize("workers", [4, 16])
async def test_a_hundred_services_applied_at_once_make_exactly_one_build(workers: int) -> None:
    """The API server is the lock: whoever creates the engine builds it, all others find it."""
    sim = Simulation(workers=workers)
    count = 100
    for number in range(count):
        # What serves them may differ; the engine that they need does not.
        sim.create_service(f"rank-{number}", serving={"maxPassages": 1 + number})
    await sim.settle()
    (engine,) = sim.engines()
    jobs = {call.name for call in sim.cluster.writes if call.kind == "Job"}
    builds = sorted(name for name in jobs if name.startswith(engine.metadata.name))
    assert len(builds) == 2, "prepare and compile, each once, ever"
    owners = sim.cluster.find(RERANKER_ENGINE, NAMESPACE, engine.metadata.name) or {}
    assert len(owners["metadata"]["ownerReferences"]) == count
    store = sim.stored["reranker-engines"]
    assert sorted(path.split("/")[0] for path in store) == ["engines", "prepared"]
    for number in range(count):
        assert sim.condition("Ready", f"rank-{number}") == ("True", "Ready"), number


async def test_two_services_hold_a_claim_for_all_that_mount_it(sim: Simulation) -> None:
    """Each owner has a field manager of its own there, so not everybody is one."""
    for name in ("one", "two", "three", "four"):
        sim.create_service(name, serving={"maxPassages": len(name)})
        await sim.converge()
    assert _services_that_own(sim) == {"one", "two"}
    sim.delete_service("one")
    await sim.converge()
    assert len(_services_that_own(sim)) == 2
    # Even when all engines go at once, and the operator is away.
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, sim.engines()[0].metadata.name)
    while sim.cluster.collect_garbage():
        pass
    await sim.converge()
    assert {sim.condition("Ready", name) for name in ("two", "three", "four")} == {
        ("True", "Ready")
    }


def _services_that_own(sim: Simulation) -> set[str]:
    claim = sim.cluster.find(PVC, NAMESPACE, "reranker-engines") or {}
    owners = claim["metadata"]["ownerReferences"]
    return {owner["name"] for owner in owners if owner["kind"] == "RerankerService"}


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "e" * 64},
        {"digest": "e" * 64, "source": {"source": "hf://evil/model"}},
        {"prepare": {"revision": "f" * 40}},
        {"identity": {"maxBatchSize": 3}},
        {"store": {"existingClaim": "evil"}},
    ],
)
async def test_an_engine_that_is_not_what_its_name_says_is_not_taken(
    sim: Simulation, change: dict[str, Any]
) -> None:
    """Ten digits of a hash are a name, and whoever may create one can give it any name."""
    twin = Simulation()
    await _serving(twin)
    (made,) = twin.cluster.select(RERANKER_ENGINE, NAMESPACE)
    spec = made["spec"] | {
        key: made["spec"][key] | value if key in ("prepare", "identity", "store") else value
        for key, value in change.items()
    }
    name = made["metadata"]["name"]
    meta = {key: made["metadata"][key] for key in ("name", "namespace", "labels")}
    # With everything that says that it is fine.
    status = made["status"] | {"observedGeneration": None}
    sim.cluster.put(made | {"metadata": meta, "spec": spec, "status": status})
    sim.create_service()
    await sim.settle()
    assert sim.condition("EngineReady") == ("False", "ForeignOwner")
    assert sim.condition("Ready") == ("False", "ForeignOwner")
    assert f"kubectl delete rre {name}" in sim.message("EngineReady")
    assert sim.names("Deployment") == []
    live = sim.cluster.find(RERANKER_ENGINE, NAMESPACE, name) or {}
    assert not live["metadata"].get("ownerReferences")
    # Nobody owns it, so it goes by itself; that the name is free is found at the next look.
    await sim.advance(61)
    await sim.advance(61)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_look_at_a_service_reads_its_own_engines_alone(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        sim.create_service(f"rank-{number}", model={"source": f"hf://org/model-{number}"})
    await sim.converge()
    assert len(sim.engines()) == 8
    looks: list[int] = []

    def plan(world: ServiceWorld) -> Plan:
        looks.append(len(world.engines))
        return plan_service(world)

    monkeypatch.setattr("reranker_operator.runtime.reconciler.plan_service", plan)
    await sim.resync()
    await sim.settle()
    assert looks == [1] * 8
    # Also while it is on its way from one to another.
    looks.clear()
    sim.edit_service("rank-0", engine={"maxBatchSize": 8})
    sim.edit_service("rank-1", model={"source": "hf://org/model-2"})
    await sim.converge()
    assert max(looks) == 2
    assert all(sim.condition("Ready", f"rank-{n}") == ("True", "Ready") for n in range(8))
    # Those of the former revisions are kept.
    assert len(sim.engines()) == 9
    sim.delete_service("rank-3")
    await sim.converge()
    assert len(sim.engines()) == 8
