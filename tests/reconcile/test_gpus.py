"""TensorRT engines: for the one kind of GPU that the nodes have, built and served on it."""

from typing import Any

import pytest

from reranker_contracts import Runtimes
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.meta import JOB, NODE

from .controllers import NAMESPACE, PARITY
from .simulation import Simulation
from .symptoms import GPU, gpu_node

MAJOR, MINOR = "nvidia.com/gpu.compute.major", "nvidia.com/gpu.compute.minor"
TENSORRT = Runtimes(recipe=1, onnxruntime="1.31", openvino="2026.4", tensorrt="11.1.0.106")
TOLERATION = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


@pytest.fixture
def sim() -> Simulation:
    """With a builder that has TensorRT."""
    found = Simulation()
    found.runtimes = TENSORRT
    return found


def _add_node(sim: Simulation, name: str, capability: str, memory: str = "23034") -> None:
    major, minor = capability.split(".")
    node = gpu_node(name)
    node["metadata"]["labels"] = {MAJOR: major, MINOR: minor, "nvidia.com/gpu.memory": memory}
    sim.cluster.put(node)


async def _target(sim: Simulation, **spec: Any) -> str:
    accelerator = {"type": "nvidia", **spec.pop("accelerator", {})}
    sim.create_service(accelerator=accelerator, **spec)
    await sim.converge()
    return _serves(sim)


def _serves(sim: Simulation) -> str:
    status = sim.service().status
    return next((entry.target for entry in status.engines if entry.name == status.engine), "")


async def _look_again(sim: Simulation) -> None:
    """Once what is known of the nodes is old."""
    await sim.advance(60)
    await sim.resync()
    await sim.converge()


def _job_pod(sim: Simulation, step: str) -> Json:
    (job,) = (
        entry for entry in sim.cluster.select(JOB, NAMESPACE) if step in entry["metadata"]["name"]
    )
    pod: Json = job["spec"]["template"]["spec"]
    return pod


async def test_an_engine_is_compiled_and_served_on_its_kind_of_gpu(sim: Simulation) -> None:
    _add_node(sim, "a", "8.9")
    _add_node(sim, "b", "8.9", "46068")
    assert await _target(sim, accelerator={"tolerations": [TOLERATION]}) == "trt-sm89-fp16"
    assert "passed over" not in sim.message("EngineReady")
    assert sim.condition("Ready") == ("True", "Ready")
    gpu = sim.service().status.gpu
    assert gpu is not None
    assert (gpu.compute_capability, gpu.memory_mib) == ("8.9", 23034)
    pod = _job_pod(sim, "compile")
    assert pod["nodeSelector"] == {MAJOR: "8", MINOR: "9"}
    assert pod["tolerations"] == [TOLERATION]
    limits = {
        entry["name"]: entry["resources"]["limits"].get(GPU)
        for entry in (*pod["initContainers"], *pod["containers"])
    }
    assert limits == {"compile": "1", "validate": "1", "publish": None}
    args = pod["initContainers"][0]["args"]
    assert args[args.index("--compute-capability") + 1] == "8.9"
    assert args[args.index("--gpu-memory") + 1] == "23034"
    assert "nodeSelector" not in _job_pod(sim, "prepare"), "export needs no GPU"
    serving = (sim.selected() or {})["spec"]["template"]["spec"]
    assert serving["nodeSelector"] == {MAJOR: "8", MINOR: "9"}
    assert serving["tolerations"] == [TOLERATION]


async def test_no_taint_is_tolerated_that_was_not_asked_for(sim: Simulation) -> None:
    _add_node(sim, "a", "8.9")
    await _target(sim)
    assert _job_pod(sim, "compile")["tolerations"] == []


async def test_auto_takes_the_portable_runtime_where_kinds_differ_or_are_unknown(
    sim: Simulation,
) -> None:
    sim.cluster.put(gpu_node("plain"))
    assert await _target(sim) == "onnx-cuda-fp32"
    assert "passed over tensorrt: no node tells its GPU" in sim.message("EngineReady")
    sim.delete_service()
    await sim.converge()
    _add_node(sim, "a", "8.9")
    _add_node(sim, "b", "9.0")
    assert await _target(sim) == "onnx-cuda-fp32"
    await _look_again(sim)
    assert _serves(sim) == "onnx-cuda-fp32"
    assert (
        "passed over tensorrt: the nodes have GPUs of compute capability 8.9, 9.0 (choose one by "
        f"spec.accelerator.nodeSelector {MAJOR} and {MINOR})"
    ) in sim.message("EngineReady")
    assert "nodeSelector" not in (sim.selected() or {})["spec"]["template"]["spec"]


async def test_tensorrt_asked_for_says_what_is_missing(sim: Simulation) -> None:
    sim.cluster.put(gpu_node("plain"))
    assert await _target(sim, engine={"runtime": "tensorrt"}) == ""
    assert sim.condition("EngineReady") == ("False", "TargetUnsupported")
    assert "GPU feature discovery" in sim.message("EngineReady")
    _add_node(sim, "a", "8.9")
    _add_node(sim, "b", "9.0")
    await _look_again(sim)
    assert "compute capability 8.9, 9.0; choose one" in sim.message("EngineReady")
    sim.edit_service(accelerator={"type": "nvidia", "nodeSelector": {MAJOR: "9", MINOR: "0"}})
    await sim.converge()
    assert _serves(sim) == "trt-sm90-fp16"


async def test_a_pool_scaled_to_zero_changes_nothing(sim: Simulation) -> None:
    _add_node(sim, "a", "8.9")
    assert await _target(sim) == "trt-sm89-fp16"
    sim.cluster.remove(NODE, "", "a")
    await _look_again(sim)
    assert _serves(sim) == "trt-sm89-fp16"
    assert len(sim.engines()) == 1


async def test_a_precision_that_ranks_differently_gives_way_on_gpus_too(sim: Simulation) -> None:
    _add_node(sim, "a", "9.0")
    sim.parities["fp16"] = PARITY.model_copy(update={"kendall_tau": 0.9})
    assert await _target(sim) == "trt-sm90-bf16"
    assert "passed over tensorrt fp16" in sim.message("EngineReady")


async def test_a_compile_pod_that_finds_no_node_names_the_labels(sim: Simulation) -> None:
    _add_node(sim, "a", "8.9")
    message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                 "message": message}  # fmt: skip
    sim.told["compile"] = {"phase": "Pending", "conditions": [condition]}
    await _target(sim)
    assert sim.condition("EngineReady") == ("False", "NodeSelectorMismatch")
    text = sim.message("EngineReady")
    assert "no node has the labels nvidia.com/gpu.compute.major=8" in text
