"""config.pbtxt as Triton itself would read it."""

import pytest

from engine_builder.triton_config import Accelerator, render_config
from reranker_contracts import PairTemplate, ServedModel
from reranker_contracts.model import PassagePiece, QueryPiece

text_format = pytest.importorskip("google.protobuf.text_format")
config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")


@pytest.mark.parametrize("accelerator", ["cpu", "nvidia"])
@pytest.mark.parametrize("types", [True, False])
def test_config_is_what_triton_expects(accelerator: Accelerator, types: bool) -> None:
    inputs = ("input_ids", "attention_mask", "token_type_ids")[: 3 if types else 2]
    model = ServedModel(
        name="demo",
        architecture="BertForSequenceClassification",
        family="bert",
        max_length=512,
        pad_id=0,
        template=PairTemplate(pieces=(QueryPiece(), PassagePiece())),
        inputs=inputs,
    )
    text = render_config(model, accelerator, max_batch_size=48)
    config = text_format.Parse(text, config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("reranker", "onnxruntime", 48)
    assert [entry.name for entry in config.input] == list(inputs)
    assert {entry.data_type for entry in config.input} == {config_pb2.TYPE_INT32}
    assert [list(entry.dims) for entry in config.input] == [[-1]] * len(inputs)
    (output,) = config.output
    assert (output.name, output.data_type, list(output.dims)) == (
        "logits",
        config_pb2.TYPE_FP32,
        [1],
    )
    (group,) = config.instance_group
    kinds = {"cpu": group.KIND_CPU, "nvidia": group.KIND_GPU}
    assert (group.kind, group.count) == (kinds[accelerator], 1)
    assert not config.HasField("dynamic_batching")
