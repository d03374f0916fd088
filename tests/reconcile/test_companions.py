"""Objects beside the pods: there when asked for, gone when not, never somebody else's."""

from typing import Any

import pytest

from reranker_operator import names
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import (
    BUDGET,
    GRPC_ROUTE,
    HTTP_ROUTE,
    INGRESS,
    NETWORK_POLICY,
    OPTIONAL,
    RESOURCES,
    SERVICE,
    SERVICE_MONITOR,
    Resource,
)
from reranker_operator.errors import Forbidden, Rejected

from .controllers import NAMESPACE
from .fake_cluster import Call
from .simulation import Simulation

INSIDE = "http://rank.shop.svc:8000"
HOST: Json = {"ingress": {"hosts": ["rank.example.com"], "tlsSecret": "rank-tls"}}
ROUTE: Json = {"route": {"parentRefs": [{"name": "edge"}], "hostnames": ["rank.example.com"]}}
BALANCER: Json = {"service": {"type": "LoadBalancer", "port": 80}}
MONITOR: Json = {"serviceMonitor": {"interval": "15s"}}
EVERYTHING: Json = {
    "replicas": 2,
    "expose": HOST | ROUTE | BALANCER,
    "networkPolicy": {
        "enabled": True,
        "clients": [{"podSelector": {"matchLabels": {}}}],
        "builderEgress": [],
    },
    "monitoring": MONITOR,
}


async def _serving(sim: Simulation, **spec: Any) -> None:
    sim.create_service(**spec)
    await sim.settle()
    assert sim.condition("Serving") == ("True", "Available")


def _beside(sim: Simulation) -> set[str]:
    """Titles of all that is there beside Deployment and Service."""
    kinds = (INGRESS, HTTP_ROUTE, GRPC_ROUTE, BUDGET, NETWORK_POLICY, SERVICE_MONITOR)
    found = {f"{kind.kind}/{name}" for kind in kinds for name in sim.names(kind.kind)}
    return found | {f"Service/{name}" for name in sim.names("Service") if name != "rank"}


def _find(sim: Simulation, resource: Resource, name: str = "rank") -> Json:
    found = sim.cluster.find(resource, NAMESPACE, name)
    assert found is not None
    return found


def _accept(
    sim: Simulation, status: str = "True", kind: Resource = HTTP_ROUTE, **said: str
) -> None:
    """What a Gateway's controller writes."""
    generation = _find(sim, kind)["metadata"]["generation"]
    verdict = {"type": "Accepted", "status": status, "observedGeneration": generation} | said
    patch = {"status": {"parents": [{"parentRef": {"name": "edge"}, "conditions": [verdict]}]}}
    sim.cluster.edit(kind, NAMESPACE, "rank", patch)


def _balance(sim: Simulation, address: str) -> None:
    """What a cloud's controller writes."""
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}
    sim.cluster.edit(SERVICE, NAMESPACE, "rank-external", patch)


async def test_an_ingress_without_an_address_is_told_and_nothing_amiss(sim: Simulation) -> None:
    await _serving(sim, expose=HOST)
    assert sim.condition("Integrated") == ("True", "Integrated")
    assert "no controller has told an address of Ingress rank" in sim.message("Integrated")
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}
    sim.cluster.edit(INGRESS, NAMESPACE, "rank", patch)
    await sim.settle()
    assert sim.message("Integrated") == "made beside the pods: Ingress rank"


async def test_a_plain_service_has_nothing_beside_it(sim: Simulation) -> None:
    await _serving(sim)
    assert _beside(sim) == set()
    assert sim.condition("Integrated") == ("True", "Integrated")
    status = sim.service().status
    assert (status.url, status.cluster_url) == (INSIDE, INSIDE)


