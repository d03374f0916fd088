"""Puts INT8 weights of matrix products into a graph, for runtimes that quantise what they meet.

Weights are symmetric and rounded once. The scales of activations are the runtime's: it takes them
when it runs, for each row and group of channels by itself, so that neither an outlier nor another
pair of the batch spoils more than its group. Two forms:

- a product with `DequantizeLinear(int8, scale)`, a scale for each output channel, as OpenVINO wants
- `MatMulNBits`, a scale for each output channel and block of inputs, which ONNX Runtime has

ONNX Runtime's own tool for the latter, MatMulNBitsQuantizer, needs SymPy for it.
"""

from collections.abc import Callable, Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engine_builder.artefacts import ONNX
from engine_builder.errors import defect
from engine_builder.onnx_graph import head_products, model_products
from engine_builder.onnx_weights import save_as_exported
from engine_builder.targets.base import Job
from reranker_contracts import StageReason

#: Channels that share a scale, of activations and in `MatMulNBits` of weights.
GROUP = 32
_LARGEST = 127
#: What stands for 0 in the unsigned weights of MatMulNBits that have no zero points.
_ZERO = 128
#: Of MatMulNBits: activations are INT8, too.
_INT8 = 4


def write_quantised(job: Job, quantise: Callable[[onnx.ModelProto], int]) -> None:
    """The exported graph as `quantise` changes it, its weights beside it where they were so."""
    model = onnx.load(job.prepared / ONNX)
    quantise(model)
    save_as_exported(model, job.out / ONNX, job.prepared)


def restore_weights(model: onnx.ModelProto) -> int:
    """Change `model`, its weights in memory, in place; returns how many products are quantised.

    The embeddings and the head stay FP32: they are cheap, and every error in them is one of the
    score. Raises StageError (CompileFailed) when nothing can be quantised.
    """
    graph = model.graph
    weights = _weights(graph)
    chosen = _products(graph, weights, {"MatMul", "Gemm"})
    others = {name for node in graph.node if node.name not in chosen for name in node.input}
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.name in chosen:
            name, axis = node.input[1], 0 if _is_turned(node) else 1
            if name not in done:
                done.add(name)
                values, scales = _by_channel(numpy_helper.to_array(weights[name]), axis)
                _replace(graph, weights[name], values, scales, keep=name in others)
                nodes.append(_restore(name, axis))
            node.input[1] = f"{name}_restored"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return len(chosen)


def block_products(model: onnx.ModelProto) -> int:
    """The same with `MatMulNBits` in place of the products."""
    graph = model.graph
    weights = _weights(graph)
    chosen = _products(graph, weights, {"MatMul"})
    others = {name for node in graph.node if node.name not in chosen for name in node.input}
    shapes = {name: tuple(entry.dims) for name, entry in weights.items()}
    done: set[str] = set()
    for node in graph.node:
        if node.name not in chosen:
            continue
        name = node.input[1]
        if name not in done:
            done.add(name)
            values, scales = _by_block(numpy_helper.to_array(weights[name]))
            _replace(graph, weights[name], values, scales, keep=name in others)
        rows, columns = shapes[name]
        inputs = [node.input[0], f"{name}_int8", f"{name}_scale"]
        blocked = helper.make_node(
            "MatMulNBits", inputs, list(node.output), node.name, domain="com.microsoft",
            K=rows, N=columns, bits=8, block_size=GROUP, accuracy_level=_INT8,
        )  # fmt: skip
        node.CopyFrom(blocked)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return len(chosen)


def _weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {
        entry.name: entry
        for entry in graph.initializer
        if entry.data_type == TensorProto.FLOAT and len(entry.dims) == 2
    }


def _products(graph: onnx.GraphProto, weights: Collection[str], kinds: set[str]) -> set[str]:
    """Names of the products of something with a weight, without those of the head."""
    head = set(head_products(graph))
    found = {
        node.name
        for node in model_products(graph)
        if node.op_type in kinds and node.name not in head and node.input[1] in weights
    }
    if not found:
        raise defect(StageReason.COMPILE_FAILED, "the graph has no matrix product for int8")
    return found


def _is_turned(node: onnx.NodeProto) -> bool:
    """Whether the weight of a Gemm has its output channels in rows."""
    return any(entry.name == "transB" and entry.i for entry in node.attribute)


def _by_channel(
    weight: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """INT8 and the scales of the channels along `axis`."""
    scales = _scales(weight, 1 - axis)
    return _rounded(weight / scales), scales.reshape(-1)


def _by_block(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[rows, columns] → unsigned [columns, blocks, GROUP] and scales [columns, blocks]."""
    rows, columns = weight.shape
    padded = np.pad(weight.T, ((0, 0), (0, -rows % GROUP))).reshape(columns, -1, GROUP)
    scales = _scales(padded, 2)
    return (_rounded(padded / scales).astype(np.int16) + _ZERO).astype(np.uint8), scales[:, :, 0]


def _scales(weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    scales: NDArray[np.float32] = np.abs(weight).max(axis=axis, keepdims=True)
    scales /= np.float32(_LARGEST)
    scales[scales == 0] = 1
    return scales


def _rounded(values: NDArray[np.float32]) -> NDArray[np.int8]:
    return np.rint(values).astype(np.int8)


def _replace(
    graph: onnx.GraphProto,
    weight: onnx.TensorProto,
    values: NDArray[np.generic],
    scales: NDArray[np.float32],
    *,
    keep: bool,
) -> None:
    """Put `values` in place of a weight, or beside it where something else uses that."""
    name = weight.name
    # In place: what is removed from a graph keeps its memory.
    entry = graph.initializer.add() if keep else weight
    entry.CopyFrom(numpy_helper.from_array(values, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))


def _restore(name: str, axis: int) -> onnx.NodeProto:
    inputs, output = [f"{name}_int8", f"{name}_scale"], f"{name}_restored"
    return helper.make_node("DequantizeLinear", inputs, [output], output, axis=axis)
