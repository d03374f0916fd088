"""How pods are replaced: by surge, without room for more, and not at all while paused."""

from collections.abc import Callable
from typing import Any

import pytest

from reranker_contracts import StageReason
from reranker_operator.api.meta import DEPLOYMENT, POD, RERANKER_ENGINE, SERVICE
from reranker_operator.render.defaults import Defaults

from .controllers import NAMESPACE, Fault
from .simulation import Simulation, revision_of

Watch = Callable[[Simulation], None]
OTHER = {"source": "hf://org/other"}
NO_SURGE = {"strategy": "noSurge", "bakeSeconds": 0}
PAUSED = {"paused": True}
NEWER = Defaults("builder:2", "gateway:2", "triton:2", "triton:2-gpu")


async def _serving(sim: Simulation, **spec: Any) -> None:
    sim.create_service(**spec)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def _upgrade(sim: Simulation) -> None:
    """A new operator, whose builder makes other engines."""
    sim.toolchain = sim.toolchain.model_copy(update={"recipe": 2})
    sim.defaults = NEWER
    sim.restart_operator()
    await sim.resync()
    await sim.converge()


def _pods(sim: Simulation) -> list[Any]:
    labels = {"app.kubernetes.io/component": "serving"}
    return list(sim.cluster.select(POD, NAMESPACE, labels))


def _ready(sim: Simulation) -> int:
    """Pods that run and that the address leads to."""
    address = sim.cluster.find(SERVICE, NAMESPACE, "rank")
    assert address is not None
    pods = sim.cluster.select(POD, NAMESPACE, address["spec"]["selector"])
    return sum(
        pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        for pod in pods
    )


def _watch(sim: Simulation, *, at_most: int, at_least: int) -> None:
    def check(_: object = None) -> None:
        asked = [e["spec"]["replicas"] for e in sim.cluster.select(DEPLOYMENT, NAMESPACE)]
        assert sum(asked) <= at_most, asked
        assert len(_pods(sim)) <= at_most
        assert _ready(sim) >= at_least

    sim.cluster.after_call = sim.after_step = check


# No surge.


@pytest.mark.parametrize("replicas", [1, 3])
async def test_no_surge_never_has_more_pods_and_misses_one_at_most(
    sim: Simulation, replicas: int
) -> None:
    await _serving(sim, replicas=replicas, rollout=NO_SURGE)
    old, sim.pods_linger = sim.service().status.revision, True
    _watch(sim, at_most=replicas, at_least=replicas - 1)
    sim.edit_service(serving={"maxPassages": 100})
    for turn in range(replicas):
        await sim.settle()
        # It waits for the pod that drains, which still holds its GPU.
        assert len(_pods(sim)) == replicas
        assert sim.service().status.revision == old
        assert sim.condition("Progressing") == ("True", "Rolling")
        waits = "gets its first pod when one of the former revision is gone"
        assert (waits in sim.message("Progressing")) == (turn == 0)
        sim.let_pods_go()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert (sim.service().status.ready, _ready(sim)) == (f"{replicas}/{replicas}", replicas)
    assert sim.names("Deployment") == [f"rank-{sim.service().status.revision}"]
    assert sim.service().status.revision != old
    assert revision_of(sim.selected() or {}) == sim.service().status.revision


async def test_no_surge_stops_at_the_first_pod_that_does_not_start(sim: Simulation) -> None:
    await _serving(sim, replicas=3, rollout=NO_SURGE | {"autoRollback": False})
    before = sim.picture()
    _watch(sim, at_most=3, at_least=2)
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 100})
    await sim.converge()
    assert sim.service().status.ready == "2/3"
    assert sim.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    # More pods are wanted: what works gets them.
    _watch(sim, at_most=5, at_least=2)
    sim.edit_service(replicas=5)
    await sim.settle()
    old = sim.cluster.find(DEPLOYMENT, NAMESPACE, f"rank-{sim.service().status.revision}")
    assert old is not None
    assert old["spec"]["replicas"] == 4
    # And back again: the half-made revision goes as gently as it came.
    sim.pods_start = True
    sim.edit_service(replicas=3, serving={"maxPassages": None})
    await sim.converge()
    after = sim.picture()
    for picture in (before, after):
        picture.pop("RerankerService/rank")
    assert after == before


