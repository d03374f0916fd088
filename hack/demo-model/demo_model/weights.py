"""What is stored of a trained model: all that differs from the base model, in float16.

`merge.py` at the top of this directory puts it together with the base model's embeddings.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from demo_model.encoder import base_model_directory
from demo_model.join import channels_of

FILE = "model.safetensors"
# Only the channels' columns of these differ from the base model's, and they are zero.
TABLES = ("bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight")


def save_weights(model: BertForSequenceClassification, directory: Path) -> None:
    """Writes `directory`/model.safetensors; the metadata names the given up dimensions."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: value.to(torch.float16).contiguous()
        for name, value in sorted(model.state_dict().items())
        if name not in TABLES
    }
    given_up = ",".join(str(d) for d in sorted(channels_of(model).all))
    save_file(tensors, directory / FILE, metadata={"format": "pt", "given_up": given_up})


def merge(weights: Path, output: Path) -> None:
    """Runs merge.py as the image's build does; raises `subprocess.CalledProcessError`."""
    program = Path(__file__).resolve().parent.parent / "merge.py"
    command = [sys.executable, str(program), str(base_model_directory()), str(weights), str(output)]
    subprocess.run(command, check=True)


def load_merged(directory: Path) -> BertForSequenceClassification:
    """A model that `merge.py` wrote."""
    return BertForSequenceClassification.from_pretrained(
        directory, attn_implementation="eager"
    ).eval()