async def test_everything_appears_rests_and_goes_away(sim: Simulation) -> None:
    await _serving(sim, **EVERYTHING)
    _accept(sim)
    _balance(sim, "203.0.113.7")
    await sim.converge()
    assert _beside(sim) == {
        "Ingress/rank", "HTTPRoute/rank", "Service/rank-external", "PodDisruptionBudget/rank",
        "NetworkPolicy/rank", "NetworkPolicy/rank-resolve", "NetworkPolicy/rank-build",
        "ServiceMonitor/rank",
    }  # fmt: skip
    assert sim.condition("Ready") == ("True", "Ready")

    before = len(sim.cluster.writes)
    sim.restart_operator()
    await sim.resync()
    await sim.settle()
    assert sim.cluster.writes[before:] == []

    sim.edit_service(expose=None, networkPolicy=None, monitoring=None, replicas=1)
    await sim.converge()
    assert _beside(sim) == set()
    assert sim.condition("Ready") == ("True", "Ready")
    assert not sim.errors


async def test_deleting_the_service_takes_everything_along(sim: Simulation) -> None:
    await _serving(sim, **EVERYTHING)
    sim.delete_service()
    await sim.converge()
    assert _beside(sim) == set()


async def test_changes_arrive_and_drift_is_repaired(sim: Simulation) -> None:
    await _serving(sim, **EVERYTHING)
    _accept(sim)
    _balance(sim, "203.0.113.7")
    sim.edit_service(expose={"ingress": {"hosts": ["other.example.com"]}})
    await sim.converge()
    assert _find(sim, INGRESS)["spec"]["rules"][0]["host"] == "other.example.com"
    good = sim.picture()

    spoiled = {
        HTTP_ROUTE: {"spec": {"parentRefs": [{"name": "other"}]}},
        BUDGET: {"spec": {"maxUnavailable": 0}},
        NETWORK_POLICY: {"spec": {"policyTypes": ["Ingress"]}},
        SERVICE_MONITOR: {"spec": {"endpoints": []}},
    }
    for resource, patch in spoiled.items():
        sim.cluster.edit(resource, NAMESPACE, "rank", patch)
    sim.cluster.remove(INGRESS, NAMESPACE, "rank")
    sim.cluster.edit(SERVICE, NAMESPACE, "rank-external", {"spec": {"selector": {"app": "x"}}})
    await sim.settle()
    _accept(sim)
    await sim.converge()
    assert sim.picture() == good


async def test_revisions_that_share_the_traffic_share_the_budget(sim: Simulation) -> None:
    """Without surge the pods of both count, until the new one is alone."""
    await _serving(sim, replicas=3, rollout={"strategy": "noSurge"}, expose=BALANCER)
    _balance(sim, "203.0.113.7")
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 64})
    await sim.settle()
    shared = _find(sim, SERVICE)["spec"]["selector"]
    assert names.REVISION_LABEL not in shared
    assert _find(sim, BUDGET)["spec"]["selector"]["matchLabels"] == shared
    assert _find(sim, SERVICE, "rank-external")["spec"]["selector"] == shared
    sim.pods_start = True
    await sim.converge()
    alone = _find(sim, SERVICE)["spec"]["selector"]
    assert alone[names.REVISION_LABEL] == sim.service().status.revision
    assert _find(sim, BUDGET)["spec"]["selector"]["matchLabels"] == alone


async def test_the_budget_counts_pods_that_nobody_asks_for_any_more(sim: Simulation) -> None:
    """`replicas` was left to an HPA: the default in the spec is nobody's wish."""
    sim.apply_service(replicas=3)
    await sim.converge()
    seen = []
    sim.cluster.after_call = lambda _: seen.append(_beside(sim))
    sim.apply_service()
    assert sim.service().spec.replicas == 1
    await sim.converge()
    assert seen
    assert all(beside == {"PodDisruptionBudget/rank"} for beside in seen)


