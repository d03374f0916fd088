"""Puts the trained weights and the base model together: an ordinary Hugging Face directory.

Runs while the model image is built and needs only numpy and safetensors. Nothing is
computed but float16 to float32, so the same inputs give the same bytes on every machine.
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
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FILE = "model.safetensors"
MAX_LENGTH = 512
TABLES = ("bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight")

Array = npt.NDArray[np.float32]


class MergeError(Exception):
    """The inputs do not fit together; the message says which and what to do."""


def merge_weights(
    base: dict[str, Array], trained: dict[str, Array], given_up: list[int]
) -> dict[str, Array]:
    """The weights of BertForSequenceClassification in float32.

    The embedding tables are the base model's, with zeros in the given up dimensions.
    """
    merged = {name: tensor.astype(np.float32) for name, tensor in trained.items()}
    for name in TABLES:
        table = base[name.removeprefix("bert.")].astype(np.float32)
        table[:, given_up] = 0
        merged[name] = table
    return dict(sorted(merged.items()))


def model_config(base: dict[str, Any], layers: int) -> dict[str, Any]:
    """The base model's config.json turned into that of a reranker with one score."""
    dropped = {"_name_or_path", "gradient_checkpointing", "transformers_version"}
    config = {key: value for key, value in base.items() if key not in dropped}
    return config | {
        "architectures": ["BertForSequenceClassification"],
        "num_hidden_layers": layers,
        "id2label": {"0": "relevance"},
        "label2id": {"relevance": 0},
        "problem_type": "regression",
        # CrossEncoder applies a sigmoid to a single label unless it is told not to.
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"},
    }


def tokenizer_files(directory: Path) -> dict[str, Any]:
    """The base model's tokenizer, uncut and unpadded, with a [CLS] before the passage too.

    Its class is the general one: BertTokenizer would put its own pair template in place.
    """
    tokenizer = read_json(directory / "tokenizer.json") | {"truncation": None, "padding": None}
    pair = tokenizer["post_processor"]["pair"]
    passage = next(i for i, piece in enumerate(pair) if piece.get("Sequence", {}).get("id") == "B")
    pair.insert(passage, {"SpecialToken": {"id": "[CLS]", "type_id": 1}})
    config = read_json(directory / "tokenizer_config.json")
    config = {key: value for key, value in config.items() if key != "name_or_path"}
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": config
        | {
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "model_max_length": MAX_LENGTH,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
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


def merge(base: Path, trained: Path, output: Path) -> None:
    """Writes the merged model into `output`, which is made. Raises MergeError."""
    for file in (base / FILE, trained / FILE):
        if not file.is_file():
            raise MergeError(f"{file} is missing (see README.md)")
    digest = hashlib.sha256((base / FILE).read_bytes()).hexdigest()
    if digest != BASE_SHA256:
        raise MergeError(
            f"{base / FILE} has sha256 {digest}, but the model was trained from {BASE_SHA256}"
        )
    with safe_open(trained / FILE, framework="numpy") as file:
        given_up = [int(d) for d in file.metadata()["given_up"].split(",")]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    layers = 1 + max(int(name.split(".")[3]) for name in tensors if ".layer." in name)
    config = model_config(read_json(base / "config.json"), layers)
    files = tokenizer_files(base) | {"config.json": config}
    output.mkdir(parents=True, exist_ok=True)
    save_file(
        merge_weights(load_file(base / FILE), tensors, given_up),
        output / FILE,
        metadata={"format": "pt"},
    )
    for name, document in files.items():
        text = json.dumps(document, indent=2, sort_keys=name == "config.json", ensure_ascii=False)
        (output / name).write_text(text + "\n", encoding="utf-8")


def main() -> int:
    """Command line: `python merge.py BASE TRAINED OUTPUT`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", type=Path, help="directory of all-MiniLM-L6-v2")
    parser.add_argument("trained", type=Path, help="directory of what training stored")
    parser.add_argument("output", type=Path, help="directory for the merged model")
    arguments = parser.parse_args()
    try:
        merge(arguments.base, arguments.trained, arguments.output)
    except MergeError as error:
        print(f"merge: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
