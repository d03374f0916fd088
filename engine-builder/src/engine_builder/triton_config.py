"""`config.pbtxt`: what Triton is told about an engine.

No dynamic batching: Triton's batcher neither sorts nor pads, the gateway does both.
"""

from typing import Literal

from engine_builder.artefacts import MODEL_NAME
from reranker_contracts import ServedModel

Accelerator = Literal["cpu", "nvidia"]

_KIND = {"cpu": "KIND_CPU", "nvidia": "KIND_GPU"}


def render_config(model: ServedModel, accelerator: Accelerator, max_batch_size: int) -> str:
    """Protobuf text of Triton's ModelConfig; every value is a name or number of ours."""
    inputs = ",\n".join(_tensor(name, "TYPE_INT32", -1) for name in model.inputs)
    output = _tensor("logits", "TYPE_FP32", model.labels)
    return (
        f'name: "{MODEL_NAME}"\n'
        'backend: "onnxruntime"\n'
        f"max_batch_size: {max_batch_size}\n"
        f"input [\n{inputs}\n]\n"
        f"output [\n{output}\n]\n"
        f"instance_group [\n  {{ kind: {_KIND[accelerator]}, count: 1 }}\n]\n"
    )


def _tensor(name: str, data_type: str, dimension: int) -> str:
    return f'  {{ name: "{name}", data_type: {data_type}, dims: [ {dimension} ] }}'
