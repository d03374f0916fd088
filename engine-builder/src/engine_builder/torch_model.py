"""The reference: the cross-encoder in PyTorch, FP32, and its export to ONNX.

The only module that imports torch. Inputs are INT32, because that is what engines take; they are
widened inside the graph.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from engine_builder.batches import Tensors
from engine_builder.cpus import available_cpus
from engine_builder.errors import StageError, defect
from engine_builder.trial import on_trial
from reranker_contracts import StageReason

OPSET = 18


class CrossEncoder(torch.nn.Module):
    """INT32 tensors in the order of `inputs` → FP32 logits [batch, labels]."""

    def __init__(self, model: PreTrainedModel, inputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs = tuple(inputs)

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """One batch; the signature is positional because the exporter traces it that way."""
        named = {name: tensor.long() for name, tensor in zip(self.inputs, tensors, strict=True)}
        logits: torch.Tensor = self.model(**named).logits
        return logits.float()


def load_cross_encoder(directory: Path, inputs: Sequence[str], parameters: int) -> CrossEncoder:
    """Load safetensors weights in FP32 with eager attention, ready for inference.

    `parameters` is what the weights hold. Raises StageError (ModelInvalid) when configuration
    and weights do not fit each other: a missing score head would otherwise be random.
    """
    torch.set_num_threads(available_cpus())
    _check_size(directory, parameters)
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            directory,
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
    # The exporter puts back the mode it found on the wrapper; without eval() dropout would return.
    encoder = CrossEncoder(model, inputs)
    encoder.eval()
    return encoder


def _check_size(directory: Path, parameters: int) -> None:
    """Refuse a configuration that describes a larger model than the weights hold."""

    def describe() -> int:
        config = AutoConfig.from_pretrained(directory, local_files_only=True)
        # Named, because the file could ask for an implementation that is fetched and run.
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(
                config, attn_implementation="eager"
            )
        return int(model.num_parameters())

    described = on_trial("config.json", describe)
    if described > parameters * 1.01 + 1_000_000:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"config.json describes {described} parameters, the weights hold {parameters}; use the "
            "config.json that belongs to the weights",
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
