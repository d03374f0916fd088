"""Tiny random models of every family, from files to engine, against transformers itself.

The reference here is independent of the code under test: transformers tokenises the pair, cuts it
and runs it, one pair at a time.
"""

# Collected on machines without torch, so that it is imported where it is used.
# ruff: noqa: PLC0415

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from engine_builder.artefacts import ENGINE_VERSION, ONNX, ONNX_DATA
from engine_builder.batches import pad_batch
from engine_builder.cli import main
from engine_builder.errors import StageError
from engine_builder.families import FAMILIES
from engine_builder.pair_template import PairEncoder
from engine_builder.probes import load_probes
from engine_builder.progress import Progress
from engine_builder.store import Store
from reranker_contracts import (
    PrepareIdentity,
    ServedModel,
    StageReason,
    StageResult,
    verify_artefact,
)

pytestmark = [
    pytest.mark.builder,
    pytest.mark.timeout(600),
    # torch, transformers and the exporter warn of their own internals.
    pytest.mark.filterwarnings("ignore"),
]

LENGTH = 64


def _transformers_scores(directory: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    """One pair at a time, so without any padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    names = ["input_ids", "attention_mask"]
    if getattr(model.config, "type_vocab_size", 0) > 1:
        names.append("token_type_ids")
    scores = []
    for query, passage in pairs:
        encoded = tokenizer(
            query,
            passage,
            truncation="only_second",
            max_length=LENGTH,
            return_tensors="pt",
            return_token_type_ids=True,
        )
        with torch.inference_mode():
            logits = model(**{name: encoded[name] for name in names}).logits
        scores.append(float(logits[0, 0]))
    return np.array(scores)


def _engine_scores(engine: Path, pairs: list[tuple[str, str]], size: int) -> np.ndarray:
    from engine_builder.onnx_engine import OnnxEngine

    served = ServedModel.model_validate_json((engine / "model.json").read_bytes())
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    encoder = PairEncoder(tokenizer, served.template, served.max_length)
    loaded = OnnxEngine(engine / ENGINE_VERSION / ONNX)
    scores: list[float] = []
    for start in range(0, len(pairs), size):
        rows = [encoder.encode(*pair) for pair in pairs[start : start + size]]
        tensors = pad_batch(rows, served.pad_id, served.inputs)
        assert all(tensor.dtype == np.int32 for tensor in tensors.values())
        scores += [float(score) for score in loaded.run(tensors, 1)[:, 0]]
    return np.array(scores)


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_engine_scores_as_transformers_does(
    family: str, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    model, store, result = make_model(family), tmp_path / "store", tmp_path / "result.json"
    assert (
        main(["build", "--source", str(model), "--out", str(store), "--result", str(result)]) == 0
    )
    done = StageResult.model_validate_json(result.read_bytes())
    assert done.resolved is not None
    assert (done.resolved.family, done.resolved.max_length) == (family, LENGTH)
    assert done.parity is not None
    assert done.parity.kendall_tau >= 0.995
    (engine,) = (store / "engines").iterdir()
    verify_artefact(engine, engine.name)

    pairs = load_probes().pairs()[::6]
    expected = _transformers_scores(model, pairs)
    assert np.ptp(expected) > 0.05, "scores too close to tell models apart"
    forward = _engine_scores(engine, pairs, size=13)
    backward = _engine_scores(engine, pairs[::-1], size=5)[::-1]
    np.testing.assert_allclose(forward, expected, atol=2e-4)
    np.testing.assert_allclose(backward, expected, atol=2e-4)


def test_export_is_deterministic_and_splits_large_weights(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from engine_builder.stages.export import export
    from engine_builder.stages.publish import publish
    from engine_builder.toolchain import installed_toolchain

    model = make_model("bert")
    contents = []
    for name in ("first", "second"):
        export(model, tmp_path / name, max_length=None, progress=Progress("export"))
        contents.append({entry.name: entry.read_bytes() for entry in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]

    split = tmp_path / "split"
    export(model, split, max_length=32, progress=Progress("export"), inline_limit=0)
    assert (split / ONNX).stat().st_size < (split / ONNX_DATA).stat().st_size
    identity = PrepareIdentity(revision="r", max_length=32, toolchain=installed_toolchain())
    publish(split, tmp_path / "store", identity, progress=Progress("publish"))
    (published,) = (tmp_path / "store/prepared").iterdir()
    prepared, engine = str(published), str(tmp_path / "engine")
    assert main(["compile", "--prepared", prepared, "--out", engine]) == 0
    assert main(["validate", "--prepared", prepared, "--engine", engine]) == 0
    assert (tmp_path / "engine" / ENGINE_VERSION / ONNX_DATA).exists()


def test_damaged_models_are_refused_before_an_engine_exists(
    make_model: Callable[[str], Path],
    make_tokenizer: Callable[[str], Tokenizer],
    tmp_path: Path,
) -> None:
    from safetensors.numpy import load_file, save_file

    from engine_builder.stages.export import export

    model = make_model("bert")
    intact = load_file(model / "model.safetensors")

    def failure() -> StageError:
        with pytest.raises(StageError) as caught:
            export(model, tmp_path / "out", max_length=None, progress=Progress("export"))
        return caught.value

    def with_weights(weights: dict[str, np.ndarray]) -> StageError:
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
        return failure()

    headless = {name: value for name, value in intact.items() if "classifier" not in name}
    nan = intact | {"classifier.weight": np.full_like(intact["classifier.weight"], np.nan)}
    untrained = intact | {"classifier.weight": np.zeros_like(intact["classifier.weight"])}
    failures = [with_weights(weights) for weights in (headless, nan, untrained)]
    assert [error.reason for error in failures] == [StageReason.MODEL_INVALID] * 3
    assert "lack 2 tensors" in failures[0].message
    assert "classifier.bias" in failures[0].message
    assert "NaN" in failures[1].message
    assert "alike" in failures[2].message

    tokenizer = make_tokenizer("bert")
    tokenizer.add_tokens(["another"])
    tokenizer.save(str(model / "tokenizer.json"))
    assert "vocab_size" in with_weights(intact).message


def test_configuration_larger_than_its_weights_is_refused(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from engine_builder.stages.export import export

    model = make_model("bert")
    config = json.loads((model / "config.json").read_text())
    config["vocab_size"] = 1 << 24
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(StageError, match="describes") as caught:
        export(model, tmp_path / "out", max_length=None, progress=Progress("export"))
    assert caught.value.reason is StageReason.MODEL_INVALID


def test_an_engine_of_other_weights_is_measured_and_refused(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """The gate sees an engine that is whole but ranks differently; NaN never becomes a number."""
    import onnx
    from onnx import numpy_helper

    store = tmp_path / "store"
    assert main(["build", "--source", str(make_model("bert")), "--out", str(store)]) == 0
    (prepared,) = (store / "prepared").iterdir()
    assert main(["compile", "--prepared", str(prepared), "--out", str(tmp_path / "engine")]) == 0
    path = tmp_path / "engine" / ENGINE_VERSION / ONNX
    graph = onnx.load(path)
    head = next(
        entry for entry in graph.graph.initializer if entry.name.endswith("classifier.weight")
    )

    def validate_with(values: np.ndarray) -> StageResult:
        head.CopyFrom(numpy_helper.from_array(values, head.name))
        onnx.save(graph, path)
        result = tmp_path / "result.json"
        main(
            [
                "validate",
                f"--prepared={prepared}",
                f"--engine={tmp_path / 'engine'}",
                f"--result={result}",
            ]
        )
        return StageResult.model_validate_json(result.read_bytes())

    values = numpy_helper.to_array(head)
    turned = validate_with(-values)
    assert turned.ok
    assert turned.parity is not None
    assert turned.parity.kendall_tau < 0
    assert turned.parity.ndcg10_delta > 0.1
    damaged = validate_with(np.full_like(values, np.nan))
    assert damaged.reason is StageReason.VALIDATION_FAILED
    assert "the engine scores" in damaged.message
    assert "NaN" in damaged.message


def test_second_build_uses_the_store(make_model: Callable[[str], Path], tmp_path: Path) -> None:
    model, store = make_model("bert"), tmp_path / "store"
    arguments = ["build", "--source", str(model), "--out", str(store)]
    assert main(arguments) == 0
    (prepared,) = (store / "prepared").iterdir()
    written = (prepared / "manifest.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (prepared / "manifest.json").stat().st_mtime_ns == written
    assert Store(store).is_intact("prepared", prepared.name)
