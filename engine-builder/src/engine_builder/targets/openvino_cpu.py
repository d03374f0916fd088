"""OpenVINO on CPU: FP32, or BF16 or INT8 matrix products where the CPU has them.

The graph is the exported one, for INT8 with its weights rounded, for BF16 with marks on what stays
in FP32: OpenVINO compiles it for its CPU when it loads it.
"""

from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from engine_builder.artefacts import IR, ONNX, copy_graph
from engine_builder.batches import Tensors
from engine_builder.cpus import available_cpus, require_cpu
from engine_builder.logits import checked_logits, load_failure, run_failure
from engine_builder.targets.base import Built, Job
from engine_builder.targets.int8_weights import GROUP, restore_weights, write_quantised
from engine_builder.targets.openvino_bf16 import write_mixed
from reranker_contracts import EngineTarget

#: The backend's names.
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "int8": "int8"}


class OpenVinoBuilder:
    """For the Python-based backend `openvino` in triton/."""

    def compile(self, job: Job) -> Built:
        """The graph, with the precision as a parameter of the backend."""
        require_cpu(job.target)
        if job.target.precision == "int8":
            with job.progress.step("quantising weights to INT8"):
                write_quantised(job, restore_weights)
        elif job.target.precision == "bf16":
            with job.progress.step("marking what stays in FP32"):
                write_mixed(job.prepared / ONNX, job.out / IR)
        else:
            copy_graph(job.prepared, job.out, job.progress)
        parameters = {"precision": _PRECISIONS[job.target.precision]}
        if job.target.cpu_features:
            parameters["cpu_features"] = " ".join(job.target.cpu_features)
        return Built("openvino", _filename(job.target), parameters)

    def load(self, directory: Path, target: EngineTarget) -> "OpenVinoScorer":
        """TargetAbsent on a CPU that cannot compute in this precision."""
        require_cpu(target)
        return OpenVinoScorer(directory / _filename(target), _PRECISIONS[target.precision])


def _filename(target: EngineTarget) -> str:
    return IR if target.precision == "bf16" else ONNX


class OpenVinoScorer:
    """A graph, compiled for this CPU."""

    def __init__(self, path: Path, precision: str) -> None:
        core = openvino.Core()
        try:
            self._model = core.compile_model(path, "CPU", settings(precision, available_cpus()))
        # Its exceptions have no common base of their own.
        except Exception as error:
            raise load_failure(path.name, error) from error
        self._request = self._model.create_infer_request()

    @property
    def device(self) -> str:
        """OpenVINO's name of the CPU."""
        return "OpenVINO CPU"

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs."""
        # A tensor has the names of all that it goes through unchanged; the node has the graph's.
        return [str(entry.get_node().get_friendly_name()) for entry in self._model.inputs]

    def run(self, tensors: Tensors, labels: int) -> NDArray[np.float32]:
        """Logits of one batch."""
        rows = next(iter(tensors.values())).shape[0]
        try:
            logits = self._request.infer(tensors)[self._model.output("logits")]
        except Exception as error:
            raise run_failure(error) from error
        return checked_logits(logits, rows, labels)


def settings(precision: str, threads: int) -> dict[str, str | int | bool]:
    """As the backend has them: what is validated is what serves."""
    return {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if precision == "int8" else 0,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Cores of a node are shared between containers: threads go where there is room.
        "ENABLE_CPU_PINNING": False,
    }
