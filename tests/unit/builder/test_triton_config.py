"""config.pbtxt as Triton itself would read it, and the shapes that it is made from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine_builder.shapes import dynamic_shapes, profiled_shapes, usual_rows
from engine_builder.targets import Built
from engine_builder.triton_config import render_config
from reranker_contracts import EngineTarget, PairTemplate, ServedModel, Shapes
from reranker_contracts.model import PassagePiece, QueryPiece
from reranker_contracts.targets import Accelerator, Runtime

text_format = pytest.importorskip("google.protobuf.text_format")
config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")


def _model(inputs: int) -> ServedModel:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return ServedModel(
        name="demo",
        architecture="BertForSequenceClassification",
        family="bert",
        max_length=512,
        pad_id=0,
        template=PairTemplate(pieces=(QueryPiece(), PassagePiece())),
        inputs=names[:inputs],
    )


def _parsed(model: ServedModel, target: EngineTarget, shapes: Shapes, built: Built) -> Any:
    text = render_config(model, target, shapes, built)
    return text_format.Parse(text, config_pb2.ModelConfig())


@pytest.mark.parametrize("accelerator", ["cpu", "nvidia"])
@pytest.mark.parametrize("inputs", [2, 3])
def test_config_is_what_triton_expects(accelerator: Accelerator, inputs: int) -> None:
    target = EngineTarget(
        runtime="onnxruntime", precision="fp32", accelerator=accelerator, max_batch_size=48
    )
    model = _model(inputs)
    config = _parsed(model, target, dynamic_shapes(512, 48), Built("onnxruntime", "model.onnx"))
    assert (config.name, config.backend, config.max_batch_size) == ("reranker", "onnxruntime", 48)
    assert [entry.name for entry in config.input] == list(model.inputs)
    assert {entry.data_type for entry in config.input} == {config_pb2.TYPE_INT32}
    assert [list(entry.dims) for entry in config.input] == [[-1]] * inputs
    (output,) = config.output
    assert (output.name, output.data_type, list(output.dims)) == (
        "logits",
        config_pb2.TYPE_FP32,
        [1],
    )
    (group,) = config.instance_group
    kinds = {"cpu": group.KIND_CPU, "nvidia": group.KIND_GPU}
    assert (group.kind, group.count) == (kinds[accelerator], 1)
    assert not group.profile
    assert not config.HasField("dynamic_batching")
    assert not config.model_warmup
    assert not config.parameters


def test_parameters_reach_the_backend() -> None:
    target = EngineTarget(runtime="openvino", precision="bf16", accelerator="cpu", max_batch_size=8)
    built = Built("openvino", "model.onnx", parameters={"precision": "bf16", "cpu_features": "a b"})
    config = _parsed(_model(2), target, dynamic_shapes(512, 8), built)
    assert config.backend == "openvino"
    assert config.default_model_filename == "model.onnx", "Triton's own default is model.xml"
    found = {key: entry.string_value for key, entry in config.parameters.items()}
    assert found == built.parameters


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_every_profile_is_used_and_warmed_up(runtime: Runtime) -> None:
    target = EngineTarget(
        runtime=runtime, precision="fp16", accelerator="nvidia", compute_capability="8.9",
        max_batch_size=64,
    )  # fmt: skip
    shapes = profiled_shapes(2048, 64)
    backend = runtime.replace("-", "_")
    config = _parsed(_model(3), target, shapes, Built(backend, "model.plan"))
    assert (config.backend, config.default_model_filename) == (backend, "model.plan")
    (group,) = config.instance_group
    assert group.kind == group.KIND_GPU
    # Triton's core refuses them for all backends but TensorRT's.
    named = ["0", "1", "2", "3", "4", "5"] if runtime == "tensorrt" else []
    assert list(group.profile) == named
    warm = [
        (entry.batch_size, {name: list(value.dims) for name, value in entry.inputs.items()})
        for entry in config.model_warmup
    ]
    rows = [(64, 64), (64, 128), (32, 256), (16, 512), (8, 1024), (4, 2048)]
    assert warm == [
        (count, {name: [length] for name in _model(3).inputs}) for count, length in rows
    ]
    for entry in config.model_warmup:
        assert all(value.zero_data for value in entry.inputs.values())


@given(st.integers(8, 131072), st.integers(1, 1024), st.data())
def test_each_batch_within_the_budget_fits_a_profile_of_less_than_two(
    longest: int, rows: int, data: st.DataObject
) -> None:
    shapes = profiled_shapes(longest, rows)
    lengths = [profile.max_length for profile in shapes.profiles]
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == longest
    length = data.draw(st.integers(1, longest))
    most = min(rows, shapes.token_budget // length)
    profile = next(entry for entry in shapes.profiles if length <= entry.max_length)
    assert most <= profile.max_batch_size
    assert usual_rows(shapes, profile) <= profile.max_batch_size <= rows
    assert profile.max_batch_size * profile.max_length <= max(2 * shapes.token_budget, rows * 64)
