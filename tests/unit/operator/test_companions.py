"""Objects beside the pods, as they are written: what they let in, out, and be evicted."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.core.companions import companions
from reranker_operator.core.plan import Apply
from reranker_operator.core.rollout import Rollout
from reranker_operator.core.world import ServiceWorld
from reranker_operator.render import exposure, network, serving, upkeep
from reranker_operator.render.defaults import Defaults

Json = dict[str, Any]
Make = Callable[..., RerankerService]
_MANIFESTS = Path(__file__).resolve().parents[3] / "manifests/base/operator.yaml"
SELECTOR = {"reranker.dev/service": "rank", "reranker.dev/revision": "r1"}


@pytest.fixture
def make(service: RerankerService) -> Make:
    """The service with other fields in its spec."""

    def other(**spec: Any) -> RerankerService:
        raw = service.model_dump(mode="json", by_alias=True, exclude_none=True)
        return RerankerService.model_validate(raw | {"spec": raw["spec"] | spec})

    return other


def _everything(service: RerankerService) -> list[Json]:
    made = (
        network.serving_policy(service, "ops"),
        network.resolve_policy(service),
        network.build_policy(service, ["tiny"]),
        exposure.external_service(service, SELECTOR),
        exposure.ingress(service),
        exposure.http_route(service),
        exposure.grpc_route(service),
        upkeep.budget(service, SELECTOR, service.spec.replicas),
        upkeep.service_monitor(service),
    )
    return [manifest for manifest in made if manifest is not None]


FULL: Json = {
    "replicas": 3,
    "expose": {
        "service": {
            "type": "LoadBalancer", "port": 443, "nodePort": 30080, "annotations": {"a": "b"},
            "loadBalancerClass": "x", "sourceRanges": ["10.0.0.0/8"],
        },
        "ingress": {
            "className": "nginx", "hosts": ["a.example.com", "*.b.example.com"],
            "paths": ["/v1", "/v2"], "tlsSecret": "tls", "annotations": {"c": "d"},
        },
        "route": {
            "parentRefs": [{"name": "edge", "namespace": "infra", "sectionName": "https"}],
            "hostnames": ["a.example.com"],
        },
        "grpcRoute": {
            "parentRefs": [{"name": "edge", "sectionName": "grpc"}],
            "hostnames": ["grpc.example.com"], "annotations": {"e": "f"},
        },
    },
    "networkPolicy": {
        "enabled": True,
        "clients": [
            {"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "search"}}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}], "ports": [{"port": 4317}]}],
        "builderEgress": [{"ports": [{"port": 443}]}],
    },
    "monitoring": {"serviceMonitor": {"labels": {"release": "p"}, "interval": "15s"}},
}  # fmt: skip


def test_a_grpc_route_leads_to_the_grpc_port_while_that_is_served(make: Make) -> None:
    route = exposure.grpc_route(make(**FULL))
    assert route is not None
    assert (route["apiVersion"], route["kind"]) == ("gateway.networking.k8s.io/v1", "GRPCRoute")
    assert route["metadata"]["annotations"] == {"e": "f"}
    assert route["spec"] == {
        "parentRefs": [{"name": "edge", "sectionName": "grpc"}],
        "hostnames": ["grpc.example.com"],
        "rules": [{"backendRefs": [{"name": "rank", "port": 8001}]}],
    }
    assert exposure.grpc_route(make(**FULL, serving={"dialects": ["nim"]})) is None


def test_nothing_is_made_that_nobody_asked_for(make: Make) -> None:
    assert _everything(make()) == []


def test_all_are_owned_labelled_and_without_empty_parts(make: Make) -> None:
    """The API server drops empty lists and maps, and what differs would be applied for ever."""
    made = _everything(make(**FULL))
    assert len(made) == 9

    def empty(node: Any, path: str) -> list[str]:
        if isinstance(node, dict):
            return [at for key, value in node.items() for at in _check(key, value, path)]
        if isinstance(node, list):
            return [at for entry in node for at in empty(entry, path + "[]")]
        return []

    def _check(key: str, value: Any, path: str) -> list[str]:
        here = f"{path}.{key}"
        selects_all = key in ("podSelector", "namespaceSelector")
        return [here] if value in ({}, [], None) and not selects_all else empty(value, here)

    for manifest in made:
        meta = manifest["metadata"]
        assert meta["ownerReferences"][0]["uid"] == "uid-1"
        assert meta["labels"]["reranker.dev/service"] == "rank"
        assert meta["labels"]["app.kubernetes.io/managed-by"] == "reranker-operator"
        assert empty(manifest["spec"], manifest["kind"]) == []


def test_only_the_api_gets_outside(make: Make) -> None:
    (external,) = [entry for entry in _everything(make(**FULL)) if entry["kind"] == "Service"]
    assert external["metadata"]["name"] == "rank-external"
    assert external["spec"] == {
        "type": "LoadBalancer",
        "selector": SELECTOR,
        "loadBalancerClass": "x",
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "ports": [
            {
                "name": "http", "protocol": "TCP", "port": 443, "targetPort": "http",
                "nodePort": 30080,
            }
        ],
    }  # fmt: skip


def test_ingress_and_route_lead_to_the_address_inside(make: Make) -> None:
    service = make(**FULL)
    ingress, route = exposure.ingress(service), exposure.http_route(service)
    assert ingress is not None
    assert route is not None
    backend = {"service": {"name": "rank", "port": {"name": "http"}}}
    paths = [{"path": p, "pathType": "Prefix", "backend": backend} for p in ("/v1", "/v2")]
    hosts = ["a.example.com", "*.b.example.com"]
    assert ingress["spec"] == {
        "ingressClassName": "nginx",
        "rules": [{"host": host, "http": {"paths": paths}} for host in hosts],
        "tls": [{"hosts": hosts, "secretName": "tls"}],
    }
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"] == {
        "parentRefs": [{"name": "edge", "namespace": "infra", "sectionName": "https"}],
        "hostnames": ["a.example.com"],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "rank", "port": 8000}],
            }
        ],
    }
    anywhere = exposure.ingress(make(expose={"ingress": {}}))
    assert anywhere is not None
    assert [set(rule) for rule in anywhere["spec"]["rules"]] == [{"http"}]


@pytest.mark.parametrize(
    ("replicas", "asked", "expected"),
    [
        (0, {}, None),
        (1, {}, None),
        (1, {"minAvailable": 1}, None),
        (2, {}, {"maxUnavailable": 1}),
        (2, {"enabled": False}, None),
        (4, {"maxUnavailable": "50%"}, {"maxUnavailable": "50%"}),
        (4, {"minAvailable": 3}, {"minAvailable": 3}),
        (3, {"minAvailable": 3}, {"minAvailable": 2}),
        (3, {"minAvailable": "66%"}, {"minAvailable": "66%"}),
        (3, {"minAvailable": "67%"}, {"minAvailable": 2}),
        (2, {"minAvailable": "100%"}, {"minAvailable": 1}),
        (2, {"minAvailable": 0}, {"minAvailable": 0}),
    ],
)
def test_a_budget_never_blocks_a_drain(
    make: Make, replicas: int, asked: Json, expected: Json | None
) -> None:
    made = upkeep.budget(make(disruption=asked), SELECTOR, replicas)
    if expected is None:
        assert made is None
    else:
        assert made is not None
        rest = {"unhealthyPodEvictionPolicy": "AlwaysAllow", "selector": {"matchLabels": SELECTOR}}
        assert made["spec"] == expected | rest


def _ways_in(service: RerankerService) -> dict[int, Any]:
    """Peers by port; None: everybody."""
    made = network.serving_policy(service, "ops")
    assert made is not None
    assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
    # The last rule is the operator's, whoever else is named.
    *rules, own = made["spec"]["ingress"]
    assert own == {"from": [OPERATOR], "ports": [{"protocol": "TCP", "port": 8002}]}
    return {port["port"]: rule.get("from") for rule in rules for port in rule["ports"]}


OPERATOR = {
    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}},
    "podSelector": {
        "matchLabels": {
            "app.kubernetes.io/name": "reranker-operator",
            "app.kubernetes.io/component": "operator",
        }
    },
}
MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {},
            {
                8000: [{"podSelector": {}}],
                8001: [{"podSelector": {}}],
                8002: [MONITORING],
            },
        ),
        ({"expose": {"ingress": {}}}, {8000: None, 8001: None, 8002: [MONITORING]}),
        (
            {"expose": {"service": {"type": "NodePort"}}},
            {8000: None, 8001: None, 8002: [MONITORING]},
        ),
        (
            {"serving": {"dialects": ["nim", "tei"]}},
            {8000: [{"podSelector": {}}], 8002: [MONITORING]},
        ),
    ],
)
def test_who_gets_in_when_nobody_is_named(make: Make, spec: Json, expected: Json) -> None:
    assert _ways_in(make(networkPolicy={"enabled": True}, **spec)) == expected


def test_nobody_is_not_everybody(make: Make) -> None:
    """A rule with an empty list of peers lets all in; an empty list here means none."""
    asked = {"enabled": True, "clients": [], "monitoring": []}
    assert _ways_in(make(networkPolicy=asked, expose={"ingress": {}})) == {}


def test_named_peers_get_in_as_they_were_named(make: Make) -> None:
    assert _ways_in(make(**FULL))[8000] == FULL["networkPolicy"]["clients"]


def test_serving_opens_no_connection_unless_it_is_listed(make: Make) -> None:
    closed = network.serving_policy(make(networkPolicy={"enabled": True}), "ops")
    assert closed is not None
    assert "egress" not in closed["spec"]
    opened = network.serving_policy(make(**FULL), "ops")
    assert opened is not None
    dns, rule = opened["spec"]["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert rule == {
        "to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}],
        "ports": [{"protocol": "TCP", "port": 4317}],
    }


def test_revisions_reach_each_other_where_their_scores_are_compared(make: Make) -> None:
    rollout = {"strategy": "canary", "gates": {"shadow": {}}}
    pods = {"podSelector": {"matchLabels": serving.pod_selector("rank", None)}}
    port = [{"protocol": "TCP", "port": 8000}]
    for policy in ({"enabled": True, "clients": []}, FULL["networkPolicy"] | {"clients": []}):
        plain, more = (
            network.serving_policy(make(networkPolicy=policy, rollout=asked), "ops")
            for asked in ({}, rollout)
        )
        assert plain is not None
        assert more is not None
        ways_in = [*plain["spec"]["ingress"], {"from": [pods], "ports": port}]
        assert more["spec"]["ingress"] == ways_in
        dns, *others = more["spec"]["egress"]
        assert {entry["port"] for entry in dns["ports"]} == {53}
        assert others == [
            *plain["spec"].get("egress", [])[1:], {"to": [pods], "ports": port},
        ]  # fmt: skip


def test_nobody_gets_into_a_build(make: Make) -> None:
    for asked, ways_out in ((None, [{}]), ([], None)):
        spec = {"enabled": True} | ({} if asked is None else {"builderEgress": asked})
        service = make(networkPolicy=spec)
        for made in (network.resolve_policy(service), network.build_policy(service, ["b", "a"])):
            assert made is not None
            assert made["spec"]["policyTypes"] == ["Ingress", "Egress"]
            assert "ingress" not in made["spec"]
            assert made["spec"].get("egress") == ways_out
    assert network.build_policy(make(networkPolicy={"enabled": True}), []) is None


def test_the_monitor_scrapes_the_metrics_of_this_service(make: Make) -> None:
    made = upkeep.service_monitor(make(**FULL))
    assert made is not None
    assert made["metadata"]["labels"]["release"] == "p"
    assert made["spec"] == {
        "selector": {
            "matchLabels": {
                "reranker.dev/service": "rank", "app.kubernetes.io/component": "serving",
            }
        },
        "endpoints": [{"port": "metrics", "interval": "15s"}],
    }  # fmt: skip


def test_a_rollout_that_rests_leaves_them_where_the_address_leads(
    make: Make, defaults: Defaults, now: datetime.datetime
) -> None:
    address = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "rank"},
        "spec": {"selector": SELECTOR},
    }  # fmt: skip
    world = ServiceWorld(make(replicas=2), now, defaults, k8s_service=address)
    found = companions(world, None, Rollout(None, None))
    assert found.judgement.status == "True"
    (action,) = found.after
    assert isinstance(action, Apply)
    assert action.manifest["spec"]["selector"]["matchLabels"] == SELECTOR


def test_only_policies_are_made_before_there_is_an_address(
    make: Make, defaults: Defaults, now: datetime.datetime
) -> None:
    world = ServiceWorld(make(**FULL), now, defaults, missing_kinds=frozenset({"HTTPRoute"}))
    found = companions(world, "tiny", Rollout(None, None))
    assert len(found.before) == 3
    assert found.after == ()
    # What people must mend is told early: a build may take an hour.
    assert (found.judgement.status, found.judgement.reason) == ("False", "KindMissing")


def test_the_operators_own_pods_are_those_of_its_chart() -> None:
    rendered = yaml.safe_load_all(_MANIFESTS.read_text(encoding="utf-8"))
    (deployment,) = [entry for entry in rendered if entry["kind"] == "Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert OPERATOR["podSelector"]["matchLabels"].items() <= labels.items()
