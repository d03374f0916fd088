"""TensorRT engines: for the one kind of GPU that the nodes have, built and served on it.

Those of TensorRT-RTX are built without one, and measured where they are served.
"""

import datetime
from typing import Any

import pytest

from reranker_contracts import Runtimes
from reranker_operator.adapters.cluster import Json
from reranker_operator.api.conditions import ConditionType, find
from reranker_operator.api.meta import DEPLOYMENT, JOB, NODE, POD

from . import controllers
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


RTX = Runtimes(recipe=1, onnxruntime="1.31", tensorrt_rtx="1.7.1.116")


@pytest.fixture
def rtx() -> Simulation:
    """With a builder that has TensorRT-RTX."""
    found = Simulation()
    found.runtimes = RTX
    return found


def _asked(precision: str = "auto", **more: Any) -> dict[str, Any]:
    return {"runtime": "tensorrt-rtx", "precision": precision, **more}


def _validated(sim: Simulation, target: str) -> tuple[str, str]:
    (engine,) = (entry for entry in sim.engines() if target in entry.metadata.name)
    found = find(engine.status.conditions, ConditionType.VALIDATED)
    assert found is not None
    return found.status, found.reason


async def test_an_rtx_engine_is_built_without_a_gpu_and_measured_in_its_pod(
    rtx: Simulation,
) -> None:
    _add_node(rtx, "a", "8.9")
    rtx.pods_start = False
    accelerator = {"tolerations": [TOLERATION]}
    await _target(rtx, engine=_asked(), accelerator=accelerator)
    pod = _job_pod(rtx, "compile")
    assert "nodeSelector" not in pod
    assert "tolerations" not in pod
    limits = [entry["resources"]["limits"] for entry in pod["initContainers"]]
    assert not any(GPU in entry for entry in limits)
    args = pod["initContainers"][0]["args"]
    assert args[args.index("--compute-capability") + 1] == "8.9"
    assert args[args.index("--gpu-memory") + 1] == "23034", "known of the node all the same"
    assert _validated(rtx, "rtx-sm89-fp16") == ("Unknown", "TargetAbsent")
    assert rtx.condition("EngineReady") == ("True", "Built")
    assert "each pod measures it before it serves" in rtx.message("EngineReady")
    assert rtx.engines()[0].status.stage == "Ready"
    (deployment,) = rtx.cluster.select(DEPLOYMENT, NAMESPACE)
    serving = deployment["spec"]["template"]["spec"]
    assert serving["nodeSelector"] == {MAJOR: "8", MINOR: "9"}
    assert [entry["name"] for entry in serving["initContainers"]] == ["verify", "triton", "measure"]
    rtx.pods_start = True
    await rtx.converge()
    assert _serves(rtx) == "rtx-sm89-fp16"
    assert rtx.condition("Ready") == ("True", "Ready")
    assert _validated(rtx, "rtx-sm89-fp16") == ("True", "Done")
    assert rtx.engines()[0].status.parity == PARITY
    assert "Kendall tau 0.9991 (at least 0.995)" in rtx.message("EngineReady")
    assert len(rtx.names("Deployment")) == 1, "the report is no new revision"


async def test_the_gpu_may_still_be_coming_when_the_selector_names_its_kind(
    rtx: Simulation,
) -> None:
    rtx.pods_start = False
    selector = {MAJOR: "12", MINOR: "0"}
    await _target(rtx, engine=_asked(), accelerator={"nodeSelector": selector})
    assert rtx.condition("EngineReady") == ("True", "Built")
    assert [entry.metadata.name[:18] for entry in rtx.engines()] == ["tiny-rtx-sm120-fp1"]
    gpu = rtx.service().status.gpu
    assert gpu is not None
    assert (gpu.compute_capability, gpu.memory_mib) == ("12.0", None)
    _add_node(rtx, "a", "12.0", "97887")
    rtx.pods_start = True
    await _look_again(rtx)
    assert rtx.condition("Ready") == ("True", "Ready")
    assert len(rtx.engines()) == 1


async def test_a_selector_that_names_no_compute_capability_is_none(rtx: Simulation) -> None:
    selector = {MAJOR: "8", MINOR: "10"}
    await _target(rtx, engine=_asked(), accelerator={"nodeSelector": selector})
    assert rtx.condition("EngineReady") == ("False", "TargetUnsupported")
    assert "no node tells its GPU" in rtx.message("EngineReady")


async def test_a_pod_that_measures_too_great_a_difference_has_the_next_precision_built(
    rtx: Simulation,
) -> None:
    _add_node(rtx, "a", "8.9")
    rtx.parities["fp16"] = PARITY.model_copy(update={"kendall_tau": 0.9})
    assert await _target(rtx, engine=_asked()) == "rtx-sm89-bf16"
    assert rtx.condition("Ready") == ("True", "Ready")
    assert "passed over tensorrt-rtx fp16: ranks too differently" in rtx.message("EngineReady")
    assert "Kendall tau 0.9000 (at least 0.995)" in rtx.message("EngineReady")
    assert len(rtx.names("Deployment")) == 1


