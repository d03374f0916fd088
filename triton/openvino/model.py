"""Triton backend `openvino` for CPU nodes, on top of Triton's python backend.

Parameters in config.pbtxt: `precision` is what matrix products are computed in (`f32`, `bf16`, or
`int8` of a graph that has its weights in INT8); `cpu_features` are flags of /proc/cpuinfo, of which
this CPU must have one to compute in that precision. On another CPU the engine computes in FP32: its
scores are only closer to the original, but it is slower, and the log says so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as pb_utils
from reranker_backend import (
    Backend,
    ModelRejectedError,
    TensorInfo,
    model_config,
    model_path,
    parameter,
    thread_count,
)

_TYPES: dict[str, type] = {"i32": np.int32, "i64": np.int64, "f32": np.float32}
_PRECISIONS = ("f32", "bf16", "int8")
#: Channels that share a scale when activations are quantised; engines are measured with this one.
_GROUP = 32
_CPUINFO = Path("/proc/cpuinfo")


class TritonPythonModel:
    """One instance of the served model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Compile the model. An exception makes Triton refuse the load and report its text."""
        config = model_config(args)
        path = model_path(args, config)
        threads = thread_count()
        precision = choose_precision(
            parameter(config, "precision", "f32"), parameter(config, "cpu_features", "").split()
        )
        session = OpenVinoSession(path, precision, threads)
        self._backend = Backend("openvino", config, session)
        pb_utils.Logger.log_info(
            f"openvino {openvino.__version__}: {path.name} in {precision}, {threads} threads"
        )

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._backend.unload()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by one inference."""
        return [self._backend.answer(request) for request in requests]


class OpenVinoSession:
    """A model compiled for this CPU. Raises ModelRejectedError for a file that is not a model."""

    def __init__(self, path: Path, precision: str, threads: int) -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP if precision == "int8" else 0,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Cores of a node are shared between containers: threads go where there is room.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._model = openvino.Core().compile_model(path, "CPU", settings)
        except Exception as error:  # openvino raises plain RuntimeError and others
            raise ModelRejectedError(f"{path} cannot be loaded: {error}") from error
        self._request = self._model.create_infer_request()
        # A tensor has the names of all that it goes through unchanged; an input's node has the
        # graph's own.
        self.inputs = [
            _info(entry, entry.get_node().get_friendly_name()) for entry in self._model.inputs
        ]
        self.outputs = [
            _info(entry, name) for entry in self._model.outputs for name in entry.get_names()
        ]

    def run(self, names: Sequence[str], feeds: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        """The named outputs for these inputs."""
        results = self._request.infer(feeds, share_inputs=True)
        return [results[name] for name in names]


def _info(port: Any, name: str) -> TensorInfo:
    kind = _TYPES.get(port.get_element_type().get_type_name(), object)
    return TensorInfo(name, kind, port.get_partial_shape().rank.get_length())


def choose_precision(precision: str, features: Sequence[str]) -> str:
    """`precision`, or `f32` on a CPU that has none of `features`."""
    if precision not in _PRECISIONS:
        raise ModelRejectedError(
            f"parameter precision is {precision!r}; it is one of {', '.join(_PRECISIONS)}"
        )
    if features and cpu_flags().isdisjoint(features):
        pb_utils.Logger.log_warn(
            f"this node's CPU has none of {', '.join(features)}: the engine computes in f32 "
            f"instead of {precision}, which is slower; serve on nodes that have one of them"
        )
        return "f32"
    return precision


def cpu_flags() -> frozenset[str]:
    """The kernel's names of the CPU's features; empty where it has none."""
    for line in _CPUINFO.read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()