async def test_budget_and_outside_follow_the_traffic(sim: Simulation) -> None:
    """A revision that only starts is not counted, and gets no requests."""
    await _serving(sim, replicas=3, expose=BALANCER)
    _balance(sim, "203.0.113.7")
    old = _find(sim, SERVICE)["spec"]["selector"]
    sim.pods_start = False
    sim.edit_service(serving={"maxPassages": 100})
    await sim.settle()
    assert _find(sim, BUDGET)["spec"]["selector"]["matchLabels"] == old
    sim.pods_start = True
    await sim.settle()
    new = _find(sim, SERVICE)["spec"]["selector"]
    assert new != old
    assert _find(sim, BUDGET)["spec"]["selector"]["matchLabels"] == new
    assert _find(sim, SERVICE, "rank-external")["spec"]["selector"] == new


async def test_another_address_moves_no_pod(sim: Simulation) -> None:
    await _serving(sim)
    revision = sim.service().status.revision
    sim.held = {"compile"}
    sim.edit_service(expose=HOST, disruption={"maxUnavailable": 1})
    await sim.converge()
    assert sim.service().status.revision == revision
    assert sim.condition("Ready") == ("True", "Ready")


async def test_the_address_outside_is_told_once_it_is_there(sim: Simulation) -> None:
    await _serving(sim, expose=BALANCER)
    assert sim.condition("Integrated") == ("False", "AddressPending")
    assert sim.service().status.url == INSIDE
    _balance(sim, "203.0.113.7")
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.service().status.url == "http://203.0.113.7:80"

    sim.edit_service(expose=ROUTE)
    await sim.settle()
    assert sim.condition("Integrated") == ("False", "AddressPending")
    assert "shop/edge" in sim.message("Integrated")
    _accept(sim, "False", message="no listener allows this namespace")
    await sim.settle()
    assert sim.condition("Integrated") == ("False", "RouteRefused")
    assert "no listener allows this namespace; correct" in sim.message("Integrated")
    assert sim.condition("Serving") == ("True", "Available")
    _accept(sim)
    await sim.converge()
    status = sim.service().status
    assert (status.url, status.cluster_url) == ("https://rank.example.com", INSIDE)


async def test_another_class_makes_the_load_balancer_anew(sim: Simulation) -> None:
    await _serving(sim, expose=BALANCER)
    first = _find(sim, SERVICE, "rank-external")["metadata"]["uid"]
    inside = _find(sim, SERVICE)["metadata"]["uid"]
    sim.edit_service(expose={"service": {"loadBalancerClass": "example.com/internal"}})
    await sim.settle()
    made = _find(sim, SERVICE, "rank-external")
    assert made["spec"]["loadBalancerClass"] == "example.com/internal"
    assert made["metadata"]["uid"] != first
    assert _find(sim, SERVICE)["metadata"]["uid"] == inside


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        (INGRESS, "rank"),
        (HTTP_ROUTE, "rank"),
        (BUDGET, "rank"),
        (NETWORK_POLICY, "rank-build"),
        (SERVICE_MONITOR, "rank"),
        (SERVICE, "rank-external"),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
async def test_what_belongs_to_others_is_left_alone(
    sim: Simulation, resource: Resource, name: str, labelled: bool
) -> None:
    """Also when it carries our labels; the rest is made, and a free name is noticed."""
    labels = {"app.kubernetes.io/managed-by": "reranker-operator", "reranker.dev/service": "rank"}
    owner = {"kind": "Deployment", "name": "theirs", "uid": "uid-theirs"}
    theirs = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "ownerReferences": [owner]}
        | ({"labels": labels} if labelled else {}),
        "spec": {"theirs": True},
    }
    sim.garbage_is_collected = False
    sim.cluster.put(theirs)
    await _serving(sim, **EVERYTHING)
    assert len(_beside(sim)) == 8
    assert _find(sim, resource, name) == theirs
    assert sim.condition("Integrated") == ("False", "ForeignOwner")
    assert f"{resource.kind} {name} exists and belongs to Deployment theirs" in sim.message("Ready")

    sim.edit_service(expose=None, networkPolicy=None, monitoring=None, replicas=1)
    await sim.settle()
    assert _beside(sim) == {f"{resource.kind}/{name}"}
    assert sim.condition("Ready") == ("True", "Ready")

    sim.edit_service(**EVERYTHING)
    sim.cluster.remove(resource, NAMESPACE, name)
    await sim.advance(61)
    assert _find(sim, resource, name) != theirs
    assert sim.condition("Integrated")[1] == "AddressPending"


