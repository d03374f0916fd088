"""Which targets there are, and in which order they are tried."""

import pytest
from pydantic import ValidationError

from reranker_contracts import EngineTarget, Runtimes, candidates
from reranker_contracts.targets import CPU_FEATURES, PRECISIONS, Accelerator, Precision, Runtime

ALL = Runtimes(
    recipe=1, onnxruntime="1", openvino="1", tensorrt="1", tensorrt_rtx="1",
    cpu_features=("amx_bf16",),
)  # fmt: skip


def _tried(
    accelerator: Accelerator,
    runtime: Runtime | None = None,
    precision: Precision | None = None,
    capability: str | None = None,
    runtimes: Runtimes = ALL,
) -> list[str]:
    found = candidates(
        runtimes,
        accelerator,
        runtime=runtime,
        precision=precision,
        compute_capability=capability,
        max_batch_size=8,
    )
    return [str(target) for target in found]


def test_auto_goes_from_fast_to_portable() -> None:
    assert _tried("cpu") == ["openvino bf16 on cpu", "openvino fp32 on cpu",
                             "onnxruntime fp32 on cpu"]  # fmt: skip
    assert _tried("nvidia") == ["onnxruntime fp32 on nvidia"]
    assert _tried("nvidia", capability="9.0") == [
        "tensorrt fp16 on nvidia 9.0", "tensorrt bf16 on nvidia 9.0",
        "tensorrt fp32 on nvidia 9.0", "onnxruntime fp32 on nvidia",
    ]  # fmt: skip


def test_auto_names_only_what_the_image_has_and_what_is_worth_it() -> None:
    plain = Runtimes(recipe=1, onnxruntime="1")
    assert _tried("cpu", runtimes=plain) == ["onnxruntime fp32 on cpu"]
    for flag, first in (("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx512_vnni", "fp32")):
        node = ALL.model_copy(update={"cpu_features": (flag,)})
        assert _tried("cpu", runtimes=node)[0] == f"openvino {first} on cpu"
        assert _tried("cpu", precision="bf16", runtimes=node) == ["openvino bf16 on cpu"]


def test_what_is_asked_for_is_all_there_is() -> None:
    assert _tried("cpu", "onnxruntime") == ["onnxruntime fp32 on cpu"]
    assert _tried("cpu", "onnxruntime", "int8") == ["onnxruntime int8 on cpu"]
    assert _tried("cpu", precision="int8") == ["openvino int8 on cpu", "onnxruntime int8 on cpu"]
    assert _tried("cpu", "onnxruntime", "bf16") == []
    assert _tried("nvidia", "openvino") == []
    assert _tried("nvidia", "tensorrt") == []
    rtx = _tried("nvidia", "tensorrt-rtx", capability="8.9")
    assert rtx == [f"tensorrt-rtx {kind} on nvidia 8.9" for kind in ("fp16", "bf16", "fp32")]
    assert _tried("nvidia", "tensorrt-rtx", capability="9.0") == [], "it has none for that GPU"
    missing = Runtimes(recipe=1, onnxruntime="1")
    assert _tried("cpu", "openvino", "fp32", runtimes=missing) == ["openvino fp32 on cpu"]


def test_targets_that_do_not_exist_cannot_be_named() -> None:
    for wrong in (
        {"runtime": "openvino", "precision": "fp16", "accelerator": "cpu"},
        {"runtime": "openvino", "precision": "fp32", "accelerator": "nvidia"},
        {"runtime": "tensorrt", "precision": "fp16", "accelerator": "nvidia"},
        {"runtime": "onnxruntime", "precision": "fp32", "accelerator": "cpu",
         "compute_capability": "8.9"},
        {"runtime": "tensorrt", "precision": "fp16", "accelerator": "nvidia",
         "compute_capability": "8.9; rm"},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            EngineTarget.model_validate({**wrong, "max_batch_size": 1})


def test_each_feature_belongs_to_a_target_on_cpu() -> None:
    for runtime, precision in CPU_FEATURES:
        assert precision in PRECISIONS[runtime, "cpu"]
