"""The reranker in training, and how what it learnt is stored.

Whole matrices are trained: a cross-encoder has to learn to compare two texts,
which an embedding model never did, and low-rank changes learn that several
times slower. What is stored is the difference to the base model, factorised
by a singular value decomposition to rank RANK, in PEFT's LoRA layout
(adapter_config.json, adapter_model.safetensors), so that
`peft.PeftModel.from_pretrained` loads it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertForSequenceClassification
from transformers.utils import logging

RANK = 128
# The two lowest layers stay as they are: a sixth of the cost, and no loss seen.
TARGETS = (
    r".*encoder\.layer\.[2-5]\."
    r"(attention\.self\.(query|key|value)|(attention\.output|intermediate|output)\.dense)"
)
# Stored whole: the part that turns the first token into a score.
HEAD = ("bert.pooler.dense", "classifier")
_PREFIX = "base_model.model."


class Reranker(nn.Module):
    """The base model with a new head; only `trainable` parameters change."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        logging.set_verbosity_error()
        # "eager": twice as fast on a CPU as the fused kernel for sequences this short.
        self.model = BertForSequenceClassification.from_pretrained(
            directory,
            num_labels=1,
            attn_implementation="eager",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.model.requires_grad_(False)
        for parameter in (*self.matrices().values(), *self.head().values()):
            parameter.requires_grad_(True)

    def matrices(self) -> dict[str, nn.Parameter]:
        """The weights that are stored as a low-rank difference, by the name of their layer."""
        return {
            name: module.weight
            for name, module in self.model.named_modules()
            if isinstance(module, nn.Linear) and re.fullmatch(TARGETS, name)
        }

    def head(self) -> dict[str, nn.Parameter]:
        """The parameters that are stored whole, by their names."""
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if name.rpartition(".")[0] in HEAD
        }

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Scores of shape (pairs,), unbounded: higher is more relevant."""
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return logits.squeeze(-1).float()

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Adds a stored adapter to the base model; raises KeyError when a part is missing."""
        for name, weight in self.matrices().items():
            a = tensors[f"{_PREFIX}{name}.lora_A.weight"].float()
            weight.add_(tensors[f"{_PREFIX}{name}.lora_B.weight"].float() @ a)
        for name, parameter in self.head().items():
            parameter.copy_(tensors[_PREFIX + name])


def factorise(change: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (rank, in) and B (out, rank) with B A the best approximation of `change` (out, in)."""
    u, s, vh = torch.linalg.svd(change.double(), full_matrices=False)
    root = s[:rank].sqrt()
    return (root[:, None] * vh[:rank]), (u[:, :rank] * root)


def save_adapter(
    base: Reranker, matrices: dict[str, Tensor], head: dict[str, Tensor], directory: Path
) -> None:
    """Writes what was learnt in PEFT's layout; the low-rank part is stored as float16."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {_PREFIX + name: value.float().contiguous() for name, value in head.items()}
    for name, weight in base.matrices().items():
        a, b = factorise(matrices[name] - weight.detach(), RANK)
        tensors[f"{_PREFIX}{name}.lora_A.weight"] = a.to(torch.float16).contiguous()
        tensors[f"{_PREFIX}{name}.lora_B.weight"] = b.to(torch.float16).contiguous()
    save_file(dict(sorted(tensors.items())), directory / "adapter_model.safetensors")
    config = {
        "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "modules_to_save": ["pooler.dense", "classifier"],
        "peft_type": "LORA",
        "r": RANK,
        "target_modules": TARGETS,
        "task_type": "SEQ_CLS",
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (directory / "adapter_config.json").write_text(text, encoding="utf-8")