async def test_more_pods_without_surge_do_not_wait_for_one_that_hangs(sim: Simulation) -> None:
    """No rollout is under way: its node may be lost, and others are free."""
    await _serving(sim, replicas=1, rollout=NO_SURGE)
    sim.pods_linger = True
    sim.edit_service(replicas=0)
    await sim.converge()
    assert len(_pods(sim)) == 1
    sim.edit_service(replicas=1)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_newer_wish_without_surge_goes_on_from_where_things_are(sim: Simulation) -> None:
    await _serving(sim, replicas=3, rollout=NO_SURGE)
    sim.pods_linger = True
    _watch(sim, at_most=3, at_least=2)
    sim.edit_service(serving={"maxPassages": 100})
    await sim.settle()
    sim.let_pods_go()
    await sim.settle()
    sim.edit_service(serving={"maxPassages": 200})
    for _ in range(5):
        await sim.settle()
        sim.let_pods_go()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert len(sim.names("Deployment")) == 1


@pytest.mark.parametrize("first", ["surge", "noSurge"])
async def test_the_strategy_may_change_in_between(sim: Simulation, first: str) -> None:
    await _serving(sim, replicas=2, rollout={"strategy": first})
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 100})
    await sim.settle()
    sim.edit_service(rollout={"strategy": "noSurge" if first == "surge" else "surge"})
    await sim.settle()
    assert _ready(sim) == 1
    sim.pods_start = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert (len(sim.names("Deployment")), _ready(sim)) == (1, 2)


async def test_no_surge_goes_on_after_the_address_and_the_status_were_lost(
    sim: Simulation,
) -> None:
    await _serving(sim, replicas=2, rollout=NO_SURGE)
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 100})
    await sim.settle()
    sim.cluster.remove(SERVICE, NAMESPACE, "rank")
    sim.pods_start = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert len(sim.names("Deployment")) == 1


# Paused.


