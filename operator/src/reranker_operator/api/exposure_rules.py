"""Cross-field rules of what a RerankerService asks for beside its pods, as in `rules.py`."""

from collections.abc import Iterator

from reranker_operator.api.rules import AMOUNT, Rule

_POLICY = "spec.networkPolicy"
_PEERS = ("clients[]", "monitoring[]", "egress[].to[]", "builderEgress[].to[]")


def _peer_rules() -> Iterator[Rule]:
    for path in _PEERS:
        field = path.replace(".[]", "[]")
        yield Rule(
            f"{_POLICY}.{path}",
            "has(self.ipBlock) != (has(self.podSelector) || has(self.namespaceSelector))",
            f"an entry of networkPolicy.{field} is either an ipBlock, or a podSelector or "
            "namespaceSelector or both; give one of the two (podSelector: {} means all pods)",
        )


EXPOSURE_RULES = (
    Rule(
        "spec.expose.service",
        "self.type != 'ClusterIP' || (!has(self.nodePort) && !has(self.annotations))",
        "expose.service.nodePort and expose.service.annotations are of the Service for outside; "
        "set expose.service.type to NodePort or LoadBalancer, or remove them",
    ),
    Rule(
        "spec.expose.service",
        "self.type == 'LoadBalancer' || (!has(self.loadBalancerClass) && "
        "(!has(self.sourceRanges) || self.sourceRanges.size() == 0))",
        "expose.service.loadBalancerClass and expose.service.sourceRanges need expose.service.type "
        "LoadBalancer; set it, or remove them",
    ),
    Rule(
        "spec.expose.ingress",
        "!has(self.tlsSecret) || (has(self.hosts) && self.hosts.size() > 0)",
        "expose.ingress.tlsSecret is a certificate for expose.ingress.hosts; list the host names",
    ),
    Rule(
        "spec.disruption",
        "!has(self.minAvailable) || !has(self.maxUnavailable)",
        "disruption.minAvailable and disruption.maxUnavailable exclude each other; remove one of "
        "them",
    ),
    Rule(
        "spec.disruption",
        AMOUNT.format(field="self.minAvailable"),
        "disruption.minAvailable is a number of pods such as 1, or a share up to 100%, such as "
        "50%; write one of them",
    ),
    Rule(
        "spec.disruption",
        "!has(self.maxUnavailable) || (type(self.maxUnavailable) == string "
        "? self.maxUnavailable.matches('^0*(100|[1-9][0-9]?)%$') : self.maxUnavailable >= 1)",
        "disruption.maxUnavailable is a number of pods such as 1, or a share such as 25%; 0 would "
        "block every drain of a node",
    ),
    *_peer_rules(),
)
