"""ONNX Runtime: FP32 as exported, or INT8 with dynamic quantisation.

The runtime optimises a graph for its hardware when it loads it, so the bytes are the same wherever
they were compiled.
"""

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from engine_builder.artefacts import ONNX, ONNX_DATA, copy_graph
from engine_builder.cpus import require_cpu
from engine_builder.errors import defect
from engine_builder.logits import first_line
from engine_builder.onnx_engine import OnnxEngine
from engine_builder.onnx_graph import head_products
from engine_builder.targets.base import Built, Job
from reranker_contracts import EngineTarget, StageReason

#: Bytes of weights from which on they lie beside the graph.
_INLINE_LIMIT = 1_900_000_000


class OnnxRuntimeBuilder:
    """For Triton's backend `onnxruntime`, the C++ one and the Python-based one."""

    def compile(self, job: Job) -> Built:
        """`model.onnx`, the exported one or a quantised one."""
        if job.target.precision == "int8":
            with job.progress.step("quantising to INT8"):
                _quantise(job)
        else:
            copy_graph(job.prepared, job.out, job.progress)
        return Built(backend="onnxruntime", filename=ONNX)

    def load(self, directory: Path, target: EngineTarget) -> OnnxEngine:
        """On CUDA when the engine is for it and it is there, else on the CPU."""
        require_cpu(target)
        return OnnxEngine(directory / ONNX, gpu=target.accelerator == "nvidia")


def _quantise(job: Job) -> None:
    """Weights of matrix products to INT8 per channel, their inputs at run time.

    The embeddings and the head stay FP32: they are cheap, and every error in them is one of the
    score.
    """
    prepared, out = job.prepared, job.out
    graph = onnx.load(prepared / ONNX, load_external_data=False)
    size = (prepared / ONNX).stat().st_size
    if (prepared / ONNX_DATA).exists():
        size += (prepared / ONNX_DATA).stat().st_size
    with (
        tempfile.TemporaryDirectory(dir=out) as source,
        tempfile.TemporaryDirectory(dir=out) as scratch,
    ):
        # It writes a graph with shapes beside the one it reads, which may not be changed.
        copy_graph(prepared, Path(source), job.progress)
        try:
            quantize_dynamic(
                Path(source) / ONNX,
                Path(scratch) / ONNX,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=head_products(graph.graph),
                use_external_data_format=size > _INLINE_LIMIT,
            )
        except OSError:
            # Of a full volume, which is told as that.
            raise
        # The quantiser raises what it meets.
        except Exception as error:
            raise defect(
                StageReason.COMPILE_FAILED, f"the graph cannot be quantised: {first_line(error)}"
            ) from error
        for entry in sorted(Path(scratch).iterdir()):
            entry.rename(out / entry.name)