async def test_a_named_precision_that_is_refused_in_the_pod_never_serves(rtx: Simulation) -> None:
    _add_node(rtx, "a", "8.9")
    rtx.parity = PARITY.model_copy(update={"kendall_tau": 0.9})
    await _target(rtx, engine=_asked("fp16"))
    assert rtx.condition("EngineReady") == ("False", "ParityRefused")
    assert rtx.condition("Ready")[0] == "False"
    assert rtx.condition("Serving")[0] == "False"
    assert rtx.engines()[0].status.parity == rtx.parity
    rtx.edit_service(engine=_asked("fp16", parity={"minKendallTau": 0.8}))
    await rtx.converge()
    assert rtx.condition("Ready") == ("True", "Ready"), "no build, but pods that measure again"
    assert len(rtx.engines()) == 1


async def test_a_pod_is_believed_whatever_its_nodes_clock_says(
    rtx: Simulation, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, real = controllers.Controllers._start_serving, controllers._iso

    def start_serving(self: controllers.Controllers, pod: Json) -> None:
        with monkeypatch.context() as patch:
            skew = datetime.timedelta(hours=1)
            patch.setattr(controllers, "_iso", lambda moment: real(moment - skew))
            start(self, pod)

    monkeypatch.setattr(controllers.Controllers, "_start_serving", start_serving)
    _add_node(rtx, "a", "8.9")
    await _target(rtx, engine=_asked("fp16"))
    assert rtx.condition("Ready") == ("True", "Ready")
    assert _validated(rtx, "rtx-sm89-fp16") == ("True", "Done")


async def test_scores_that_are_no_numbers_are_no_engine(rtx: Simulation) -> None:
    _add_node(rtx, "a", "8.9")
    rtx.scores_are_numbers = False
    await _target(rtx, engine=_asked("fp16"))
    assert _validated(rtx, "rtx-sm89-fp16") == ("False", "ValidationFailed")
    assert rtx.condition("EngineReady") == ("False", "ValidationFailed")
    compiled = [job for job in rtx.names("Job") if "compile" in job]
    assert len(compiled) == 1, "another build would be the same"


async def test_an_rtx_engine_from_a_registry_is_measured_all_the_same(rtx: Simulation) -> None:
    registry = {"repository": "oci://registry.example/engines"}
    _add_node(rtx, "a", "8.9")
    await _target(rtx, engine=_asked("fp16", registry=registry | {"push": True}))
    assert list(rtx.registry.values()) == [None], "a report is of one node, and not pushed"
    elsewhere = Simulation()
    elsewhere.runtimes, elsewhere.registry = RTX, dict(rtx.registry)
    _add_node(elsewhere, "a", "8.9")
    elsewhere.pods_start = False
    await _target(elsewhere, engine=_asked("fp16", registry=registry | {"build": False}))
    assert _validated(elsewhere, "rtx-sm89-fp16") == ("Unknown", "TargetAbsent")
    elsewhere.pods_start = True
    await elsewhere.converge()
    assert elsewhere.condition("Ready") == ("True", "Ready")
    assert _validated(elsewhere, "rtx-sm89-fp16") == ("True", "Done")
    assert not [name for name in elsewhere.names("Job") if "compile" in name]


async def test_only_pods_of_the_engines_owners_are_believed(rtx: Simulation) -> None:
    _add_node(rtx, "a", "8.9")
    await _target(rtx, engine=_asked("fp16"))
    (real,) = rtx.cluster.select(POD, NAMESPACE, {"app.kubernetes.io/component": "serving"})
    message = real["status"]["initContainerStatuses"][2]["state"]["terminated"]["message"]
    forged = message.replace("0.9991", "0.1")
    assert forged != message
    statuses = [dict(entry) for entry in real["status"]["initContainerStatuses"]]
    end = statuses[2]["state"]["terminated"] | {"message": forged}
    statuses[2] = statuses[2] | {"state": {"terminated": end}}
    owners = [{"kind": "ReplicaSet", "name": "mine-5d8f", "uid": "x", "controller": True}]
    meta = {"name": "fake", "namespace": NAMESPACE, "ownerReferences": owners}
    meta |= {"labels": real["metadata"]["labels"]}
    status = {"phase": "Pending", "initContainerStatuses": statuses}
    rtx.cluster.put(real | {"metadata": meta, "status": status})
    await rtx.converge()
    assert rtx.engines()[0].status.parity == PARITY


async def test_rtx_is_for_gpus_of_its_own_kinds(rtx: Simulation) -> None:
    _add_node(rtx, "a", "9.0")
    assert await _target(rtx, engine=_asked()) == ""
    assert rtx.condition("EngineReady") == ("False", "TargetUnsupported")
    text = "GPUs of compute capability 9.0, and tensorrt-rtx is for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"
    assert text in rtx.message("EngineReady")
    _add_node(rtx, "b", "8.9")
    await _look_again(rtx)
    assert _serves(rtx) == "rtx-sm89-fp16", "of two kinds one can be meant"


async def test_rtx_on_gpus_of_several_kinds_is_refused(rtx: Simulation) -> None:
    for capability in ("8.6", "8.9", "9.0"):
        _add_node(rtx, f"n{capability}", capability)
    assert await _target(rtx, engine=_asked()) == ""
    assert rtx.condition("EngineReady") == ("False", "TargetUnsupported")
    assert "compute capability 8.6, 8.9; choose one" in rtx.message("EngineReady")


async def test_auto_never_takes_rtx(rtx: Simulation) -> None:
    _add_node(rtx, "a", "8.9")
    assert await _target(rtx) == "onnx-cuda-fp32"
