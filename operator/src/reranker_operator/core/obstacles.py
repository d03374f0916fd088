"""What keeps the pods of a revision from serving, from all that is known of them."""

from reranker_operator.core import diagnose
from reranker_operator.core.causes import scheduling
from reranker_operator.core.causes.finding import Finding
from reranker_operator.core.revisions import live_deployments, pods_of
from reranker_operator.core.world import Manifest, ServiceWorld


def obstacle(world: ServiceWorld, revision: str | None) -> Finding | None:
    """What keeps the pods of a revision from serving."""
    pods, entry = pods_of(world, revision), live_deployments(world).get(revision or "")
    found = diagnose.crashing(pods) or diagnose.blocked(pods, world.warnings, world.claims)
    if found is not None and found.reason in scheduling.REASONS:
        # The nodes themselves say more than the scheduler does of them.
        return _no_node(world, entry) or found
    return (
        found
        or diagnose.refused_deployment(entry)
        or diagnose.silent(pods, entry, world.warnings)
        or _no_node(world, entry)
    )


def _no_node(world: ServiceWorld, deployment: Manifest | None) -> Finding | None:
    """No node could ever take a serving pod; known before any pod was made."""
    accelerator = world.service.spec.accelerator
    if world.nodes is None or accelerator.type == "none":
        return None
    pod = deployment["spec"]["template"]["spec"] if deployment is not None else {}
    tolerations = [entry.to_dict() for entry in accelerator.tolerations]
    wanted = (
        accelerator.resource_name or "nvidia.com/gpu",
        accelerator.count or 1,
        pod.get("nodeSelector") or accelerator.node_selector or {},
        [*tolerations, *pod.get("tolerations", [])],
    )
    nodes = world.nodes
    return nodes.once(("no node", repr(wanted)), lambda: scheduling.no_node(nodes, *wanted))
