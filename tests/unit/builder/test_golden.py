"""Tiny random models of every family, from files to engine, against transformers itself.

The reference here is independent of the code under test: transformers tokenises the pair, cuts it
and runs it, one pair at a time.
"""

# Collected on machines without torch, so that it is imported where it is used.
# ruff: noqa: PLC0415

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from support.references import (
    LLAMA_TEMPLATE,
    REFERENCE_IDS,
    Pair,
    load_tokenizer,
    pair_ids,
    reference_scores,
)
from support.tiny_models import DECODER_LENGTH, LENGTH, family_of, length_of
from tokenizers import Tokenizer

from engine_builder.artefacts import ENGINE_VERSION, ONNX, ONNX_DATA
from engine_builder.batches import pad_batch
from engine_builder.cli import main
from engine_builder.errors import StageError
from engine_builder.families import FAMILIES, Family
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

Side = Literal["left", "right"]
#: Largest difference of a logit between transformers and the engine, both FP32.
BAR = 1e-4
#: What families whose files say nothing about pairs are told by their user.
SAID = {
    "llama": ["--template", LLAMA_TEMPLATE, "--label", "yes", "--label", "no"],
    "llama-classifier": ["--template", LLAMA_TEMPLATE],
}


def _exported(model: Path, out: Path, *arguments: str) -> "Engine":
    """The graph of a model, from its files; what is made of it for targets is tested apart."""
    assert main(["export", "--source", str(model), "--out", str(out), *arguments]) == 0
    return Engine(out)


class Engine:
    """A graph and its own tokenizer, used as the gateway does."""

    def __init__(self, directory: Path) -> None:
        from engine_builder.onnx_engine import OnnxEngine

        self.model = ServedModel.model_validate_json((directory / "model.json").read_bytes())
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.encoder = PairEncoder(tokenizer, self.model.template, self.model.max_length)
        self._loaded = OnnxEngine(directory / ONNX)

    def scores(self, pairs: list[Pair], size: int, side: Side | None = None) -> np.ndarray:
        """In batches of `size`, padded on the model's own side or another one."""
        scores: list[float] = []
        for start in range(0, len(pairs), size):
            rows = [self.encoder.encode(*pair) for pair in pairs[start : start + size]]
            padding = side or self.model.pad_side
            tensors = pad_batch(rows, self.model.pad_id, self.model.inputs, padding)
            assert all(tensor.dtype == np.int32 for tensor in tensors.values())
            scores += [float(score) for score in self._loaded.run(tensors, 1)[:, 0]]
        return np.array(scores)


def _pairs() -> list[Pair]:
    """Some probes, and passages of several times their length: prompts alone are long."""
    probes = load_probes()
    every = max(1, len(probes.pairs()) // 120)
    joined = [
        (entry.query, " ".join(entry.passages[: 2 + number % 6]))
        for number, entry in enumerate(probes.queries)
    ]
    return [*probes.pairs()[::every], *joined[:12]]


def _reference_ids(family: Family, tokenizer: Any, pair: Pair) -> list[int]:
    if family.is_decoder:
        return REFERENCE_IDS[family.name](tokenizer, *pair)
    tokenizer.model_max_length = LENGTH
    return pair_ids(tokenizer, *pair)


@pytest.mark.parametrize("name", [family.name for family in FAMILIES[::-1]])
def test_an_engine_scores_as_transformers(
    name: str, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    family, model = family_of(name), make_model(name)
    engine, tokenizer = (
        _exported(model, tmp_path / "out", *SAID.get(name, ())),
        load_tokenizer(model),
    )
    served = engine.model
    assert (served.family, served.max_length) == (name, length_of(family))
    assert served.pad_side == ("left" if family.is_decoder else "right")
    pairs = _pairs()
    tokens = [_reference_ids(family, tokenizer, pair) for pair in pairs]
    # Implementations cut too long pairs each in their own way; transformers cuts a pair as we do.
    fits = [len(ids) <= length_of(family) for ids in tokens]
    pairs, tokens = (list(itertools.compress(entries, fits)) for entries in (pairs, tokens))
    lengths = [len(ids) for ids in tokens]
    assert max(lengths) > 1.5 * min(lengths), "lengths are to be mixed"
    assert len(pairs) >= 100
    for pair, ids in zip(pairs, tokens, strict=True):
        assert list(engine.encoder.encode(*pair).ids) == ids, pair

    expected = reference_scores(family, model, pairs)
    assert np.ptp(expected) > 0.05, "scores too close to tell models apart"
    found = [engine.scores(pairs, size=13), engine.scores(pairs[::-1], size=5)[::-1]]
    if family.is_decoder:
        found.append(engine.scores(pairs, size=7, side="right"))
    worst = [float(np.abs(scores - expected).max()) for scores in found]
    assert max(worst) <= BAR


@pytest.mark.parametrize("name", ["xlm-roberta", "llama-bidirectional"])
def test_export_in_a_process_of_its_own(
    name: str, make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Where transformers has not loaded the model's classes yet, as in a Job."""
    command = [sys.executable, "-m", "engine_builder", "export", f"--source={make_model(name)}"]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'out'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "out" / ONNX).exists()


def test_chat_template_and_label_ids_of_the_files_are_used(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """As zeroentropy/zerank-2: roles in the chat template, one label by its id."""
    import torch
    from transformers import AutoModelForCausalLM

    model = make_model("qwen3")
    tokenizer = load_tokenizer(model)
    label = tokenizer.convert_tokens_to_ids("Yes")
    (model / "1_LogitScore").mkdir()
    (model / "1_LogitScore/config.json").write_text(json.dumps({"true_token_id": label}))
    modules = ["base.modules.transformer.Transformer", "cross_encoder.modules.LogitScore"]
    (model / "modules.json").write_text(
        json.dumps([{"type": f"sentence_transformers.{module}"} for module in modules])
    )
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ 'system' if m.role == 'query' else 'user' }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    )
    engine = _exported(model, tmp_path / "out")
    assert engine.model.activation == "none"
    reference = AutoModelForCausalLM.from_pretrained(model).eval()
    tokenizer = load_tokenizer(model)
    pairs = load_probes().pairs()[:40]
    for pair, found in zip(pairs, engine.scores(pairs, size=8), strict=True):
        roles = zip(("query", "document"), pair, strict=True)
        text = tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in roles], tokenize=False
        )
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) > DECODER_LENGTH:
            continue
        assert list(engine.encoder.encode(*pair).ids) == ids
        with torch.inference_mode():
            logits = reference(torch.tensor([ids])).logits
        assert abs(float(logits[0, -1, label]) - found) <= BAR


