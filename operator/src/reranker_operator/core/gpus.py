"""What GPUs the nodes have, from the labels of NVIDIA's GPU feature discovery."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from reranker_contracts.targets import CAPABILITIES, builds_for
from reranker_operator.api.engine import AcceleratorSpec
from reranker_operator.api.v1alpha1 import GpuStatus
from reranker_operator.core.causes.scheduling import fits
from reranker_operator.core.world import ServiceWorld
from reranker_operator.names import GPU_MAJOR, GPU_MEMORY, GPU_MINOR, GPU_PRODUCT

_CAPABILITY = re.compile(r"[1-9][0-9]?\.[0-9]")


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
        capability = _capability(labels)
        if capability is None or not fits(
            node, resource, accelerator.count or 1, accelerator.node_selector or {}
        ):
            continue
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

    Of kinds that the asked-for runtime doesn't build for nothing is counted. While no node says
    anything, it is the kind that the node selector names, whose nodes may be still to come; else
    what was once found, since the nodes of a pool that was scaled to zero come back.
    """
    spec, known = world.service.spec, world.service.status.gpu
    if spec.accelerator.type != "nvidia":
        return None
    everything = _kinds(world)
    found = [kind for kind in everything if _fits(world, kind)]
    if len(found) == 1:
        return found[0]
    if everything:
        return None
    named = _capability(spec.accelerator.node_selector or {})
    if named is None or (known is not None and known.compute_capability == named):
        return known
    return GpuStatus(compute_capability=named)


def _fits(world: ServiceWorld, kind: GpuStatus) -> bool:
    runtime = world.service.spec.engine.runtime
    return runtime == "auto" or builds_for(runtime, kind.compute_capability)


def _capability(labels: Mapping[str, str]) -> str | None:
    """The compute capability in labels of a node, or of a node selector."""
    text = f"{labels.get(GPU_MAJOR, '')}.{labels.get(GPU_MINOR, '')}"
    return text if _CAPABILITY.fullmatch(text) else None


def why_unknown(world: ServiceWorld) -> tuple[str, str]:
    """Why there is no one kind of GPU, and what to do."""
    found = _kinds(world)
    if found:
        fitting = [kind.compute_capability for kind in found if _fits(world, kind)]
        many = ", ".join(fitting or (kind.compute_capability for kind in found))
        what = f"the nodes have GPUs of compute capability {many}"
        if not fitting:
            return not_for(world, what)
        return what, f"choose one by spec.accelerator.nodeSelector {GPU_MAJOR} and {GPU_MINOR}"
    if world.nodes is None:
        what, remedy = "the operator may not look at nodes", "install it for the whole cluster"
    else:
        what = f"no node tells its GPU by the labels {GPU_MAJOR} and {GPU_MINOR}"
        remedy = "install NVIDIA's GPU feature discovery"
    say = f"name {GPU_MAJOR} and {GPU_MINOR} in spec.accelerator.nodeSelector"
    return what, f"{remedy}, {say}, or use the runtime onnxruntime"


def not_for(world: ServiceWorld, what: str) -> tuple[str, str]:
    """`what` GPUs there are, of which the runtime builds for none, and what to do."""
    runtime = world.service.spec.engine.runtime
    known = ", ".join(CAPABILITIES.get(runtime, ())) if runtime != "auto" else ""
    return f"{what}, and {runtime} is for {known}", "set spec.engine.runtime to auto or tensorrt"