async def test_a_paused_service_holds_an_upgrade_of_the_operator_back(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    await _serving(sim)
    sim.edit_service(rollout=PAUSED)
    await sim.converge()
    before = sim.service().status
    pods = [pod["metadata"]["name"] for pod in _pods(sim)]
    traffic_is_served(sim)
    await _upgrade(sim)
    status = sim.service().status
    assert [pod["metadata"]["name"] for pod in _pods(sim)] == pods
    assert (status.revision, status.engine) == (before.revision, before.engine)
    assert len(sim.engines()) == 1
    assert [line.partition(" → ")[0] for line in status.pending_changes] == [
        f"engine: {before.engine}", "image verify: gateway:1", "image triton: triton:1",
        "image gateway: gateway:1",
    ]  # fmt: skip
    assert status.pending_changes[0].endswith(" (not built)")
    # The spec is carried out; that more could be had is told by `Progressing`.
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("Progressing") == ("False", "Paused")
    assert "image gateway: gateway:1 → gateway:2" in sim.message("Progressing")
    assert status.stage == "Paused"
    writes = len(sim.cluster.writes)
    await sim.resync()
    await sim.converge()
    assert len(sim.cluster.writes) == writes

    sim.edit_service(rollout={"paused": False})
    await sim.converge()
    after = sim.service().status
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("Progressing") == ("False", "Stable")
    assert (after.revision != before.revision, after.pending_changes) == (True, ())
    assert after.history[0].why.startswith("operator, source or reference: engine: ")


async def test_a_paused_service_is_still_looked_after(sim: Simulation) -> None:
    await _serving(sim, replicas=2)
    sim.edit_service(rollout=PAUSED)
    await sim.converge()
    await _upgrade(sim)
    good = sim.picture()
    (name,) = sim.names("Deployment")
    # By others: the image of a revision that this operator can't render any more, and the address.
    template = {"template": {"spec": {"priorityClassName": "x", "volumes": []}}}
    sim.cluster.edit(DEPLOYMENT, NAMESPACE, name, {"spec": {"replicas": 7} | template})
    sim.cluster.edit(SERVICE, NAMESPACE, "rank", {"spec": {"type": "NodePort"}})
    sim.cluster.remove(POD, NAMESPACE, _pods(sim)[0]["metadata"]["name"])
    await sim.converge()
    healed = sim.picture()
    extra = healed[f"Deployment/{name}"]["spec"]["template"]["spec"].pop("priorityClassName")
    assert (extra, healed) == ("x", good)
    sim.edit_service(replicas=3)
    await sim.converge()
    assert (sim.service().status.ready, _ready(sim)) == ("3/3", 3)
    sim.cluster.remove(SERVICE, NAMESPACE, "rank")
    await sim.converge()
    assert _ready(sim) == 3
    # Files of the engine that serves, which is no longer the one that would be built today.
    (engine,) = sim.engines()
    sim.damaged = {f"engines/{engine.spec.digest}"}
    sim.cluster.remove(POD, NAMESPACE, _pods(sim)[0]["metadata"]["name"])
    await sim.advance(1)
    await sim.converge()
    assert (sim.service().status.ready, sim.damaged) == ("3/3", set())
    assert sim.service().status.pending_changes


async def test_a_paused_edit_is_not_ready_and_tells_what_waits(sim: Simulation) -> None:
    await _serving(sim)
    revision = sim.service().status.revision
    sim.edit_service(rollout=PAUSED, serving={"maxPassages": 100})
    await sim.converge()
    assert sim.condition("Ready") == ("False", "Paused")
    assert sim.condition("Serving") == ("True", "Available")
    changes = ("gateway.env.RERANKER_MAX_PASSAGES: 512 → 100",)
    assert sim.service().status.pending_changes == changes
    assert sim.service().status.revision == revision
    sim.edit_service(serving={"maxPassages": 512})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.condition("Progressing") == ("False", "Stable")
    # A source that can't be had is a failure, paused or not.
    sim.faults["resolve"] = [Fault("refused", StageReason.UNSAFE_WEIGHTS)]
    sim.edit_service(model=OTHER)
    await sim.converge()
    assert sim.condition("Ready") == ("False", "UnsafeWeights")


async def test_a_service_that_is_made_paused_starts_nothing(sim: Simulation) -> None:
    sim.create_service(rollout=PAUSED)
    await sim.converge()
    assert (sim.names("Deployment"), sim.engines(), sim.names("Service")) == ([], [], [])
    assert sim.condition("ModelResolved") == ("True", "Resolved")
    assert sim.condition("Ready") == ("False", "Paused")
    sim.edit_service(rollout={"paused": False})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


@pytest.mark.parametrize("strategy", ["surge", "noSurge"])
async def test_a_rollout_stands_still_while_paused(sim: Simulation, strategy: str) -> None:
    await _serving(sim, replicas=3, rollout={"strategy": strategy})
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 100})
    await sim.settle()
    sim.edit_service(rollout=PAUSED)
    await sim.settle()
    pods = [pod["metadata"]["name"] for pod in _pods(sim)]
    sim.pods_start = True
    await sim.converge()
    await _upgrade(sim)
    assert [pod["metadata"]["name"] for pod in _pods(sim)] == pods
    assert sim.condition("Ready") == ("False", "Paused")
    sim.edit_service(rollout={"paused": False})
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert len(sim.names("Deployment")) == 1