async def test_a_former_owner_of_the_name_is_waited_for(sim: Simulation) -> None:
    await _serving(sim, expose=HOST)
    sim.garbage_is_collected = False
    sim.delete_service()
    sim.create_service(expose=HOST)
    await sim.reconcile_pending()
    assert sim.condition("Integrated")[0] != "True"
    sim.garbage_is_collected = True
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    (owner,) = _find(sim, INGRESS)["metadata"]["ownerReferences"]
    assert owner["uid"] == sim.service().metadata.uid


async def test_a_missing_kind_is_waited_for_and_noticed(sim: Simulation) -> None:
    sim.cluster.absent = {"HTTPRoute", "ServiceMonitor"}
    await _serving(sim, monitoring=MONITOR, expose=ROUTE)
    assert sim.condition("Integrated") == ("False", "KindMissing")
    assert sim.condition("Ready") == ("False", "KindMissing")
    assert "spec.expose.route needs the kind HTTPRoute" in sim.message("Ready")
    sim.edit_service(expose=None)
    await sim.settle()
    for word in ("spec.monitoring.serviceMonitor", "monitoring.coreos.com/v1", "install"):
        assert word in sim.message("Ready")
    assert sim.condition("Serving") == ("True", "Available")

    sim.cluster.absent = {"HTTPRoute"}
    await sim.advance(61)
    assert sim.names("ServiceMonitor") == ["rank"]
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")

    sim.edit_service(expose=ROUTE)
    await sim.settle()
    assert sim.condition("Integrated") == ("False", "KindMissing")
    sim.cluster.absent = set()
    await sim.resync()
    await sim.settle()
    assert sim.names("HTTPRoute") == ["rank"]


async def test_a_kind_that_may_not_be_read_is_told_to_those_who_ask_for_it(
    sim: Simulation,
) -> None:
    error = Forbidden('servicemonitors is forbidden: User "x" cannot list resource')
    sim.cluster.refusals["list", SERVICE_MONITOR.kind] = error
    sim.cache._store.shelves.pop(SERVICE_MONITOR.kind)
    sim.create_service("plain")
    await _serving(sim, monitoring=MONITOR)
    assert sim.condition("Ready", "plain") == ("True", "Ready")
    assert sim.condition("Serving") == ("True", "Available")
    for kind in ("Integrated", "Ready"):
        assert sim.condition(kind) == ("False", "Forbidden")
    assert "spec.monitoring.serviceMonitor needs the kind" in sim.message("Ready")
    assert "has no right to" in sim.message("Ready")
    # Once in a while is enough for all of them together.
    before = len(sim.cluster.calls)
    await sim.resync()
    await sim.settle()
    asked = [call.kind for call in sim.cluster.calls[before:] if call.verb == "list"]
    assert SERVICE_MONITOR.kind not in asked

    sim.cluster.refusals.clear()
    await sim.advance(61)
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert sim.names("ServiceMonitor") == ["rank"]


async def test_a_kind_that_goes_away_holds_nothing_up(sim: Simulation) -> None:
    await _serving(sim, monitoring=MONITOR)
    sim.cluster.remove(SERVICE_MONITOR, NAMESPACE, "rank")
    sim.cluster.absent = {"ServiceMonitor"}
    sim.edit_service(replicas=2)
    await sim.settle()
    assert sim.service().status.ready == "2/2"
    assert sim.condition("Integrated") == ("False", "KindMissing")
    assert not sim.errors


async def test_many_that_wait_ask_no_more_often_than_one(sim: Simulation) -> None:
    sim.cluster.absent = {"ServiceMonitor"}
    for number in range(5):
        sim.create_service(f"rank-{number}", monitoring=MONITOR)
    await sim.settle()
    for _ in range(3):
        before = len(sim.cluster.calls)
        await sim.advance(61)
        asked = [call for call in sim.cluster.calls[before:] if call.verb == "discover"]
        assert len(asked) == len(OPTIONAL)


