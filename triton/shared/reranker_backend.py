"""What the Python-based Triton backends have in common.

Triton starts one process per model instance. The gateway has batched already, so requests are
never merged here, and a failure fails only its own request.
"""

import ctypes
import json
import math
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils

#: Triton's name of a type and numpy's.
_TYPES: dict[str, type] = {
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP32": np.float32,
}
_UNLOAD = b"unload\n"
_CONSUMED = b"used_dltensor"
_set_capsule_name = ctypes.pythonapi.PyCapsule_SetName
_set_capsule_name.argtypes = [ctypes.py_object, ctypes.c_char_p]
_CGROUP = Path("/sys/fs/cgroup")


class ModelRejectedError(Exception):
    """The model file and config.pbtxt do not agree; Triton fails the load with this message."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of the model file."""

    name: str
    dtype: type
    rank: int


class Session(Protocol):
    """A loaded model file."""

    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]

    def run(self, names: Sequence[str], feeds: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        """The named outputs for these inputs."""


class Backend:
    """One instance of the served model: a session behind Triton's requests."""

    def __init__(self, runtime: str, config: dict[str, Any], session: Session) -> None:
        batched = config["max_batch_size"] > 0
        self._runtime = runtime
        self._session = session
        self._inputs = check_tensors("input", config["input"], session.inputs, batched)
        check_complete(config["input"], session.inputs)
        self._outputs = check_tensors("output", config["output"], session.outputs, batched)
        self._guard = start_guard()

    def unload(self) -> None:
        """Triton unloads the model: tell the guard that the end of this process is meant."""
        self._guard.communicate(_UNLOAD)

    def answer(self, request: Any) -> Any:
        """One call of the session; whatever goes wrong is the answer to this request."""
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
                error=pb_utils.TritonError(f"{self._runtime}: {type(error).__name__}: {error}"),
            )
        return pb_utils.InferenceResponse(
            output_tensors=[
                output_tensor(name, np.ascontiguousarray(value, dtype=dtype))
                for (name, dtype), value in zip(self._outputs.items(), values, strict=True)
            ]
        )


def model_config(args: dict[str, str]) -> dict[str, Any]:
    """Triton's ModelConfig of `initialize`'s arguments."""
    config: dict[str, Any] = json.loads(args["model_config"])
    return config


def parameter(config: dict[str, Any], name: str, default: str) -> str:
    """A parameter of config.pbtxt."""
    entry = config.get("parameters", {}).get(name)
    return default if entry is None else str(entry["string_value"])


def model_path(args: dict[str, str], config: dict[str, Any]) -> Path:
    """The model file of the version. Raises ModelRejectedError when it is missing."""
    filename = config.get("default_model_filename") or "model.onnx"
    path = Path(args["model_repository"]) / args["model_version"] / filename
    if not path.is_file():
        raise ModelRejectedError(f"{path} does not exist; the engine is incomplete")
    return path


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


def check_tensors(
    kind: str, configured: list[dict[str, Any]], found: Iterable[TensorInfo], batched: bool
) -> dict[str, type]:
    """Name -> numpy type of the configured tensors.

    Raises ModelRejectedError when one is not in the model or has another type or rank there.
    """
    present = {entry.name: entry for entry in found}
    types = {}
    for tensor in configured:
        name = tensor["name"]
        if name not in present:
            raise ModelRejectedError(
                f"config.pbtxt names the {kind} {name!r}; the model has {sorted(present)}"
            )
        if tensor["data_type"] not in _TYPES:
            raise ModelRejectedError(f"{kind} {name!r}: {tensor['data_type']} is not supported")
        dtype = _TYPES[tensor["data_type"]]
        if present[name].dtype is not dtype:
            raise ModelRejectedError(
                f"{kind} {name!r} is {tensor['data_type']} in config.pbtxt "
                f"but {present[name].dtype.__name__} in the model"
            )
        rank = len(tensor["dims"]) + int(batched)
        if present[name].rank != rank:
            raise ModelRejectedError(
                f"{kind} {name!r} has rank {rank} in config.pbtxt "
                f"but {present[name].rank} in the model"
            )
        types[name] = dtype
    return types


def check_complete(configured: list[dict[str, Any]], found: Iterable[TensorInfo]) -> None:
    """Raise ModelRejectedError when the model needs an input that config.pbtxt does not name."""
    missing = {entry.name for entry in found} - {tensor["name"] for tensor in configured}
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
