"""LoRA adapters made by PEFT, merged before export, against PEFT's own unmerged model."""

# Collected on machines without torch, so that it is imported where it is used.
# ruff: noqa: PLC0415

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.references import REFERENCE_IDS, load_tokenizer
from support.tiny_models import DECODER_LENGTH, LENGTH
from tokenizers import Tokenizer

from engine_builder.artefacts import ONNX
from engine_builder.batches import pad_batch
from engine_builder.cli import main
from engine_builder.exit_codes import MODEL
from engine_builder.pair_template import PairEncoder
from engine_builder.probes import load_probes
from reranker_contracts import ArtefactManifest, ServedModel, StageReason, StageResult
from reranker_contracts.identity import PrepareIdentity

pytestmark = [
    pytest.mark.builder,
    pytest.mark.timeout(600),
    # torch, transformers, PEFT and the exporter warn of their own internals.
    pytest.mark.filterwarnings("ignore"),
]

MODULES = {"bert": ["query", "value", "dense"], "qwen3": ["q_proj", "v_proj", "down_proj"]}


def _auto_class(name: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    return AutoModelForCausalLM if name == "qwen3" else AutoModelForSequenceClassification


def make_adapter(name: str, model: Path, directory: Path, **changes: Any) -> Path:
    """Random matrices, so that it changes every score; the head of BERT is its own too."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(11)
    config = LoraConfig(
        task_type="CAUSAL_LM" if name == "qwen3" else "SEQ_CLS",
        target_modules=MODULES[name],
        init_lora_weights=False,
        **({"r": 4, "lora_alpha": 8} | changes),
    )
    adapted = get_peft_model(_auto_class(name).from_pretrained(model), config)
    with torch.no_grad():
        for key, weight in adapted.named_parameters():
            if "modules_to_save" in key:
                weight.add_(torch.randn_like(weight) * 0.3)
    adapted.save_pretrained(directory)
    return directory


def export(model: Path, adapter: Path, out: Path) -> tuple[int, StageResult]:
    result = out.with_suffix(".json")
    code = main(
        ["export", f"--source={model}", f"--adapter-dir={adapter}", f"--out={out}",
         f"--result={result}"]
    )  # fmt: skip
    return code, StageResult.model_validate_json(result.read_bytes())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bert", {}),
        ("bert", {"use_dora": True, "rank_pattern": {"dense": 2}}),
        ("qwen3", {}),
        ("qwen3", {"use_rslora": True, "alpha_pattern": {"v_proj": 3}}),
    ],
    ids=["head", "dora", "plain", "rslora"],
)
def test_engine_scores_as_the_unmerged_adapter(
    name: str, changes: dict[str, Any], make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel

    from engine_builder.onnx_engine import OnnxEngine

    model = make_model(name)
    adapter = make_adapter(name, model, tmp_path / "adapter", **changes)
    engine = tmp_path / "out"
    code, done = export(model, adapter, engine)
    assert code == 0, done.message

    served = ServedModel.model_validate_json((engine / "model.json").read_bytes())
    encoder = PairEncoder(
        Tokenizer.from_file(str(engine / "tokenizer.json")), served.template, served.max_length
    )
    base = _auto_class(name).from_pretrained(model)
    reference = PeftModel.from_pretrained(base, adapter).eval()
    loaded = OnnxEngine(engine / ONNX)
    differences = []
    for query, passage in load_probes().pairs()[:60]:
        tokens = encoder.encode(query, passage)
        if len(tokens.ids) >= (DECODER_LENGTH if name == "qwen3" else LENGTH):
            continue
        tensors = pad_batch([tokens], served.pad_id, served.inputs)
        wide = {key: torch.from_numpy(value).long() for key, value in tensors.items()}
        with torch.inference_mode():
            logits = reference(**wide).logits
            plain = base_scores(base, reference, wide)
        if name == "qwen3":
            yes, no = (load_tokenizer(model).convert_tokens_to_ids(word) for word in ("yes", "no"))
            logits, plain = (each[:, -1, yes] - each[:, -1, no] for each in (logits, plain))
        found = loaded.run(tensors, 1)[0, 0]
        expected, unadapted = float(logits.flatten()[0]), float(plain.flatten()[0])
        differences.append((abs(found - expected), abs(unadapted - expected)))
    assert len(differences) >= 8
    worst, effect = np.array(differences).max(0)
    assert worst <= 1e-4
    assert effect > 0.1, "the adapter changes nothing, so merging it proves nothing"


def base_scores(base: Any, reference: Any, tensors: dict[str, Any]) -> Any:
    """Without the adapter."""
    with reference.disable_adapter():
        return base(**tensors).logits


def test_reference_tokens_are_the_familys(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """An adapter brings no template of its own."""
    model = make_model("qwen3")
    adapter = make_adapter("qwen3", model, tmp_path / "adapter")
    engine = tmp_path / "out"
    assert export(model, adapter, engine)[0] == 0
    served = ServedModel.model_validate_json((engine / "model.json").read_bytes())
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    ids = PairEncoder(tokenizer, served.template, DECODER_LENGTH).encode("where?", "here").ids
    assert list(ids) == REFERENCE_IDS["qwen3"](load_tokenizer(model), "where?", "here")


def test_the_adapters_revision_is_part_of_the_identity(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """A build by hand: the adapter is fetched, pinned and merged."""
    model, store, result = make_model("bert"), tmp_path / "store", tmp_path / "result.json"
    arguments = ["build", f"--source={model}", f"--out={store}", f"--result={result}"]
    assert main([*arguments, f"--adapter={make_adapter('bert', model, tmp_path / 'one')}"]) == 0
    done = StageResult.model_validate_json(result.read_bytes())
    assert done.resolved is not None
    assert done.resolved.adapter is not None
    (prepared,) = (store / "prepared").iterdir()
    manifest = ArtefactManifest.model_validate_json((prepared / "manifest.json").read_bytes())
    assert isinstance(manifest.identity, PrepareIdentity)
    assert manifest.identity.adapter == done.resolved.adapter
    assert manifest.build is not None
    assert manifest.build.adapter == "dir:one"
    assert manifest.build.adapter_revision == done.resolved.adapter
    assert [entry.stage for entry in manifest.build.stages] == ["fetch", "fetch-adapter", "export"]
    assert (
        main([*arguments, f"--adapter={make_adapter('bert', model, tmp_path / 'two', r=2)}"]) == 0
    )
    assert len(list((store / "prepared").iterdir())) == 2


def test_adapters_of_other_models_are_refused(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    bert, qwen = make_model("bert"), make_model("qwen3")
    foreign = make_adapter("qwen3", qwen, tmp_path / "foreign")
    code, failed = export(bert, foreign, tmp_path / "one")
    assert (code, failed.reason) == (MODEL, StageReason.ADAPTER_INVALID), failed.message
    assert "base model" in failed.message

    broken = make_adapter("bert", bert, tmp_path / "broken")
    weights = load_file(broken / "adapter_model.safetensors")
    weights.pop(next(key for key in weights if "lora_B" in key))
    save_file(weights, broken / "adapter_model.safetensors", metadata={"format": "pt"})
    code, failed = export(bert, broken, tmp_path / "two")
    assert (code, failed.reason) == (MODEL, StageReason.ADAPTER_INVALID), failed.message
    assert "1 tensors are missing" in failed.message

    nan = make_adapter("bert", bert, tmp_path / "nan")
    weights = load_file(nan / "adapter_model.safetensors")
    key = next(key for key in weights if "lora_A" in key)
    weights[key] = np.full_like(weights[key], np.nan)
    save_file(weights, nan / "adapter_model.safetensors", metadata={"format": "pt"})
    code, failed = export(bert, nan, tmp_path / "three")
    assert (code, failed.reason) == (MODEL, StageReason.ADAPTER_INVALID), failed.message

    # Weights that are not what the configuration says take no more memory than they hold.
    grown = make_adapter("bert", bert, tmp_path / "grown")
    config = json.loads((grown / "adapter_config.json").read_text())
    (grown / "adapter_config.json").write_text(json.dumps(config | {"r": 1024}))
    code, failed = export(bert, grown, tmp_path / "four")
    assert (code, failed.reason) == (MODEL, StageReason.ADAPTER_INVALID), failed.message


def test_an_adapter_beside_the_model_is_not_loaded_by_itself(
    make_model: Callable[[str], Path], tmp_path: Path
) -> None:
    from engine_builder.errors import StageError
    from engine_builder.progress import Progress
    from engine_builder.stages.export import export as export_stage

    model = make_model("bert")
    make_adapter("bert", model, tmp_path / "adapter")
    for entry in (tmp_path / "adapter").iterdir():
        entry.rename(model / entry.name)
    with pytest.raises(StageError, match=r"lies beside") as caught:
        export_stage(model, tmp_path / "out", max_length=None, progress=Progress("export"))
    assert caught.value.reason is StageReason.ADAPTER_INVALID