async def test_policies_are_there_before_the_pods_they_are_for(sim: Simulation) -> None:
    at: dict[str, int] = {}

    def note(call: Call) -> None:
        if call.writes:
            at.setdefault(f"{call.kind}/{call.name}", len(at))

    sim.cluster.after_call = note
    await _serving(sim, networkPolicy={"enabled": True})
    for policy, pods in (
        ("rank-resolve", "Job/rank-resolve-"),
        ("rank-build", "Job/tiny-"),
        ("rank", "Deployment/rank-"),
    ):
        made = [place for title, place in at.items() if title.startswith(pods)]
        assert at[f"NetworkPolicy/{policy}"] < min(made)


async def test_a_refused_object_is_told_and_the_service_serves(sim: Simulation) -> None:
    text = "PATCH ingresses/rank: 400 admission webhook: host is taken"
    sim.cluster.refusals["apply", INGRESS.kind] = Rejected(text)
    await _serving(sim, expose=HOST, monitoring=MONITOR)
    assert sim.condition("Ready") == ("False", "Rejected")
    assert "host is taken" in sim.message("Ready")
    sim.cluster.refusals.clear()
    await sim.converge()
    assert sim.condition("Ready") == ("True", "Ready")
    assert _beside(sim) == {"Ingress/rank", "ServiceMonitor/rank"}


def test_every_kind_has_a_name_of_its_own() -> None:
    """Manifests are found again by kind alone."""
    assert all(RESOURCES[resource.kind] == resource for resource in RESOURCES.values())


async def test_what_is_refused_beside_the_pods_holds_nothing_else_up(sim: Simulation) -> None:
    await _serving(sim)
    before = sim.service().status.revision
    sim.cluster.refusals["apply", "Ingress"] = Rejected("spec.rules: Invalid value")
    expose = {"ingress": {"hosts": ["a.example.com"]}, "service": {"type": "NodePort"}}
    sim.edit_service(expose=expose, monitoring={"serviceMonitor": {}}, serving={"maxPassages": 100})
    await sim.settle()
    assert sim.service().status.revision != before
    assert {"ServiceMonitor/rank", "Service/rank-external"} <= _beside(sim)
    assert sim.condition("Progressing") == ("True", "Proving")
    assert sim.condition("Integrated") == sim.condition("Ready") == ("False", "Rejected")
    assert "spec.rules: Invalid value" in sim.message("Integrated")
    sim.cluster.refusals.clear()
    await sim.advance(60)
    assert sim.condition("Ready") == ("True", "Ready")


async def test_a_grpc_route_is_waited_for_as_the_other_one(sim: Simulation) -> None:
    route = {"parentRefs": [{"name": "edge"}]}
    await _serving(sim, expose={"grpcRoute": route})
    assert _beside(sim) == {"GRPCRoute/rank"}
    assert sim.condition("Integrated") == ("False", "AddressPending")
    _accept(sim, "False", GRPC_ROUTE, reason="NotAllowedByListeners")
    await sim.settle()
    assert sim.condition("Integrated") == ("False", "RouteRefused")
    assert "spec.expose.grpcRoute" in sim.message("Integrated")
    _accept(sim, "True", GRPC_ROUTE)
    await sim.settle()
    assert sim.condition("Integrated") == ("True", "Integrated")
    sim.edit_service(serving={"dialects": ["nim"]}, expose={})
    await sim.settle()
    assert _beside(sim) == set()


async def test_a_cluster_without_grpc_routes(sim: Simulation) -> None:
    sim.cluster.absent = {"GRPCRoute"}
    await _serving(sim, expose={"grpcRoute": {"parentRefs": [{"name": "edge"}]}})
    assert sim.condition("Integrated") == ("False", "KindMissing")
    assert "spec.expose.grpcRoute" in sim.message("Integrated")