@pytest.mark.parametrize(
    ("name", "pooling"), [("llama-bidirectional", "last"), ("modernbert", "mean")]
)
def test_pooling_as_the_user_says(
    make_model: Callable[[str], Path], tmp_path: Path, name: str, pooling: str
) -> None:
    from transformers import AutoModelForSequenceClassification

    model = make_model(name)
    pairs = load_probes().pairs()[:40]
    said = _exported(model, tmp_path / "said", "--pooling", pooling)
    plain = _exported(model, tmp_path / "plain")
    found, other = (engine.scores(pairs, size=8) for engine in (said, plain))
    assert np.abs(found - other).max() > 100 * BAR
    if name == "modernbert":
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"classifier_pooling": pooling}))
        assert AutoModelForSequenceClassification.from_pretrained(model).config.classifier_pooling
        expected = reference_scores(family_of(name), model, pairs)
        np.testing.assert_allclose(found, expected, atol=BAR)


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
    export(model, split, max_length=48, progress=Progress("export"), inline_limit=0)
    assert (split / ONNX).stat().st_size < (split / ONNX_DATA).stat().st_size
    identity = PrepareIdentity(revision="r", max_length=48, toolchain=installed_toolchain())
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


def test_second_build_uses_the_store(
    make_model: Callable[[str], Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, store, result = make_model("bert"), tmp_path / "store", tmp_path / "result.json"
    arguments = ["build", f"--source={model}", f"--out={store}", f"--result={result}"]
    assert main(arguments) == 0
    done = StageResult.model_validate_json(result.read_bytes())
    assert done.resolved is not None
    assert (done.resolved.family, done.resolved.max_length) == ("bert", LENGTH)
    assert done.parity is not None
    assert done.parity.kendall_tau >= 0.995
    (engine,) = (store / "engines").iterdir()
    assert capfd.readouterr().out == f"{engine}\n", "what else is told is on standard error"
    verify_artefact(engine, engine.name)
    (prepared,) = (store / "prepared").iterdir()
    written = (prepared / "manifest.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (prepared / "manifest.json").stat().st_mtime_ns == written
    assert Store(store).is_intact("prepared", prepared.name)


def test_score_ranks_a_file_as_the_model_does(
    make_model: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, store = make_model("bert"), tmp_path / "store"
    wanted = ["--runtime", "onnxruntime", "--precision", "fp32"]
    assert main(["build", "--source", str(model), "--out", str(store), *wanted]) == 0
    (engine,) = (store / "engines").iterdir()
    query, passages = "list the files", ["one two", "of the three", "a much longer text " * 9]
    pairs = [(query, passage) for passage in passages]
    logits = reference_scores(family_of("bert"), model, pairs)
    order = [int(index) for index in np.argsort(-logits)]
    (tmp_path / "lines").write_text("\n".join([passages[0], "", *passages[1:]]) + "\n")
    (tmp_path / "jsonl").write_text(
        "\n".join(
            json.dumps(entry) for entry in (passages[0], *({"text": p} for p in passages[1:]))
        )
    )
    capsys.readouterr()
    for arguments in (["--passages", "lines"], ["--passages", "jsonl", "--jsonl"]):
        arguments[1] = str(tmp_path / arguments[1])
        assert main(["score", str(engine), "--query", query, "--json", *arguments]) == 0
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [entry["index"] for entry in found] == order
        assert [entry["text"] for entry in found] == [passages[index] for index in order]
        expected = [float(logits[index]) for index in order]
        np.testing.assert_allclose([entry["logit"] for entry in found], expected, atol=2e-4)
        np.testing.assert_allclose(
            [entry["score"] for entry in found], 1 / (1 + np.exp(-np.array(expected))), atol=1e-4
        )
    arguments = ["--query", query, "--passages", str(tmp_path / "lines"), "--top", "1"]
    assert main(["score", str(engine), *arguments]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert f"[{order[0]}]" in line
    (prepared,) = (store / "prepared").iterdir()
    assert main(["score", str(prepared), *arguments]) == 2
    assert main(["inspect", str(engine)]) == 0
    output = capsys.readouterr().out
    for words in ("fetch ", "export ", "compile ", "validate ", "prepared from", "torch "):
        assert words in output
