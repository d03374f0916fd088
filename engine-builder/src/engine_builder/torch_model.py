"""The reference: the cross-encoder in PyTorch, FP32, and its export to ONNX.

The only module that imports torch. Inputs are INT32, because that is what engines take; they are
widened inside the graph.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
)

from engine_builder.adapter import merge_adapter
from engine_builder.batches import Tensors
from engine_builder.cpus import available_cpus
from engine_builder.decoder import Decoder
from engine_builder.errors import StageError, defect
from engine_builder.facts import ModelFacts
from engine_builder.trial import on_trial
from reranker_contracts import StageReason

OPSET = 18
#: Rotary embeddings whose frequencies depend on the input's length, which a graph cannot follow.
_LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}


class CrossEncoder(torch.nn.Module):
    """INT32 tensors in the order of `inputs` → FP32 logits [batch, labels]."""

    def __init__(self, model: torch.nn.Module, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """One batch; the signature is positional because the exporter traces it that way."""
        named = {name: tensor.long() for name, tensor in zip(self.inputs, tensors, strict=True)}
        if isinstance(self.model, Decoder):
            logits: torch.Tensor = self.model(**named)
        else:
            logits = self.model(**named).logits
        return logits.float()


def load_cross_encoder(
    directory: Path,
    facts: ModelFacts,
    *,
    inputs: Sequence[str],
    labels: tuple[int, ...],
    parameters: int,
    adapter: Path | None = None,
) -> CrossEncoder:
    """Load safetensors weights in FP32 with eager attention, ready for inference.

    `parameters` is what the weights hold, `labels` are the tokens of head `labels`; a LoRA
    `adapter` is merged in. Raises StageError (ModelInvalid) when configuration and weights do not
    fit each other: a missing score head would otherwise be random.
    """
    torch.set_num_threads(available_cpus())
    _import_classes(facts)
    _check_size(directory, facts, parameters)
    try:
        config = _read_config(directory, facts)
        model, info = _auto_class(facts).from_pretrained(
            directory,
            config=config,
            attn_implementation="eager",
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    # Whatever transformers and safetensors make of a malformed model.
    except Exception as error:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the model cannot be loaded: {_first_line(error)}; save config.json and weights anew",
        ) from error
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"the weights lack {len(missing)} tensors of {type(model).__name__}, first "
            f"{missing[0]}; use the weights of a trained cross-encoder",
        )
    if adapter is not None:
        model = merge_adapter(model, adapter)
    # The exporter puts back the mode it found on the wrapper; without eval() dropout would return.
    encoder = CrossEncoder(_scorer(model, facts, labels), inputs)
    encoder.eval()
    return encoder


def _scorer(model: Any, facts: ModelFacts, labels: tuple[int, ...]) -> torch.nn.Module:
    """The whole model, or its decoder with the one row that is the score."""
    if not facts.family.is_decoder:
        return cast(torch.nn.Module, model)
    if facts.family.head == "score":
        head = model.score.weight
    else:
        rows = model.get_output_embeddings().weight[list(labels)]
        head = rows[:1] - rows[1:] if len(labels) == 2 else rows
    return Decoder(
        model.get_decoder() if facts.family.head == "labels" else model.model,
        head,
        causal=facts.family.causal,
        pooling=facts.pooling or "last",
        temperature=facts.temperature,
    )


def _import_classes(facts: ModelFacts) -> None:
    """Load the module of the family's classes, and what it imports in turn.

    transformers does it at first use. That must not be while tensors are made on the meta device:
    some libraries make tensors with values when they are imported.
    """
    name = facts.family.architecture
    if facts.family.implementation is not None:
        name = facts.family.implementation.capitalize() + "ForSequenceClassification"
    _ = getattr(transformers, name)


def _auto_class(facts: ModelFacts) -> Any:
    if facts.family.head == "labels":
        return AutoModelForCausalLM
    return AutoModelForSequenceClassification


def _read_config(directory: Path, facts: ModelFacts) -> PreTrainedConfig:
    """config.json as transformers has it, of the implementation that stands for the family's."""
    if facts.family.implementation is None:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
    else:
        values = json.loads((directory / "config.json").read_text("utf-8"))
        foreign = ("auto_map", "model_type", "architectures", "_attn_implementation")
        values = {key: value for key, value in values.items() if key not in foreign}
        config = AutoConfig.for_model(facts.family.implementation, **values)
    if facts.pooling is not None and facts.family.name == "modernbert":
        config.classifier_pooling = facts.pooling
    return config


def _check_size(directory: Path, facts: ModelFacts, parameters: int) -> None:
    """Refuse a configuration that describes a larger model than the weights hold."""

    def describe() -> tuple[int, str]:
        config = _read_config(directory, facts)
        # Named, because the file could ask for an implementation that is fetched and run.
        with torch.device("meta"):
            model = _auto_class(facts).from_config(config, attn_implementation="eager")
        rope = getattr(config, "rope_parameters", None) or {}
        return int(model.num_parameters()), str(rope.get("rope_type"))

    described, rope = on_trial("config.json", describe)
    if described > parameters * 1.01 + 1_000_000:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"config.json describes {described} parameters, the weights hold {parameters}; use the "
            "config.json that belongs to the weights",
        )
    if rope in _LENGTH_DEPENDENT_ROPE:
        raise StageError(
            StageReason.ARCHITECTURE_UNSUPPORTED,
            f"config.json: rope_type {rope} changes with the input's length, which an engine "
            "cannot follow; use a model with another one",
        )


def score(model: CrossEncoder, tensors: Tensors) -> NDArray[np.float32]:
    """Logits [batch, labels] of one padded batch."""
    try:
        with torch.inference_mode():
            logits = model(*(torch.from_numpy(tensors[name]) for name in model.inputs))
    # A configuration that builds a model may still describe one that cannot run.
    except Exception as error:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"config.json: the model fails on a pair ({_first_line(error)}); use the config.json "
            "that belongs to the weights",
        ) from error
    return np.asarray(logits.numpy(), dtype=np.float32)


def export_onnx(model: CrossEncoder, example: Tensors, path: Path) -> None:
    """Trace `model` on an example batch with padding; batch and length stay free.

    Weights that pass 2 GiB go into files beside `path`.
    """
    with warnings.catch_warnings():
        # The tracer warns of every Python-side shape check in transformers; that the graph is
        # right for other shapes is checked by running it.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                model,
                tuple(torch.from_numpy(example[name]) for name in model.inputs),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(model.inputs),
                output_names=["logits"],
                dynamic_axes={
                    **{name: {0: "batch", 1: "length"} for name in model.inputs},
                    "logits": {0: "batch"},
                },
            )
        except OSError:
            raise
        except Exception as error:
            raise defect(
                StageReason.EXPORT_FAILED, f"export to ONNX failed: {_first_line(error)}"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
