"""A decoder as an encoder: one forward pass over a pair, one score.

The graph is the bare decoder with its attention mask and positions made here from the padding mask,
so that padding may stand on either side, and a head over one pooled state. Imported by torch_model
alone.
"""

from typing import Any

import torch

from reranker_contracts import Pooling

#: Added to the attention scores of what must not be seen. Far below any score, and still a number
#: in FP16, to which engines convert the graph: the smallest FP32 would be infinity there.
MASKED = -3e4


class Decoder(torch.nn.Module):
    """INT32 [batch, length] ids and padding mask → FP32 logits [batch, 1].

    `head` is [1, hidden]; the logit is divided by `temperature`.
    """

    def __init__(
        self,
        body: Any,
        head: torch.Tensor,
        *,
        causal: bool,
        pooling: Pooling,
        temperature: float,
    ) -> None:
        super().__init__()
        self.body = body
        self.head = torch.nn.Parameter(head.detach().clone(), requires_grad=False)
        self.causal = causal
        self.pooling = pooling
        self.temperature = temperature

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """One batch, padded on any one side."""
        real = attention_mask.long()
        # 0, 1, 2 … over a row's own tokens, wherever they begin.
        positions = (real.cumsum(1) - 1).clamp(min=0)
        states = self.body(
            input_ids=input_ids.long(),
            attention_mask=self._mask(real),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state
        logits = self._pooled(states, real) @ self.head.T
        return logits if self.temperature == 1.0 else logits / self.temperature

    def _mask(self, real: torch.Tensor) -> torch.Tensor:
        """[batch, 1, length, length], 0 where the row's token sees the column's."""
        seen = real[:, None, None, :].bool()
        if self.causal:
            index = torch.arange(real.shape[1], device=real.device)
            seen = seen & (index[:, None] >= index[None, :])[None, None]
        else:
            seen = seen.expand(-1, -1, real.shape[1], -1)
        return torch.where(seen, 0.0, MASKED)

    def _pooled(self, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """[batch, hidden] of the row's own tokens."""
        if self.pooling == "mean":
            weights = real[:, :, None].to(states.dtype)
            return (states * weights).sum(1) / weights.sum(1)
        # By largest and smallest index: ONNX Runtime has no ArgMax of integers.
        index = torch.arange(real.shape[1], device=real.device)
        last = (index * real).amax(1)
        first = (index + (1 - real) * real.shape[1]).amin(1)
        at = last if self.pooling == "last" else first
        at = at[:, None, None].expand(-1, 1, states.shape[2])
        return states.gather(1, at).squeeze(1)
