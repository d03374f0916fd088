"""TensorRT-RTX engines of real architectures, built for every GPU that it knows, without one."""

# Collected on machines without torch, so that it is imported where it is used.
# ruff: noqa: PLC0415

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from engine_builder.artefacts import ENGINE_VERSION, ONNX, PLAN
from engine_builder.batches import pad_batch
from engine_builder.cli import main
from engine_builder.pair_template import PairEncoder
from engine_builder.probes import load_probes
from reranker_contracts import ServedModel, StageReason, StageResult

pytestmark = [
    pytest.mark.builder,
    pytest.mark.timeout(600),
    # torch, transformers and the exporter warn of their own internals.
    pytest.mark.filterwarnings("ignore"),
]

#: Products of three tiny layers and their attention, and those of the head.
FAMILIES = {"bert": (24, 2), "xlm-roberta": (24, 2), "modernbert": (18, 2)}


@pytest.fixture(params=FAMILIES)
def prepared(
    request: pytest.FixtureRequest, make_model: Callable[[str], Path], tmp_path: Path
) -> tuple[str, Path]:
    """The family's name and its published prepared model."""
    store = tmp_path / "store"
    assert main(["build", "--source", str(make_model(request.param)), "--out", str(store),
                 "--runtime", "onnxruntime", "--precision", "fp32"]) == 0  # fmt: skip
    (directory,) = (store / "prepared").iterdir()
    return request.param, directory


def test_plans_are_built_for_each_compute_capability(
    prepared: tuple[str, Path], tmp_path: Path
) -> None:
    _family, directory = prepared
    plans = set()
    for capability, precision in (
        ("7.5", "fp16"), ("8.0", "fp16"), ("8.6", "bf16"), ("8.9", "fp16"), ("12.0", "bf16"),
        ("12.1", "fp32"),
    ):  # fmt: skip
        engine, result = tmp_path / f"engine-{capability}", tmp_path / "result.json"
        assert main(
            ["compile", "--prepared", str(directory), "--out", str(engine), "--accelerator",
             "nvidia", "--runtime", "tensorrt-rtx", "--precision", precision,
             "--compute-capability", capability, "--result", str(result)]
        ) == 0, result.read_text()  # fmt: skip
        plans.add((engine / ENGINE_VERSION / PLAN).read_bytes())
        assert main(["validate", "--prepared", str(directory), "--engine", str(engine),
                     "--result", str(result)]) == 0  # fmt: skip
        done = StageResult.model_validate_json(result.read_bytes())
        assert done.reason is StageReason.TARGET_ABSENT
    assert len(plans) == 6


def test_the_graph_that_is_built_from_ranks_like_the_exported_one(
    prepared: tuple[str, Path],
) -> None:
    """OpenVINO computes the FP16 graph on the CPU: what the precision alone does to the scores."""
    import onnx
    import openvino

    from engine_builder.onnx_engine import OnnxEngine
    from engine_builder.onnx_graph import head_products
    from engine_builder.targets.precision import lower_products

    family, directory = prepared
    products, head = FAMILIES[family]
    model = onnx.load(directory / ONNX)
    assert len(head_products(model.graph)) == head
    assert lower_products(model, "fp16") == products
    onnx.checker.check_model(model, full_check=True)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString(), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    served = ServedModel.model_validate_json((directory / "model.json").read_bytes())
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    encoder = PairEncoder(tokenizer, served.template, served.max_length)
    rows = [encoder.encode(*pair) for pair in load_probes().pairs()[::20]]
    tensors = pad_batch(rows, served.pad_id, served.inputs)
    expected = OnnxEngine(directory / ONNX).run(tensors, 1)
    found = np.asarray(compiled(tensors)["logits"])
    assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)
