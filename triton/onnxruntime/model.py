"""Triton backend `onnxruntime` for CPU nodes, on top of Triton's python backend.

NVIDIA's GPU image brings a C++ backend of the same name. This one serves the same engine directory
where there is none: Triton starts one process per model instance, which loads this file,
`initialize` opens `model.onnx` of the version directory, and `execute` runs one session call per
request. The gateway has batched already, so requests are never merged here.
"""

import ctypes
import json
import math
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

#: Triton's name of a type, numpy's, and ONNX Runtime's.
_TYPES: dict[str, tuple[type, str]] = {
    "TYPE_INT32": (np.int32, "tensor(int32)"),
    "TYPE_INT64": (np.int64, "tensor(int64)"),
    "TYPE_FP32": (np.float32, "tensor(float)"),
}
_UNLOAD = b"unload\n"
_CONSUMED = b"used_dltensor"
_set_capsule_name = ctypes.pythonapi.PyCapsule_SetName
_set_capsule_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
_CGROUP = Path("/sys/fs/cgroup")


class ModelRejectedError(Exception):
    """The model file and config.pbtxt do not agree; Triton fails the load with this message."""


class TritonPythonModel:
    """One instance of the served model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model. Any exception here makes Triton refuse the load and report its text."""
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        threads = thread_count()
        # The image also sets ORT_DISABLE_TELEMETRY, which stops what is sent before this line.
        ort.disable_telemetry_events()
        self._session = open_session(path, threads)
        batched = config["max_batch_size"] > 0
        self._inputs = check_tensors("input", config["input"], self._session.get_inputs(), batched)
        check_complete(config["input"], self._session.get_inputs())
        self._outputs = check_tensors(
            "output", config["output"], self._session.get_outputs(), batched
        )
        self._guard = start_guard()
        pb_utils.Logger.log_info(
            f"onnxruntime {ort.__version__}: {path.name} with {threads} threads, "
            f"inputs {', '.join(self._inputs)}"
        )

    def finalize(self) -> None:
        """Triton unloads the model: tell the guard that the end of this process is meant."""
        self._guard.communicate(_UNLOAD)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by one session call; a failure fails only its own request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            # Not as_numpy(): with NumPy 2 it gives wrong strides, without an error.
            feeds = {
                name: np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))
                for name in self._inputs
            }
            values = self._session.run(list(self._outputs), feeds)
        except Exception as error:  # Triton expects an answer for every request
            return pb_utils.InferenceResponse(
                output_tensors=[],
                error=pb_utils.TritonError(f"onnxruntime: {type(error).__name__}: {error}"),
            )
        return pb_utils.InferenceResponse(
            output_tensors=[
                output_tensor(name, np.ascontiguousarray(value, dtype=dtype))
                for (name, dtype), value in zip(self._outputs.items(), values, strict=True)
            ]
        )


def output_tensor(name: str, value: np.ndarray) -> Any:
    """`value` as Triton's tensor, by DLPack: with NumPy 2 Tensor(name, value) holds no data."""
    capsule = value.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # The stub marks the capsule as consumed by a name that NumPy does not know, and NumPy would
    # print a traceback for every answer when it drops the capsule.
    _set_capsule_name(capsule, _CONSUMED)
    return tensor


def start_guard() -> "subprocess.Popen[bytes]":
    """A shell that ends Triton when this process dies (crash, out of memory).

    Triton would go on and report the model as ready while every request fails. The kernel closes
    the pipe when this process is gone, so the shell neither polls nor outlives its purpose.
    """
    script = 'read -r word; [[ $word == unload ]] || kill -TERM "$1"'
    return subprocess.Popen(
        ["/bin/bash", "-c", script, "backend-guard", str(os.getppid())], stdin=subprocess.PIPE
    )


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """A CPU session on `path`. Raises ModelRejectedError when it is missing or not a model."""
    if not path.is_file():
        raise ModelRejectedError(f"{path} does not exist; the engine is incomplete")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Shapes change with every batch: a memory plan per shape would only pile up.
    options.enable_mem_pattern = False
    # Waiting threads sleep: spinning would burn the pod's CPU quota, which the gateway shares.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ModelRejectedError(f"{path} cannot be loaded: {error}") from error


def check_tensors(
    kind: str, configured: list[dict[str, Any]], found: list[Any], batched: bool
) -> dict[str, type]:
    """Name -> numpy type of the configured tensors.

    Raises ModelRejectedError when one is not in the model or has another type or rank there.
    """
    present = {node.name: node for node in found}
    types = {}
    for tensor in configured:
        name = tensor["name"]
        if name not in present:
            raise ModelRejectedError(
                f"config.pbtxt names the {kind} {name!r}; the model has {sorted(present)}"
            )
        if tensor["data_type"] not in _TYPES:
            raise ModelRejectedError(f"{kind} {name!r}: {tensor['data_type']} is not supported")
        dtype, onnx_type = _TYPES[tensor["data_type"]]
        if present[name].type != onnx_type:
            raise ModelRejectedError(
                f"{kind} {name!r} is {tensor['data_type']} in config.pbtxt "
                f"but {present[name].type} in the model"
            )
        rank = len(tensor["dims"]) + int(batched)
        if len(present[name].shape) != rank:
            raise ModelRejectedError(
                f"{kind} {name!r} has rank {rank} in config.pbtxt "
                f"but shape {present[name].shape} in the model"
            )
        types[name] = dtype
    return types


def check_complete(configured: list[dict[str, Any]], found: list[Any]) -> None:
    """Raise ModelRejectedError when the model needs an input that config.pbtxt does not name."""
    missing = {node.name for node in found} - {tensor["name"] for tensor in configured}
    if missing:
        raise ModelRejectedError(f"the model also needs {sorted(missing)}; add it to config.pbtxt")


def thread_count() -> int:
    """RERANKER_THREADS, else the whole CPUs that the container may use, at least 1."""
    text = os.environ.get("RERANKER_THREADS", "").strip()
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ModelRejectedError(
                f"RERANKER_THREADS={text!r}: give a whole number of at least 1"
            )
        return int(text)
    return max(1, math.floor(min(len(os.sched_getaffinity(0)), _cgroup_cpus())))


def _cgroup_cpus() -> float:
    """CPUs by the cgroup's quota (v2, then v1); infinity when there is none."""
    for read in (_quota_v2, _quota_v1):
        try:
            quota, period = read()
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


def _quota_v2() -> tuple[float, float]:
    quota, period = (_CGROUP / "cpu.max").read_text().split()
    return float("inf" if quota == "max" else quota), float(period)


def _quota_v1() -> tuple[float, float]:
    return (
        float((_CGROUP / "cpu/cpu.cfs_quota_us").read_text()),
        float((_CGROUP / "cpu/cpu.cfs_period_us").read_text()),
    )
