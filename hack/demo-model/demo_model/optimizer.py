"""AdamW over float32 copies of the parameters of a model that computes in bfloat16."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

CLIP = 1.0


@dataclass(frozen=True)
class Trained:
    """A parameter, its peak learning rate, and a mask of its shape: 1 may change, 0 may not."""

    parameter: nn.Parameter
    rate: float
    mask: Tensor


class Masters:
    """Float32 copies that the optimizer changes, rounded into the model after each step."""

    def __init__(self, trained: Iterable[Trained]) -> None:
        self._trained = list(trained)
        self.values = [t.parameter.detach().float().clone() for t in self._trained]
        groups = [
            {"params": [value], "peak": t.rate}
            for value, t in zip(self.values, self._trained, strict=True)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The model's own parameters, in the order of `step`'s gradients."""
        return [t.parameter for t in self._trained]

    def step(self, gradients: Sequence[Tensor], factor: float) -> None:
        """One step at `factor` of the peak learning rates."""
        for value, gradient, t in zip(self.values, gradients, self._trained, strict=True):
            value.grad = gradient.float() * t.mask
        torch.nn.utils.clip_grad_norm_(self.values, CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Rounds the copies into the model."""
        for t, value in zip(self._trained, self.values, strict=True):
            t.parameter.copy_(value)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the copies themselves into a model that is float32 again."""
        for t, value in zip(self._trained, self.values, strict=True):
            t.parameter.data = value.detach().clone()


def learning_rate_factor(step: int, warmup: int) -> float:
    """Rises over `warmup` steps and stays at 1."""
    return min(1.0, (step + 1) / warmup)