async def test_a_paused_service_gets_its_deployment_back_only_as_it_was(sim: Simulation) -> None:
    await _serving(sim)
    good = sim.picture()
    sim.edit_service(rollout=PAUSED)
    await sim.converge()
    (name,) = sim.names("Deployment")
    sim.cluster.remove(DEPLOYMENT, NAMESPACE, name)
    await sim.converge()
    assert sim.picture()[f"Deployment/{name}"] == good[f"Deployment/{name}"]
    await _upgrade(sim)
    sim.cluster.remove(DEPLOYMENT, NAMESPACE, name)
    await sim.converge()
    assert sim.names("Deployment") == []
    assert sim.condition("Ready") == ("False", "Paused")
    assert "set spec.rollout.paused to false to start it" in sim.message("Serving")


async def test_an_engine_that_serves_is_made_again_while_paused(sim: Simulation) -> None:
    await _serving(sim)
    sim.edit_service(rollout=PAUSED)
    await sim.converge()
    (engine,) = sim.engines()
    sim.cluster.remove(RERANKER_ENGINE, NAMESPACE, engine.metadata.name)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.engines()[0].metadata.uid != engine.metadata.uid


# The deadline and the record.


async def test_a_revision_that_does_not_start_in_time_is_told_and_tried_on(
    sim: Simulation, traffic_is_served: Watch
) -> None:
    await _serving(sim)
    traffic_is_served(sim)
    sim.pods_start = False
    rollout = {"progressDeadlineSeconds": 120, "autoRollback": False}
    sim.edit_service(serving={"maxPassages": 100}, rollout=rollout)
    await sim.settle()
    assert sim.condition("Progressing") == ("True", "Rolling")
    assert sim.next_wake == 120
    sim.restart_operator()
    await sim.advance(60)
    await sim.resync()
    await sim.settle()
    assert sim.next_wake == 60
    await sim.advance(60)
    assert sim.condition("Progressing") == ("False", "ProgressDeadlineExceeded")
    assert sim.condition("Ready") == ("False", "ProgressDeadlineExceeded")
    revision = sim.service().status.revision
    assert f"with 0 of 1 pods ready, and revision {revision} serves on" in sim.message("Ready")
    assert sim.next_wake is None
    events = [entry["reason"] for entry in sim.events()]
    assert events.count("ProgressDeadlineExceeded") == 1
    sim.pods_start = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")


async def test_the_history_says_what_served_when_and_why(sim: Simulation) -> None:
    await _serving(sim, rollout={"history": 1})
    first = sim.service().status.history
    assert [(entry.why, entry.engine) for entry in first] == [
        ("first start", sim.engines()[0].metadata.name)
    ]
    await sim.advance(60)
    sim.edit_service(serving={"maxPassages": 100})
    await sim.converge()
    sim.edit_service(replicas=2)
    await sim.converge()
    newest, oldest = sim.service().status.history
    assert oldest == first[0]
    assert (newest.revision, newest.time) == (sim.service().status.revision, sim.now)
    assert newest.why == "spec: gateway.env.RERANKER_MAX_PASSAGES: 512 → 100"
    sim.edit_service(serving={"maxPassages": 512})
    await sim.converge()
    again, before = sim.service().status.history
    assert (again.revision, before) == (oldest.revision, newest)
    sim.edit_service(rollout={"history": 0})
    await sim.converge()
    assert sim.service().status.history == (again,)


async def test_a_copy_with_our_labels_is_left_alone(sim: Simulation) -> None:
    """Somebody looks into something; nobody but its maker deletes it."""
    sim.create_service()
    await sim.converge()
    (ours,) = sim.cluster.select(DEPLOYMENT, NAMESPACE)
    copy = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "mine", "namespace": NAMESPACE, "labels": ours["metadata"]["labels"]},
        "spec": ours["spec"],
    }
    sim.cluster.put(copy)
    await sim.resync()
    sim.edit_service(serving={"maxPassages": 100})
    await sim.converge()
    assert "mine" in sim.names("Deployment")
    assert sim.condition("Ready") == ("True", "Ready")
