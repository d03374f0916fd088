"""How much GPU memory an engine will take, before minutes are spent on building it."""

from pathlib import Path

import onnx
import openvino

from engine_builder.artefacts import ONNX
from engine_builder.errors import StageError
from engine_builder.onnx_graph import weight_bytes
from engine_builder.targets.base import Job
from reranker_contracts import Profile, StageReason

#: CUDA's context, the runtime's code and its workspace.
_FIXED = 1 << 30


def check_memory(job: Job) -> int:
    """Bytes that the engine needs; raises StageError (EngineTooLarge) when the GPU has less.

    An upper bound: weights, and the activations of the largest batch as they live at the same time
    in the graph's order, without what the builder fuses. Triton keeps one profile's activations
    at a time (`execution_context_allocation_strategy`).
    """
    graph = onnx.load(job.prepared / ONNX, load_external_data=False).graph
    weights = weight_bytes(graph)
    if job.target.precision != "fp32":
        # Embeddings, norms and head stay FP32.
        weights -= weight_bytes(graph, of_products=True) // 2
    sizes = [peak_activations(job.prepared / ONNX, entry) for entry in job.shapes.profiles]
    needed = weights + max(sizes) + _FIXED
    if job.gpu_memory is not None and needed > job.gpu_memory:
        largest = job.shapes.profiles[sizes.index(max(sizes))]
        batch = f"{largest.max_batch_size} rows of {largest.max_length} tokens"
        raise StageError(
            StageReason.ENGINE_TOO_LARGE,
            f"the engine needs about {needed >> 20} MiB of GPU memory ({weights >> 20} for "
            f"weights, {max(sizes) >> 20} for {batch}, {_FIXED >> 20} for the runtime), the GPU "
            f"has {job.gpu_memory >> 20}; lower spec.engine.maxLength (--max-length) or "
            "maxBatchSize (--max-batch-size), or use a larger GPU",
        )
    return needed


def peak_activations(path: Path, profile: Profile) -> int:
    """Bytes of the tensors that live at the same time for the profile's largest input."""
    model = openvino.Core().read_model(path)
    shape = [profile.max_batch_size, profile.max_length]
    model.reshape({number: shape for number, _input in enumerate(model.inputs)})
    operations = model.get_ordered_ops()
    last_use: dict[tuple[str, int], int] = {}
    for number, operation in enumerate(operations):
        for entry in operation.inputs():
            source = entry.get_source_output()
            last_use[source.get_node().get_friendly_name(), source.get_index()] = number
    alive = peak = 0
    leaving: dict[int, int] = {}
    for number, operation in enumerate(operations):
        if operation.get_type_name() != "Constant":
            for entry in operation.outputs():
                size = _bytes(entry)
                alive += size
                end = last_use.get((operation.get_friendly_name(), entry.get_index()), number)
                leaving[end] = leaving.get(end, 0) + size
        peak = max(peak, alive)
        alive -= leaving.pop(number, 0)
    return peak


def _bytes(output: "openvino.Output") -> int:
    """Of a tensor; one whose shape depends on values is small."""
    shape = output.get_partial_shape()
    if shape.is_dynamic:
        return 0
    count = 1
    for size in shape.to_shape():
        count *= int(size)
    return count * int(output.get_element_type().size)
