"""ONNX Runtime: FP32 as exported, or INT8 products.

The runtime optimises a graph for its hardware when it loads it, so the bytes are the same wherever
they were compiled.
"""

from pathlib import Path

from engine_builder.artefacts import ONNX, copy_graph
from engine_builder.cpus import require_cpu
from engine_builder.onnx_engine import OnnxEngine
from engine_builder.targets.base import Built, Job
from engine_builder.targets.int8_weights import block_products, write_quantised
from reranker_contracts import EngineTarget


class OnnxRuntimeBuilder:
    """For Triton's backend `onnxruntime`, the C++ one and the Python-based one."""

    def compile(self, job: Job) -> Built:
        """`model.onnx`, the exported one or a quantised one."""
        if job.target.precision == "int8":
            with job.progress.step("quantising to INT8"):
                write_quantised(job, block_products)
        else:
            copy_graph(job.prepared, job.out, job.progress)
        return Built(backend="onnxruntime", filename=ONNX)

    def load(self, directory: Path, target: EngineTarget) -> OnnxEngine:
        """On CUDA when the engine is for it and it is there, else on the CPU."""
        require_cpu(target)
        return OnnxEngine(directory / ONNX, gpu=target.accelerator == "nvidia")
