"""A canary by route while the operator has no right to see the route, which goes on."""

from reranker_operator import names
from reranker_operator.api.meta import HTTP_ROUTE
from reranker_operator.errors import Forbidden

from .controllers import NAMESPACE
from .judging import address, busy, let, none, numbers, serving
from .simulation import Simulation

ROUTE = {"route": {"parentRefs": [{"name": "gate"}]}}
ROLLOUT = {
    "strategy": "canary", "canary": {"steps": [{"weight": 20, "seconds": 60}]},
    "progressDeadlineSeconds": 120,
}  # fmt: skip


async def _come_without_rights(sim: Simulation) -> None:
    """The operator starts anew."""
    for verb in ("list", "get", "apply"):
        error = Forbidden('httproutes is forbidden: User "x" cannot list resource')
        sim.cluster.refusals[verb, HTTP_ROUTE.kind] = error
    sim.restart_operator()
    sim.cache._store.shelves.pop(HTTP_ROUTE.kind)
    await sim.resync()
    await sim.settle()


def _shares(sim: Simulation) -> list[int | None]:
    route = sim.cluster.find(HTTP_ROUTE, NAMESPACE, "rank")
    assert route is not None
    return [backend.get("weight") for backend in route["spec"]["rules"][0]["backendRefs"]]


async def test_a_canary_waits_for_the_right_to_its_route(sim: Simulation) -> None:
    good = await serving(sim, replicas=4, rollout=ROLLOUT, expose=ROUTE)
    traffic = await busy(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 10)
    new = (sim.service().status.rollout or none()).revision
    assert _shares(sim) == [80, 20]
    await _come_without_rights(sim)
    await let(sim, 600)
    assert sim.service().status.failed == ()
    assert (address(sim), address(sim, "rank-preview"), _shares(sim)) == (good, new, [80, 20])
    assert numbers(sim) == {good: 4, new: 1}
    assert sim.condition("Progressing") == ("True", "Rolling")
    assert "the operator has no right to HTTPRoute rank" in sim.message("Progressing")

    # When it may look again, the revision has time: a weight that somebody changed is put right.
    sim.cluster.refusals.clear()
    route = sim.cluster.find(HTTP_ROUTE, NAMESPACE, "rank") or {}
    for backend in route["spec"]["rules"][0]["backendRefs"]:
        backend["weight"] = 50
    sim.cluster.edit(HTTP_ROUTE, NAMESPACE, "rank", {"spec": route["spec"]})
    await let(sim, 300)
    assert (sim.service().status.failed, numbers(sim)) == ((), {new: 4})
    assert (_shares(sim), sim.names("Service")) == ([None], ["rank"])
    assert traffic.sent.get("", 0) == 0


async def test_a_route_that_cannot_be_seen_leads_to_what_serves(sim: Simulation) -> None:
    good = await serving(sim, replicas=4, rollout=ROLLOUT, expose=ROUTE)
    traffic = await busy(sim)
    sim.edit_service(serving={"maxPassages": 99})
    await let(sim, 10)
    new = (sim.service().status.rollout or none()).revision
    await _come_without_rights(sim)
    sim.annotate(names.ABORT, new)
    await let(sim, 60)
    assert (numbers(sim), address(sim, "rank-preview")) == ({good: 4}, good)
    assert traffic.sent.get("", 0) == 0
    sim.cluster.refusals.clear()
    await let(sim, 130)
    assert (_shares(sim), sim.names("Service")) == ([None], ["rank"])


async def test_no_preview_is_made_for_a_route_that_cannot_be_seen(sim: Simulation) -> None:
    await serving(sim, rollout=ROLLOUT, expose=ROUTE)
    await _come_without_rights(sim)
    assert sim.names("Service") == ["rank"]
