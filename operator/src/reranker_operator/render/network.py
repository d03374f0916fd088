"""NetworkPolicies of the pods that serve and of those that build.

Empty lists are left out: the API server drops them, and an apply would never be done. A rule
without peers means everybody, so where nobody is meant the rule itself is left out.
"""

from collections.abc import Iterable

from reranker_operator import names
from reranker_operator.api.exposure import EgressRule, Peer
from reranker_operator.api.meta import NETWORK_POLICY
from reranker_operator.api.v1alpha1 import RerankerService
from reranker_operator.render import activator, shadow
from reranker_operator.render.exposure import head
from reranker_operator.render.pods import Json
from reranker_operator.render.serving import GRPC_PORT, HTTP_PORT, METRICS_PORT, pod_selector

_MONITORING = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
#: To anywhere: a node-local cache of DNS has an address of the node.
_DNS = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def serving_policy(
    service: RerankerService, operator_namespace: str, *, activator_is_there: bool = False
) -> Json | None:
    """Clients reach the API, monitoring and the operator the metrics, and the activator the API
    while there is one; nobody else gets in, and nothing out. Where scores of two revisions are
    compared, their pods reach each other.
    """
    asked, name = service.spec.network_policy, service.metadata.name
    if not asked.enabled:
        return None
    api = _api_ports(service)
    ways_in = _ways_in(service, operator_namespace)
    if activator_is_there:
        ways_in += _way_in(None, [{"podSelector": {"matchLabels": activator.selector(name)}}], api)
    serving = {"podSelector": {"matchLabels": pod_selector(name, None)}}
    ways_out = _egress(asked.egress) if asked.egress else []
    if shadow.gate_of(service) is not None:
        # Of one revision to the other.
        ways_in += _way_in(None, [serving], [HTTP_PORT])
        api_port = {"to": [serving], "ports": [{"protocol": "TCP", "port": HTTP_PORT}]}
        ways_out = [*(ways_out or [_DNS]), api_port]
    spec: Json = {**serving, "policyTypes": ["Ingress", "Egress"]}
    if ways_in:
        spec["ingress"] = ways_in
    if ways_out:
        spec["egress"] = ways_out
    return head(service, NETWORK_POLICY, name, "network") | {"spec": spec}


def activator_policy(service: RerankerService, operator_namespace: str) -> Json | None:
    """The same ways in as to the pods that serve; out only to those."""
    name = service.metadata.name
    if not service.spec.network_policy.enabled:
        return None
    pods = pod_selector(name, None)
    ports = [{"protocol": "TCP", "port": port} for port in _api_ports(service)]
    spec: Json = {
        "podSelector": {"matchLabels": activator.selector(name)},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [_DNS, {"to": [{"podSelector": {"matchLabels": pods}}], "ports": ports}],
    }
    if ways_in := _ways_in(service, operator_namespace):
        spec["ingress"] = ways_in
    return head(service, NETWORK_POLICY, names.activator(name), "network") | {"spec": spec}


def _api_ports(service: RerankerService) -> list[int]:
    return [HTTP_PORT, GRPC_PORT] if service.spec.serving.grpc else [HTTP_PORT]


def _ways_in(service: RerankerService, operator_namespace: str) -> list[Json]:
    asked = service.spec.network_policy
    return [
        *_way_in(asked.clients, _default_clients(service), _api_ports(service)),
        *_way_in(asked.monitoring, [_MONITORING], [METRICS_PORT]),
        *_way_in(None, [operator_peer(operator_namespace)], [METRICS_PORT]),
    ]


def operator_peer(namespace: str) -> Json:
    """The operator's own pods, which read what pods say of their load."""
    space = {"kubernetes.io/metadata.name": namespace}
    labels = {names.APP_NAME: names.MANAGER, names.APP_COMPONENT: "operator"}
    return {
        "namespaceSelector": {"matchLabels": space},
        "podSelector": {"matchLabels": labels},
    }


def _way_in(asked: tuple[Peer, ...] | None, default: list[Json], ports: list[int]) -> list[Json]:
    if asked == ():
        return []
    peers = default if asked is None else _peers(asked)
    ways = [{"protocol": "TCP", "port": port} for port in ports]
    return [({"from": peers} if peers else {}) | {"ports": ways}]


def _default_clients(service: RerankerService) -> list[Json]:
    """The namespace's own pods, or (an empty list) everybody who comes from outside."""
    expose = service.spec.expose
    routes = expose.ingress or expose.route or expose.grpc_route
    outside = expose.service.type != "ClusterIP" or routes
    return [] if outside else [{"podSelector": {}}]


def resolve_policy(service: RerankerService) -> Json | None:
    """For the Jobs that resolve the source."""
    name = service.metadata.name
    selector = {
        "matchLabels": {names.SERVICE_LABEL: name},
        "matchExpressions": [{"key": names.STAGE_LABEL, "operator": "Exists"}],
    }
    return _builder_policy(service, names.resolve_policy(name), selector)


def build_policy(service: RerankerService, engines: Iterable[str]) -> Json | None:
    """For the Jobs of these engines, which other services may share."""
    chosen = sorted(engines)
    if not chosen:
        return None
    selector = {
        "matchExpressions": [
            {"key": names.ENGINE_LABEL, "operator": "In", "values": chosen},
            {"key": names.STAGE_LABEL, "operator": "Exists"},
        ]
    }
    return _builder_policy(service, names.build_policy(service.metadata.name), selector)


def _builder_policy(service: RerankerService, name: str, selector: Json) -> Json | None:
    asked = service.spec.network_policy
    if not asked.enabled:
        return None
    spec: Json = {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]}
    if asked.builder_egress is None:
        spec["egress"] = [{}]
    elif asked.builder_egress:
        spec["egress"] = _egress(asked.builder_egress)
    return head(service, NETWORK_POLICY, name, "network") | {"spec": spec}


def _egress(rules: Iterable[EgressRule]) -> list[Json]:
    ways: list[Json] = [_DNS]
    for rule in rules:
        way: Json = {}
        if rule.to:
            way["to"] = _peers(rule.to)
        if rule.ports:
            way["ports"] = [port.to_dict() for port in rule.ports]
        ways.append(way)
    return ways


def _peers(peers: Iterable[Peer]) -> list[Json]:
    return [{key: _without_empty(value) for key, value in peer.to_dict().items()} for peer in peers]


def _without_empty(node: object) -> object:
    """As the API server gives it back; the outermost may be empty, and then selects all."""
    if isinstance(node, dict):
        kept = {key: _without_empty(value) for key, value in node.items()}
        return {key: value for key, value in kept.items() if value not in ({}, [])}
    if isinstance(node, list):
        return [_without_empty(entry) for entry in node]
    return node
