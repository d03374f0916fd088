"""What GPUs the nodes have, from the labels of NVIDIA's GPU feature discovery."""

from collections.abc import Iterable, Mapping
from typing import Any

from reranker_operator.api.engine import AcceleratorSpec
from reranker_operator.api.v1alpha1 import GpuStatus
from reranker_operator.core.causes.scheduling import fits
from reranker_operator.core.world import ServiceWorld
from reranker_operator.names import GPU_MAJOR, GPU_MEMORY, GPU_MINOR, GPU_PRODUCT


def kinds(
    nodes: Iterable[Mapping[str, Any]], accelerator: AcceleratorSpec
) -> tuple[GpuStatus, ...]:
    """One for each compute capability among the nodes that can take a pod of the service.

    Nodes without the labels tell nothing. Of several memory sizes the smallest counts, because an
    engine must fit into each.
    """
    found: dict[str, GpuStatus] = {}
    resource = accelerator.resource_name or "nvidia.com/gpu"
    for node in nodes:
        labels = node["metadata"].get("labels", {})
        major, minor = labels.get(GPU_MAJOR, ""), labels.get(GPU_MINOR, "")
        if not (major.isdecimal() and minor.isdecimal()) or not fits(
            node, resource, accelerator.count or 1, accelerator.node_selector or {}
        ):
            continue
        capability = f"{major}.{minor}"
        memory = _memory(labels, resource)
        before = found.get(capability)
        sizes = [size for size in (memory, before.memory_mib if before else None) if size]
        products = {labels.get(GPU_PRODUCT), *(before.products if before else ())} - {None, ""}
        found[capability] = GpuStatus(
            compute_capability=capability,
            memory_mib=min(sizes, default=None),
            products=tuple(sorted(products)),
        )
    return tuple(sorted(found.values(), key=lambda kind: kind.compute_capability))


def _kinds(world: ServiceWorld) -> tuple[GpuStatus, ...]:
    if world.nodes is None:
        return ()
    nodes, wanted = world.nodes, world.service.spec.accelerator
    return nodes.once(("gpus", wanted.model_dump_json()), lambda: kinds(nodes, wanted))


def _memory(labels: Mapping[str, str], resource: str) -> int | None:
    """MiB. A MIG slice that is a resource of its own has a label of its own."""
    key = GPU_MEMORY if resource == "nvidia.com/gpu" else f"{resource}.memory"
    text = labels.get(key, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def gpu_of(world: ServiceWorld) -> GpuStatus | None:
    """The one kind of GPU that the service may run on; None when it is unknown or not one.

    What was once found stays while no node says otherwise: the nodes of a pool that was scaled to
    zero come back.
    """
    if world.service.spec.accelerator.type != "nvidia":
        return None
    found = _kinds(world)
    if not found:
        return world.service.status.gpu
    return found[0] if len(found) == 1 else None


def why_unknown(world: ServiceWorld) -> tuple[str, str]:
    """Why there is no one kind of GPU, and what to do."""
    found = _kinds(world)
    if found:
        many = ", ".join(kind.compute_capability for kind in found)
        what = f"the nodes have GPUs of compute capability {many}"
        return what, f"choose one by spec.accelerator.nodeSelector {GPU_MAJOR} and {GPU_MINOR}"
    if world.nodes is None:
        what = "the operator may not look at nodes"
        return what, "install it for the whole cluster, or use the runtime onnxruntime"
    what = f"no node tells its GPU by the labels {GPU_MAJOR} and {GPU_MINOR}"
    return what, "install NVIDIA's GPU feature discovery, or use the runtime onnxruntime"
