"""`config.pbtxt`: what Triton is told about an engine.

No dynamic batching: Triton's batcher neither sorts nor pads, the gateway does both. Source of the
form: `model_config.proto` of Triton's common repository.
"""

from engine_builder.artefacts import MODEL_NAME
from engine_builder.shapes import usual_rows
from engine_builder.targets.base import Built
from reranker_contracts import EngineTarget, Profile, ServedModel, Shapes

_KIND = {"cpu": "KIND_CPU", "nvidia": "KIND_GPU"}


def render_config(model: ServedModel, target: EngineTarget, shapes: Shapes, built: Built) -> str:
    """Protobuf text of Triton's ModelConfig; every value is a name or number of ours."""
    inputs = ",\n".join(_tensor(name, "TYPE_INT32", -1) for name in model.inputs)
    output = _tensor("logits", "TYPE_FP32", model.labels)
    text = (
        f'name: "{MODEL_NAME}"\n'
        f'backend: "{built.backend}"\n'
        # Triton has a default of its own for each backend that it knows by name.
        f'default_model_filename: "{built.filename}"\n'
        f"max_batch_size: {target.max_batch_size}\n"
        f"input [\n{inputs}\n]\n"
        f"output [\n{output}\n]\n"
        f"instance_group [\n  {_instances(target, shapes, built)}\n]\n"
    )
    text += "".join(
        f'parameters {{ key: "{key}", value: {{ string_value: "{value}" }} }}\n'
        for key, value in sorted(built.parameters.items())
    )
    return text + "".join(
        _warm_up(model, number, usual_rows(shapes, profile), profile)
        for number, profile in enumerate(shapes.profiles)
    )


def _instances(target: EngineTarget, shapes: Shapes, built: Built) -> str:
    """TensorRT's backend uses profiles that are named, and without the list the first one alone.

    Of any other backend Triton refuses the list; ours finds the profiles in the plan.
    """
    count = len(shapes.profiles) if built.backend == "tensorrt" else 0
    numbers = ", ".join(f'"{number}"' for number in range(count))
    profiles = f", profile: [ {numbers} ]" if numbers else ""
    return f"{{ kind: {_KIND[target.accelerator]}, count: 1{profiles} }}"


def _tensor(name: str, data_type: str, dimension: int) -> str:
    return f'  {{ name: "{name}", data_type: {data_type}, dims: [ {dimension} ] }}'


def _warm_up(model: ServedModel, number: int, rows: int, profile: Profile) -> str:
    """One batch before the model counts as ready. Token 0 is in every vocabulary."""
    inputs = "".join(
        f'  inputs {{ key: "{name}", value: {{ data_type: TYPE_INT32, '
        f"dims: [ {profile.max_length} ], zero_data: true }} }}\n"
        for name in model.inputs
    )
    return f'model_warmup {{\n  name: "profile-{number}", batch_size: {rows}\n{inputs}}}\n'
