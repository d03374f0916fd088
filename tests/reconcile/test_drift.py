"""Whatever somebody does to an object of ours is undone by the event that tells of it."""

from collections.abc import Callable
from typing import Any

import pytest

from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import DEPLOYMENT, RERANKER_SERVICE, SERVICE
from reranker_operator.errors import Rejected
from reranker_operator.runtime.queue import Key

from .controllers import NAMESPACE
from .simulation import Simulation

KEY = Key(RERANKER_SERVICE.kind, NAMESPACE, "rank")


@pytest.fixture
async def serving(sim: Simulation) -> Simulation:
    sim.create_service(replicas=2)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    return sim


def _of_pod(**container: Any) -> Json:
    spec = {"containers": [{"name": "gateway", **container}]}
    return {"spec": {"template": {"spec": spec}}}


def _deployment(patch: Json) -> Callable[[Simulation], None]:
    def act(sim: Simulation) -> None:
        sim.cluster.meddle(DEPLOYMENT, NAMESPACE, sim.names("Deployment")[0], patch)

    return act


def _service(patch: Json) -> Callable[[Simulation], None]:
    return lambda sim: sim.cluster.meddle(SERVICE, NAMESPACE, "rank", patch)


DRIFT: dict[str, Callable[[Simulation], None]] = {
    "replicas": _deployment({"spec": {"replicas": 7}}),
    "variable changed": _deployment(_of_pod(env=[{"name": "RERANKER_TRUNCATE", "value": "END"}])),
    "variable added": _deployment(_of_pod(env=[{"name": "DEBUG", "value": "1"}])),
    "image": _deployment(_of_pod(image="mine:1")),
    "resources": _deployment(_of_pod(resources={"limits": {"memory": "9Gi"}})),
    "limit added": _deployment(_of_pod(resources={"limits": {"cpu": "1"}})),
    "container added": _deployment(
        {"spec": {"template": {"spec": {"containers": [{"name": "spy", "image": "x"}]}}}}
    ),
    "label changed": _deployment({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}),
    "label added": _deployment({"metadata": {"labels": {"team": "a"}}}),
    "our label": _deployment({"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}),
    "deployment deleted": lambda sim: sim.cluster.remove(
        DEPLOYMENT, NAMESPACE, sim.names("Deployment")[0]
    ),
    "port changed": _service({"spec": {"ports": [{"port": 8000, "targetPort": "metrics"}]}}),
    "port added": _service({"spec": {"ports": [{"name": "x", "port": 1}]}}),
    "service deleted": lambda sim: sim.cluster.remove(SERVICE, NAMESPACE, "rank"),
}


@pytest.mark.parametrize("name", DRIFT)
async def test_it_is_repaired_and_left_alone_then(serving: Simulation, name: str) -> None:
    good = serving.picture()
    DRIFT[name](serving)
    await serving.settle()
    assert _without_notes(serving.picture()) == good
    before = len(serving.cluster.calls)
    serving.queue.add(KEY)
    await serving.settle()
    assert serving.cluster.calls[before:] == []


def _without_notes(picture: dict[str, Any]) -> dict[str, Any]:
    """The fake keeps the names of those who edited, also when nothing of theirs is left."""
    for entry in picture.values():
        if isinstance(entry, dict):
            entry["metadata"].pop("managedFields", None)
    return picture


async def test_nobody_is_fought_for_ever(serving: Simulation) -> None:
    """Another controller puts its label back each time: after three times it may stay."""
    add = DRIFT["label added"]
    for number in range(5):
        add(serving)
        await serving.settle()
        (name,) = serving.names("Deployment")
        live = serving.cluster.find(DEPLOYMENT, NAMESPACE, name) or {}
        assert ("team" in live["metadata"]["labels"]) is (number >= 3)
    DRIFT["image"](serving)
    await serving.settle()
    image = (serving.selected() or {})["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == serving.defaults.gateway_image, "what is ours is put right all the same"


async def test_what_can_not_be_removed_stops_nothing(serving: Simulation) -> None:
    serving.cluster.refusals["json_patch", "Deployment"] = Rejected("immutable")
    DRIFT["label added"](serving)
    serving.edit_service(replicas=3)
    await serving.converge()
    assert serving.service().status.ready == "3/3"
    assert not serving.errors


async def test_what_a_webhook_injects_stays(serving: Simulation) -> None:
    """It has no name in managedFields."""
    (name,) = serving.names("Deployment")
    live = serving.cluster.find(DEPLOYMENT, NAMESPACE, name) or {}
    containers = live["spec"]["template"]["spec"]["containers"]
    injected = [*containers, {"name": "mesh", "image": "mesh:1"}]
    patch = {"spec": {"template": {"spec": {"containers": injected}}}}
    serving.cluster.edit(DEPLOYMENT, NAMESPACE, name, patch)
    before = len(serving.cluster.writes)
    await serving.settle()
    assert serving.cluster.writes[before:] == []
    after = serving.cluster.find(DEPLOYMENT, NAMESPACE, name) or {}
    assert after["spec"]["template"]["spec"]["containers"] == injected


async def test_a_value_that_the_server_rewrites_is_applied_once(serving: Simulation) -> None:
    (name,) = serving.names("Deployment")
    apply = serving.cluster.apply

    async def rewrite(manifest: Json, manager: str) -> Json:
        """As with `1024Mi`, which comes back as `1Gi`."""
        if manifest["kind"] == DEPLOYMENT.kind:
            spec = manifest["spec"] | {"progressDeadlineSeconds": 601}
            manifest = manifest | {"spec": spec}
        return await apply(manifest, manager)

    serving.cluster.apply = rewrite  # type: ignore[method-assign]
    rewritten = {"spec": {"progressDeadlineSeconds": 601}}
    serving.cluster.edit(DEPLOYMENT, NAMESPACE, name, rewritten)
    before = len(serving.cluster.writes)
    for _ in range(3):
        serving.queue.add(KEY)
        await serving.settle()
    assert len(serving.cluster.writes) == before + 1


async def test_a_missed_deletion_is_found_by_the_next_list(serving: Simulation) -> None:
    """The watch was cut, and never says what vanished."""
    good = serving.picture()
    DRIFT["deployment deleted"](serving)
    serving.cluster.changed.clear()
    await serving.settle()
    assert serving.names("Deployment") == []
    await serving.resync()
    await serving.settle()
    assert serving.picture() == good


async def test_a_look_at_a_service_of_which_all_is_known_makes_no_call(
    serving: Simulation,
) -> None:
    before = len(serving.cluster.calls)
    for kind, names in (("RerankerService", ["rank"]), ("RerankerEngine", None)):
        for name in names or serving.names(kind):
            serving.queue.add(Key(kind, NAMESPACE, name))
    await serving.settle()
    assert serving.cluster.calls[before:] == []


@pytest.mark.parametrize("model", ["gopher://x", "hf://org/a"])
async def test_a_deployment_that_lost_our_label_is_not_forgotten(
    sim: Simulation, model: str
) -> None:
    """The watch selects by it, so the Deployment vanishes from sight."""
    sim.create_service()
    await sim.converge()
    sim.edit_service(model={"source": model})
    await sim.reconcile_pending()
    (name, *_) = sim.names("Deployment")
    change = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}
    sim.cluster.meddle(DEPLOYMENT, NAMESPACE, name, change)
    await sim.converge()
    (left,) = sim.cluster.select(DEPLOYMENT, NAMESPACE)
    assert left["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "reranker-operator"
    assert sim.engine_of(left) in {engine.metadata.name for engine in sim.engines()}
