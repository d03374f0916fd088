"""The low-rank adapter: how it is trained fast on a CPU, and how it is stored.

Stored as PEFT stores it (adapter_config.json, adapter_model.safetensors), so
that `peft.PeftModel.from_pretrained` loads it. Trained by a linear layer of our
own, because the merged weight is made once a step here: the forward pass then
costs what the base model costs, and the backward pass never forms the gradient
of a full weight matrix.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertForSequenceClassification

RANK, ALPHA = 32, 64
# The two lowest layers stay as they are: a sixth of the cost, and no loss seen.
FIRST_LAYER = 2
TARGETS = (
    r".*encoder\.layer\.[2-5]\."
    r"(attention\.self\.(query|key|value)|(attention\.output|intermediate|output)\.dense)"
)
# Trained in full and stored whole: the part that turns the first token into a score.
HEAD = ("bert.pooler.dense", "classifier")
_PREFIX = "base_model.model."


class _MergedLinear(torch.autograd.Function):
    """x -> x (W + s B A)^T + b, with gradients for x, A and B only."""

    @staticmethod
    def forward(  # noqa: PLR0917  the order is that of apply()
        ctx: Any, x: Tensor, merged: Tensor, bias: Tensor, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return nn.functional.linear(x, merged, bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | float | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        (grad,) = grad_outputs
        flat_grad, flat_x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_a = (flat_grad @ b).T @ flat_x * ctx.scale
        grad_b = flat_grad.T @ (flat_x @ a.T) * ctx.scale
        return grad @ merged, None, None, grad_a, grad_b, None


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank change; `merge` after each change of it."""

    def __init__(self, base: nn.Linear, rank: int, alpha: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.lora_A = nn.Parameter(torch.empty(rank, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)
        self.merged = base.weight.detach().clone()

    @torch.no_grad()
    def merge(self) -> None:
        """Makes the weight that the next forward passes use."""
        self.merged = torch.addmm(self.base.weight, self.lora_B, self.lora_A, alpha=self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """`x` (..., in) -> (..., out)."""
        result: Tensor = _MergedLinear.apply(
            x, self.merged, self.base.bias, self.lora_A, self.lora_B, self.scale
        )
        return result


class Reranker(nn.Module):
    """The base model with an adapter in the linear layers of its encoder and a new head."""

    def __init__(self, directory: Path, rank: int = RANK, alpha: int = ALPHA) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self.model = BertForSequenceClassification.from_pretrained(
            directory,
            num_labels=1,
            attn_implementation="sdpa",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.model.requires_grad_(False)
        for layer in self.model.bert.encoder.layer[FIRST_LAYER:]:
            attention = layer.attention
            for owner in (attention.self, attention.output, layer.intermediate, layer.output):
                for name, child in list(owner.named_children()):
                    if isinstance(child, nn.Linear):
                        setattr(owner, name, LoraLinear(child, rank, alpha))
        for name in HEAD:
            self.model.get_submodule(name).requires_grad_(True)

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained parameters by the names that PEFT stores them under."""
        return {
            _PREFIX + (f"{name}.weight" if name.endswith(("lora_A", "lora_B")) else name): parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def merge(self) -> None:
        """Brings every layer's merged weight up to date."""
        for module in self.modules():
            if isinstance(module, LoraLinear):
                module.merge()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Scores of shape (pairs,), unbounded: higher is more relevant."""
        logits: Tensor = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).logits
        return logits.squeeze(-1)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Takes over stored parameters; raises KeyError when one is missing."""
        with torch.no_grad():
            for name, parameter in self.trainable().items():
                parameter.copy_(tensors[name])
        self.merge()


def save_adapter(reranker: Reranker, directory: Path) -> None:
    """Writes the adapter in PEFT's layout. The low-rank part is stored as float16."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: parameter.detach()
        .to(torch.float16 if ".lora_" in name else torch.float32)
        .contiguous()
        for name, parameter in sorted(reranker.trainable().items())
    }
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {
        "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": reranker.alpha,
        "lora_dropout": 0.0,
        "modules_to_save": ["pooler.dense", "classifier"],
        "peft_type": "LORA",
        "r": reranker.rank,
        "target_modules": TARGETS,
        "task_type": "SEQ_CLS",
    }
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (directory / "adapter_config.json").write_text(text, encoding="utf-8")
