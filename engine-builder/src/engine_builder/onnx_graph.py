"""What the parts of an exported cross-encoder's graph are for, found by the flow of its tensors."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

PRODUCTS = frozenset({"MatMul", "Gemm"})
_PICKS = frozenset({"Gather", "GatherND", "GatherElements", "Slice"})
_SUMS = frozenset({"ReduceSum", "ReduceMean", "ReduceMax"})


def head_products(graph: onnx.GraphProto) -> list[str]:
    """Names of the matrix products between pooling and logits, the last one first.

    Pooling is the first node, seen from the logits, that picks or sums over positions: Gather or
    Slice, or a Reduce over another axis than the last (that would be a norm). A graph without one
    has only its last product in the head.
    """
    producers = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    found: list[str] = []
    last: list[str] = []
    waiting = [(entry.name, False) for entry in graph.output]
    seen: set[str] = set()
    pooled = True
    while waiting:
        name, behind = waiting.pop(0)
        node = producers.get(name)
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if _pools(node, constants):
            continue
        if node.op_type == "Softmax":
            pooled = False
            continue
        if node.op_type in PRODUCTS:
            found.append(node.name)
            if not behind:
                last.append(node.name)
            behind = True
        waiting += [(entry, behind) for entry in node.input]
    return found if pooled else last


def model_products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Matrix products of what the model makes of the texts, in the graph's order.

    Those of positions alone, the angles of rotary embeddings, are not among them: in 16 bits
    neighbouring positions would become one.
    """
    tables = {entry.name for entry in graph.initializer if len(entry.dims) == 2}
    texts: set[str] = set()
    products = []
    for node in graph.node:
        looked_up = node.op_type == "Gather" and node.input[0] in tables
        if looked_up or any(name in texts for name in node.input):
            if node.op_type in {"Shape", "Size"}:
                continue
            texts.update(node.output)
            if node.op_type in PRODUCTS:
                products.append(node)
    return products


def weight_bytes(graph: onnx.GraphProto, *, of_products: bool = False) -> int:
    """Bytes of all constants, wherever they lie, or of those that `model_products` multiply by."""
    used = {name for node in model_products(graph) for name in node.input}
    return sum(
        int(np.prod(entry.dims)) * onnx.helper.tensor_dtype_to_np_dtype(entry.data_type).itemsize
        for entry in _tensors(graph)
        if not of_products or entry.name in used
    )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (entry.t for entry in node.attribute if entry.name == "value")


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {entry.name: entry for entry in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update(
                (node.output[0], entry.t) for entry in node.attribute if entry.name == "value"
            )
    return found


def _pools(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    if node.op_type in _PICKS:
        return True
    if node.op_type not in _SUMS:
        return False
    axes = next((list(entry.ints) for entry in node.attribute if entry.name == "axes"), None)
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).reshape(-1).tolist()
    # Hidden states have three axes.
    return axes is not None and -1 not in axes and 2 not in axes
