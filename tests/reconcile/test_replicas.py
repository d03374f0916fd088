"""Who says how many pods there are: a manifest, `kubectl scale`, an HPA, and nobody."""

from typing import Any

import pytest

from reranker_operator.api.meta import DEPLOYMENT, RERANKER_SERVICE
from reranker_operator.errors import Forbidden

from .controllers import NAMESPACE
from .simulation import Simulation


def _asked(sim: Simulation) -> int:
    (entry,) = sim.cluster.select(DEPLOYMENT, NAMESPACE)
    return int(entry["spec"]["replicas"])


def _numbers(sim: Simulation) -> list[int]:
    """The numbers that the Deployment gets from now on, one after the other."""
    seen: list[int] = []

    def look(_: object = None) -> None:
        for entry in sim.cluster.select(DEPLOYMENT, NAMESPACE):
            if not seen or seen[-1] != entry["spec"]["replicas"]:
                seen.append(entry["spec"]["replicas"])

    sim.cluster.after_call = sim.after_step = look
    look()
    return seen


def _live(sim: Simulation) -> dict[str, Any]:
    found = sim.cluster.find(RERANKER_SERVICE, NAMESPACE, "rank")
    assert found is not None
    return found


async def test_an_hpa_beside_gitops_without_replicas(sim: Simulation) -> None:
    sim.apply_service()
    await sim.converge()
    scale = sim.service().status.scale
    assert scale is not None
    assert (_asked(sim), scale.replicas, scale.set_by) == (1, 1, None)
    numbers = _numbers(sim)
    sim.scale_service(4)
    await sim.converge()
    sim.apply_service(serving={"truncate": "NONE"})
    await sim.converge()
    sim.edit_service(serving={"maxPassages": 100})
    await sim.converge()
    assert sim.service().status.ready == "4/4"
    assert numbers == [1, 4]


@pytest.mark.parametrize("owner", ["gitops", "hpa"])
async def test_replicas_are_handed_over_without_a_jump(sim: Simulation, owner: str) -> None:
    """Taken out of the manifest, whose default is 1, before or after the HPA has set it."""
    sim.apply_service(replicas=3)
    await sim.converge()
    numbers = _numbers(sim)
    if owner == "hpa":
        sim.scale_service(5)
        await sim.converge()
    sim.apply_service()
    await sim.converge()
    # Written back, so that an HPA begins from it.
    assert _live(sim)["spec"]["replicas"] == (5 if owner == "hpa" else 3)
    assert sim.service().status.ready == ("5/5" if owner == "hpa" else "3/3")
    sim.restart_operator()
    await sim.resync()
    await sim.converge()
    sim.scale_service(6)
    await sim.converge()
    # And back to the manifest.
    sim.apply_service(replicas=2)
    await sim.converge()
    assert numbers == ([3, 5, 6, 2] if owner == "hpa" else [3, 6, 2])


async def test_a_right_that_is_missing_keeps_the_number_all_the_same(sim: Simulation) -> None:
    """The number can't be written back, and the moment is not forgotten."""
    sim.apply_service(replicas=3)
    await sim.converge()
    sim.cluster.refusals["scale", RERANKER_SERVICE.kind] = Forbidden("cannot patch scale")
    sim.apply_service()
    await sim.settle()
    assert (_asked(sim), sim.condition("Ready")) == (3, ("False", "Forbidden"))
    sim.cluster.refusals.clear()
    await sim.advance(60)
    await sim.converge()
    assert (_asked(sim), _live(sim)["spec"]["replicas"]) == (3, 3)
    assert sim.condition("Ready") == ("True", "Ready")


async def test_one_is_a_number_like_any_other(sim: Simulation) -> None:
    """Nobody owned the number, and none is recorded who sets it."""
    sim.apply_service()
    await sim.converge()
    numbers = _numbers(sim)
    for number in (4, 1, 0, 2):
        sim.scale_service(number)
        await sim.converge()
    assert numbers == [1, 4, 1, 0, 2]


async def test_a_number_that_nobody_owns_is_defended(sim: Simulation) -> None:
    sim.apply_service(replicas=3)
    await sim.converge()
    sim.apply_service()
    await sim.converge()
    (name,) = sim.names("Deployment")
    sim.cluster.edit(DEPLOYMENT, NAMESPACE, name, {"spec": {"replicas": 7}})
    await sim.converge()
    assert _asked(sim) == 3


async def test_without_managers_the_spec_is_followed(sim: Simulation) -> None:
    """They may have been removed from an object."""
    sim.apply_service(replicas=3)
    await sim.converge()
    sim.cluster.edit(RERANKER_SERVICE, NAMESPACE, "rank", {"metadata": {"managedFields": None}})
    sim.edit_service(serving={"maxPassages": 100})
    await sim.converge()
    assert _asked(sim) == 3


async def test_who_scales_a_deployment_itself_is_told_to_scale_the_service(
    sim: Simulation,
) -> None:
    sim.create_service()
    await sim.converge()
    (name,) = sim.names("Deployment")
    sim.cluster.scale_by(DEPLOYMENT, NAMESPACE, name, 5, "kubectl")
    await sim.converge()
    assert (_asked(sim), sim.condition("Progressing")) == (1, ("False", "Stable"))
    for _ in range(2):
        await sim.advance(15)
        sim.cluster.scale_by(DEPLOYMENT, NAMESPACE, name, 5, "kube-controller-manager")
        await sim.converge()
        assert _asked(sim) == 1
    assert sim.condition("Progressing") == ("False", "ReplicasContested")
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.message("Progressing") == (
        f"kube-controller-manager scales Deployment {name} to 5 again and again, and each time it "
        "is put back to 1; have it scale this RerankerService, in an HPA by scaleTargetRef"
    )
    assert [entry["reason"] for entry in sim.events()].count("ReplicasContested") == 1
    writes = len(sim.cluster.writes)
    await sim.resync()
    await sim.settle()
    assert len(sim.cluster.writes) == writes
    # It was given up.
    await sim.advance(600)
    await sim.resync()
    await sim.settle()
    assert sim.condition("Progressing") == ("False", "Stable")


async def test_scaled_by_the_service_the_deployment_is_no_contest(sim: Simulation) -> None:
    sim.create_service()
    await sim.converge()
    for number in (3, 0, 2):
        sim.scale_service(number, by="keda-operator")
        await sim.converge()
        scale = sim.service().status.scale
        assert scale is not None
        assert (_asked(sim), scale.set_by, scale.contest) == (number, "keda-operator", None)
