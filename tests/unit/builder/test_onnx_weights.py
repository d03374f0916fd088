"""Weights that pass protobuf's limit: as the exporter leaves them, and as engines have them."""

# Collected on machines without onnx, so that it is imported where it is used.
# ruff: noqa: PLC0415

from pathlib import Path

import numpy as np
import pytest

from engine_builder.artefacts import ONNX, ONNX_DATA

pytestmark = [pytest.mark.builder, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("apart", [True, False], ids=["files beside", "inside"])
def test_weights_are_gathered_in_one_file(tmp_path: Path, apart: bool) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from engine_builder.onnx_weights import gather_weights

    wanted = {
        "a": np.arange(3000, dtype=np.float32).reshape(50, 60),
        "b": np.full((60, 70), -2.5, dtype=np.float32),
        "small": np.array([1, -1], dtype=np.int64),
    }
    bias = np.full(70, 0.5, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(bias, "c")),
            helper.make_node("MatMul", ["a", "b"], ["product"]),
            helper.make_node("Add", ["product", "c"], ["y"]),
        ],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [50, 70])],
        [numpy_helper.from_array(value, name) for name, value in wanted.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    source = tmp_path / "scratch"
    source.mkdir()
    onnx.save_model(
        model,
        str(source / ONNX),
        save_as_external_data=apart,
        all_tensors_to_one_file=False,
        size_threshold=100,
        convert_attribute=apart,
    )
    # The exporter of PyTorch does so with constants too.
    assert len(list(source.iterdir())) == (4 if apart else 1)
    gather_weights(source / ONNX, tmp_path / ONNX, ONNX_DATA)
    assert [entry.name for entry in source.iterdir()] == [ONNX]

    bare = onnx.load(str(tmp_path / ONNX), load_external_data=False)
    outside = [entry.name for entry in bare.graph.initializer if entry.external_data]
    assert outside == ["a", "b"]
    assert (tmp_path / ONNX_DATA).stat().st_size < 4096 + 4 * (3000 + 4200) + 4096
    loaded = onnx.load(str(tmp_path / ONNX))
    (constant, *_) = loaded.graph.node
    np.testing.assert_array_equal(numpy_helper.to_array(constant.attribute[0].t), bias)
    found = {entry.name: numpy_helper.to_array(entry) for entry in loaded.graph.initializer}
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    onnx.checker.check_model(str(tmp_path / ONNX))
