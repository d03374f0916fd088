"""INT8 weights in a graph: which ones, and that both runtimes make the same of them."""

# Collected on machines without onnx, so that it is imported where it is used.
# ruff: noqa: PLC0415

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine_builder.cpus import cpu_flags
from engine_builder.errors import StageError
from reranker_contracts import StageReason
from reranker_contracts.targets import CPU_FEATURES

if TYPE_CHECKING:
    import onnx

pytestmark = [pytest.mark.builder, pytest.mark.filterwarnings("ignore")]

#: Of the graph in tiny_graphs: those of queries, keys, values and the attention's output.
PRODUCTS = 4


@pytest.fixture
def tiny() -> Any:
    """The module tiny_graphs, which needs onnx."""
    from support import tiny_graphs

    return tiny_graphs


def _by_onnxruntime(model: "onnx.ModelProto", tensors: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(["logits"], tensors)[0])


def _by_openvino(model: "onnx.ModelProto", tensors: dict[str, np.ndarray]) -> np.ndarray:
    import openvino

    from engine_builder.targets.openvino_cpu import settings

    core = openvino.Core()
    graph = core.read_model(model.SerializeToString(), b"")
    compiled = core.compile_model(graph, "CPU", settings("int8", 2))
    return np.asarray(compiled(tensors)["logits"])


def _passes() -> list[tuple[str, Callable[..., np.ndarray]]]:
    return [("block_products", _by_onnxruntime), ("restore_weights", _by_openvino)]


@pytest.mark.parametrize(("name", "score"), _passes())
def test_scores_are_alike_and_weights_a_quarter(
    name: str, score: Callable[..., np.ndarray], tiny: Any
) -> None:
    import onnx

    from engine_builder.onnx_graph import weight_bytes
    from engine_builder.targets import int8_weights

    model, tensors = tiny.cross_encoder(rotary=True), tiny.batch()
    expected, before = _by_onnxruntime(model, tensors), weight_bytes(model.graph)
    assert getattr(int8_weights, name)(model) == PRODUCTS
    onnx.checker.check_model(model)
    assert 0 < np.abs(score(model, tensors) - expected).max() < 0.1
    # A scale for each output channel; blocks are as long as the channels here.
    saved = PRODUCTS * (3 * tiny.HIDDEN**2 - 4 * tiny.HIDDEN)
    assert before - weight_bytes(model.graph) == saved


def test_a_pairs_score_does_not_depend_on_its_neighbours(tiny: Any) -> None:
    """One scale for all activations of a batch would make it."""
    from engine_builder.targets.int8_weights import block_products

    model, tensors = tiny.cross_encoder(), tiny.batch(rows=6)
    block_products(model)
    together = _by_onnxruntime(model, tensors)
    alone = [
        _by_onnxruntime(model, {name: values[row : row + 1] for name, values in tensors.items()})
        for row in range(6)
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


@pytest.mark.parametrize("turned", [False, True])
def test_a_product_by_gemm_and_a_weight_that_is_used_twice(turned: bool, tiny: Any) -> None:
    from onnx import helper, numpy_helper

    from engine_builder.targets.int8_weights import restore_weights

    model = tiny.cross_encoder()
    nodes = {node.name: node for node in model.graph.node}
    query, weights = nodes["/q_out/MatMul"], {w.name: w for w in model.graph.initializer}
    # Gemm takes matrices: the same product, of the one row that a batch of one has.
    if turned:
        values = numpy_helper.to_array(weights["o"]).T
        weights["o"].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), "o"))
        index = list(model.graph.node).index(nodes["/attended/MatMul"])
        model.graph.node[index].CopyFrom(
            helper.make_node(
                "Gemm", ["mixed_row", "o"], ["attended"], name="/attended/Gemm", transB=1
            )
        )
        model.graph.node.insert(
            index, helper.make_node("Squeeze", ["mixed", "row"], ["mixed_row"], name="/row/Squeeze")
        )
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "row"))
    else:
        query.input[1] = "k"
    tensors = tiny.batch(rows=2)
    tensors = {name: values[:1] for name, values in tensors.items()}
    expected = _by_onnxruntime(model, tensors)
    assert restore_weights(model) == PRODUCTS
    assert np.abs(_by_openvino(model, tensors) - expected).max() < 0.1


def test_rows_that_are_no_multiple_of_the_group_are_filled_up() -> None:
    from onnx import TensorProto, helper, numpy_helper

    from engine_builder.targets.int8_weights import block_products

    numbers = np.random.default_rng(5)
    table, weight, head = (
        numbers.normal(size=size).astype(np.float32) for size in ((9, 40), (40, 48), (48, 1))
    )
    named = {"table": table, "weight": weight, "head": head, "first": np.array(0)}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["states"], "/states"),
            helper.make_node("MatMul", ["states", "weight"], ["turned"], "/turned"),
            helper.make_node("Gather", ["turned", "first"], ["pooled"], "/pooled", axis=1),
            helper.make_node("MatMul", ["pooled", "head"], ["logits"], "/logits"),
        ],
        "rows",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in named.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    tensors = {"input_ids": np.arange(9, dtype=np.int32).reshape(9, 1)}
    expected = _by_onnxruntime(model, tensors)
    assert block_products(model) == 1
    found = _by_onnxruntime(model, tensors)
    assert 0 < np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_a_graph_without_products_is_refused(tiny: Any) -> None:
    from engine_builder.targets.int8_weights import block_products, restore_weights

    model = tiny.cross_encoder()
    kept = [node for node in model.graph.node if node.op_type != "MatMul"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for quantise in (block_products, restore_weights):
        with pytest.raises(StageError, match="no matrix product for int8") as caught:
            quantise(model)
        assert caught.value.reason is StageReason.COMPILE_FAILED


def test_openvino_multiplies_in_int8_where_the_cpu_can(tiny: Any) -> None:
    """Else the weights are INT8 and the products as slow as before."""
    import openvino

    from engine_builder.targets.int8_weights import restore_weights
    from engine_builder.targets.openvino_cpu import settings

    if cpu_flags().isdisjoint(CPU_FEATURES["openvino", "int8"]):
        pytest.skip("this CPU has no INT8 products")
    model, tensors = tiny.cross_encoder(), tiny.batch()
    restore_weights(model)
    core = openvino.Core()
    graph = core.read_model(model.SerializeToString(), b"")
    plain = core.compile_model(graph, "CPU", settings("f32", 2))(tensors)["logits"]
    quantised = core.compile_model(graph, "CPU", settings("int8", 2))(tensors)["logits"]
    assert 0 < np.abs(plain - quantised).max() < 0.1
