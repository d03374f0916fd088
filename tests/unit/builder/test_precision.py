"""16-bit products in a graph: which ones, and that the scores hardly change."""

# Collected on machines without onnx, so that it is imported where it is used.
# ruff: noqa: PLC0415

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from engine_builder.errors import StageError

if TYPE_CHECKING:
    import onnx

pytestmark = pytest.mark.builder


@pytest.fixture
def tiny() -> Any:
    """The module tiny_graphs, which needs onnx."""
    from support import tiny_graphs

    return tiny_graphs


def _scores(model: "onnx.ModelProto", tensors: dict[str, np.ndarray]) -> np.ndarray:
    """By OpenVINO in FP32 settings: it computes 16-bit types of the graph, unlike ONNX Runtime."""
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    return np.asarray(compiled(tensors)["logits"])


@pytest.mark.parametrize(("precision", "tolerance"), [("fp16", 2e-3), ("bf16", 1e-1)])
def test_lowered_graph_scores_alike_and_is_half_as_large(
    precision: Any, tolerance: float, tiny: Any
) -> None:
    import onnx

    from engine_builder.onnx_graph import weight_bytes
    from engine_builder.targets.precision import lower_products

    model, tensors = tiny.cross_encoder(rotary=True), tiny.batch()
    expected, before = _scores(model, tensors), weight_bytes(model.graph)
    assert lower_products(model, precision) == 6
    onnx.checker.check_model(model, full_check=True)
    found = _scores(model, tensors)
    assert 0 < np.abs(found - expected).max() < tolerance
    assert before - weight_bytes(model.graph) == 4 * tiny.HIDDEN**2 * 2


def test_only_products_are_lowered_and_neither_head_nor_angles(tiny: Any) -> None:
    from onnx import TensorProto, shape_inference

    from engine_builder.onnx_graph import head_products
    from engine_builder.targets.precision import lower_products

    model = tiny.cross_encoder(rotary=True)
    assert head_products(model.graph) == ["/logits/Gemm", "/pooled/Gemm"]
    lower_products(model, "fp16")
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {entry.name: entry.type.tensor_type.elem_type for entry in inferred.value_info}
    types |= {entry.name: entry.data_type for entry in inferred.initializer}
    low = {
        node.name
        for node in inferred.node
        if node.op_type != "Cast"
        and TensorProto.FLOAT16 in {types.get(name) for name in (*node.input, *node.output)}
    }
    names = ("q_out", "k_out", "v_out", "scores", "mixed", "attended")
    assert low == {f"/{name}/MatMul" for name in names}


def test_weights_beyond_fp16_keep_their_product_in_fp32(tiny: Any) -> None:
    from onnx import numpy_helper

    from engine_builder.targets.precision import lower_products

    model = tiny.cross_encoder()
    (weights,) = (entry for entry in model.graph.initializer if entry.name == "q")
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1e6, "q"))
    assert lower_products(model, "fp16") == 5
    assert "q" in {entry.name for entry in model.graph.initializer}
    bf16 = tiny.cross_encoder()
    assert lower_products(bf16, "bf16") == 6


def test_a_graph_without_products_is_refused(tiny: Any) -> None:
    from engine_builder.targets.precision import lower_products

    model = tiny.cross_encoder()
    kept = [node for node in model.graph.node if node.op_type != "MatMul"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    with pytest.raises(StageError, match="no matrix product"):
        lower_products(model, "fp16")


def test_angles_become_elementwise_without_changing_a_number(tiny: Any) -> None:
    from engine_builder.targets.precision import lower_products, spread_positions

    model, tensors = tiny.cross_encoder(rotary=True), tiny.batch()
    expected = _scores(model, tensors)
    assert spread_positions(model) == 1
    np.testing.assert_allclose(_scores(model, tensors), expected, atol=1e-6)
    lower_products(model, "fp16", with_head=True)
    types = {entry.name: entry.data_type for entry in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            assert all(name.endswith("_fp16") for name in node.input), node.name
    assert types["frequencies"] == 1
    assert np.abs(_scores(model, tensors) - expected).max() < 0.05
