"""Triton backend `onnxruntime` for CPU nodes, on top of Triton's python backend.

NVIDIA's GPU image brings a C++ backend of the same name. This one serves the same engine directory
where there is none.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from reranker_backend import (
    Backend,
    ModelRejectedError,
    TensorInfo,
    model_config,
    model_path,
    thread_count,
)

_TYPES: dict[str, type] = {
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
}


class TritonPythonModel:
    """One instance of the served model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model. Any exception here makes Triton refuse the load and report its text."""
        config = model_config(args)
        path = model_path(args, config)
        threads = thread_count()
        # The image also sets ORT_DISABLE_TELEMETRY, which stops what is sent before this line.
        ort.disable_telemetry_events()
        self._backend = Backend("onnxruntime", config, OnnxSession(path, threads))
        pb_utils.Logger.log_info(f"onnxruntime {ort.__version__}: {path.name}, {threads} threads")

    def finalize(self) -> None:
        """Triton unloads the model."""
        self._backend.unload()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by one session call."""
        return [self._backend.answer(request) for request in requests]


class OnnxSession:
    """A CPU session. Raises ModelRejectedError for a file that is not a model."""

    def __init__(self, path: Path, threads: int) -> None:
        self._session = open_session(path, threads)
        self.inputs = [_info(entry) for entry in self._session.get_inputs()]
        self.outputs = [_info(entry) for entry in self._session.get_outputs()]

    def run(self, names: Sequence[str], feeds: dict[str, np.ndarray]) -> Sequence[np.ndarray]:
        """The named outputs for these inputs."""
        values: Sequence[np.ndarray] = self._session.run(list(names), feeds)
        return values


def _info(node: Any) -> TensorInfo:
    return TensorInfo(node.name, _TYPES.get(node.type, object), len(node.shape))


def open_session(path: Path, threads: int) -> ort.InferenceSession:
    """A CPU session on `path`. Raises ModelRejectedError when it is not a model."""
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
