"""Runs `model.onnx` on ONNX Runtime, the library behind Triton's backend."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from engine_builder.batches import Tensors
from engine_builder.cpus import available_cpus
from engine_builder.logits import checked_logits, load_failure, run_failure

onnxruntime.disable_telemetry_events()


class OnnxEngine:
    """A loaded engine: padded INT32 tensors → FP32 logits [batch, labels]."""

    def __init__(self, path: Path, *, gpu: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        wanted = ["CUDAExecutionProvider"] if gpu else []
        available = onnxruntime.get_available_providers()
        providers = [name for name in wanted if name in available] + ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=providers
            )
        # ONNX Runtime's exceptions have no common base of its own.
        except Exception as error:
            raise load_failure(path.name, error) from error

    @property
    def device(self) -> str:
        """The execution provider that runs most of the graph."""
        return str(self._session.get_providers()[0])

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs."""
        return [entry.name for entry in self._session.get_inputs()]

    def run(self, tensors: Tensors, labels: int) -> NDArray[np.float32]:
        """Logits of one batch; a wrong shape is ValidationFailed, NaN and infinity
        are for the caller to judge."""
        rows = next(iter(tensors.values())).shape[0]
        try:
            (logits,) = self._session.run(["logits"], tensors)
        except Exception as error:
            raise run_failure(error) from error
        return checked_logits(logits, rows, labels)
