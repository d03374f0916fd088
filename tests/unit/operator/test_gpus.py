"""Kinds of GPU from the labels of GPU feature discovery."""

from typing import Any

from reranker_operator.api.engine import AcceleratorSpec
from reranker_operator.api.v1alpha1 import GpuStatus
from reranker_operator.core.gpus import kinds

GPU = "nvidia.com/gpu"


def node(capability: str | None, memory: str = "23034", **more: Any) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": memory}
    if capability:
        major, minor = capability.split(".")
        labels |= {"nvidia.com/gpu.compute.major": major, "nvidia.com/gpu.compute.minor": minor}
    resource = more.pop("resource", GPU)
    return {
        "metadata": {"name": "n", "labels": labels | more},
        "status": {"allocatable": {resource: "1"}},
    }


def nvidia(**more: Any) -> AcceleratorSpec:
    return AcceleratorSpec.model_validate({"type": "nvidia", **more})


def test_each_compute_capability_is_one_kind_with_its_smallest_memory() -> None:
    other = {"nvidia.com/gpu.product": "NVIDIA-L40S"}
    found = kinds((node("9.0", "81559"), node("8.9", "46068", **other), node("8.9")), nvidia())
    assert found == (
        GpuStatus(
            compute_capability="8.9", memory_mib=23034, products=("NVIDIA-L4", "NVIDIA-L40S")
        ),
        GpuStatus(compute_capability="9.0", memory_mib=81559, products=("NVIDIA-L4",)),
    )


def test_nodes_that_cannot_take_the_pods_or_say_nothing_do_not_count() -> None:
    selector = nvidia(nodeSelector={"pool": "a"})
    assert kinds((node("8.9"), node(None, pool="a")), selector) == ()
    (found,) = kinds((node("8.9"), node("9.0", pool="a")), selector)
    assert found.compute_capability == "9.0"
    assert kinds((node("8.9"),), nvidia(count=2)) == ()
    strange = node("8.9") | {"metadata": {"name": "n", "labels": {
        "nvidia.com/gpu.compute.major": "eight", "nvidia.com/gpu.compute.minor": "9"}}}  # fmt: skip
    assert kinds((strange,), nvidia()) == ()


def test_a_mig_slice_has_the_memory_of_its_own_label() -> None:
    slice_ = "nvidia.com/mig-1g.10gb"
    wanted = nvidia(resourceName=slice_)
    (found,) = kinds((node("9.0", resource=slice_, **{f"{slice_}.memory": "9984"}),), wanted)
    assert found.memory_mib == 9984
    (unknown,) = kinds((node("9.0", resource=slice_),), wanted)
    assert unknown.memory_mib is None
    (odd,) = kinds((node("9.0", "lots"),), nvidia())
    assert odd.memory_mib is None
