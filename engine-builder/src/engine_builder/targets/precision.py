"""Puts 16-bit matrix products into a graph of FP32.

Strongly typed builders (TensorRT 11, TensorRT-RTX) take every type from the graph. Only the large
products go to 16 bits; what an order of near ties hangs on stays FP32: residual sums, norms,
softmax, pooling and head. TensorRT fuses the casts into the products.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine_builder.errors import defect
from engine_builder.onnx_graph import head_products, model_products
from reranker_contracts import StageReason
from reranker_contracts.targets import Precision

_TYPES: dict[Precision, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_LARGEST_FP16 = float(np.finfo(np.float16).max)


def lower_products(model: onnx.ModelProto, precision: Precision, *, with_head: bool = False) -> int:
    """Change `model`, its weights in memory, in place; returns how many products were lowered.

    A product whose weights FP16 can't hold stays FP32. Raises StageError (CompileFailed) when
    nothing could be lowered: the engine would not be what it is called. `with_head` is for GPUs
    that have no products in FP32.
    """
    lowering = _Lowering(model.graph, precision)
    head = set() if with_head else set(head_products(model.graph))
    lowered = [
        node
        for node in model_products(model.graph)
        if node.name not in head and lowering.fits(node)
    ]
    if not lowered:
        raise defect(StageReason.COMPILE_FAILED, f"the graph has no matrix product for {precision}")
    lowering.apply(lowered)
    return len(lowered)


def spread_positions(model: onnx.ModelProto) -> int:
    """Make products of a column and a row, the angles of rotary embeddings, elementwise.

    The same numbers in FP32, for GPUs that have no products in FP32. Returns how many.
    """
    texts = {node.name for node in model_products(model.graph)}
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        entry.name: entry.type.tensor_type.shape.dim
        for entry in (*inferred.value_info, *inferred.input)
    }
    sizes = {name: [dim.dim_value for dim in shape] for name, shape in shapes.items()}
    sizes |= {entry.name: list(entry.dims) for entry in model.graph.initializer}
    count = 0
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.name not in texts:
            column, row = (sizes.get(name, []) for name in node.input)
            if column[-1:] == [1] or row[-2:-1] == [1]:
                node.op_type = "Mul"
                count += 1
    return count


class _Lowering:
    def __init__(self, graph: onnx.GraphProto, precision: Precision) -> None:
        self._graph = graph
        self._type = _TYPES[precision]
        self._suffix = f"_{precision}"
        self._weights = {
            entry.name: entry for entry in graph.initializer if entry.data_type == TensorProto.FLOAT
        }
        self._twins: set[str] = set()
        self._ends = {entry.name for entry in graph.output}

    def fits(self, node: onnx.NodeProto) -> bool:
        """Whether the product's weights are numbers in 16 bits."""
        if self._type == TensorProto.BFLOAT16:
            return True
        return all(
            np.abs(numpy_helper.to_array(self._weights[name])).max(initial=0) <= _LARGEST_FP16
            for name in node.input
            if name in self._weights
        )

    def apply(self, lowered: list[onnx.NodeProto]) -> None:
        """Rewrite the graph's nodes, in an order in which each finds its inputs."""
        names = {node.name for node in lowered}
        nodes = list(self._graph.node)
        result: list[onnx.NodeProto] = []
        for node in nodes:
            if node.name not in names:
                result.append(node)
                continue
            inputs = [self._low(name, result) for name in node.input]
            del node.input[:]
            node.input.extend(inputs)
            output = node.output[0]
            node.output[0] = output + self._suffix
            self._twins.add(output)
            back = helper.make_node(
                "Cast", [node.output[0]], [output], f"{node.name}{self._suffix}_out",
                to=TensorProto.FLOAT,
            )  # fmt: skip
            result += [node, back]
        del self._graph.node[:]
        self._graph.node.extend(result)
        self._drop_unused()

    def _low(self, name: str, nodes: list[onnx.NodeProto]) -> str:
        """The 16-bit twin of a tensor, made when it is first asked for."""
        if not name:
            return name
        twin = name + self._suffix
        if name in self._twins:
            return twin
        self._twins.add(name)
        if name in self._weights:
            values = numpy_helper.to_array(self._weights[name])
            kind = helper.tensor_dtype_to_np_dtype(self._type)
            self._graph.initializer.append(numpy_helper.from_array(values.astype(kind), twin))
        else:
            nodes.append(helper.make_node("Cast", [name], [twin], f"{twin}_in", to=self._type))
        return twin

    def _drop_unused(self) -> None:
        """FP32 results and weights whose last user went to 16 bits would stay in the file."""
        used = {name for node in self._graph.node for name in node.input} | self._ends
        nodes = [node for node in self._graph.node if not used.isdisjoint(node.output)]
        weights = [entry for entry in self._graph.initializer if entry.name in used]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(weights)
