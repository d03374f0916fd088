"""Query and passage as the model reads them: [CLS] query [SEP] passage [SEP]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

CLS, SEP = 101, 102


@dataclass(frozen=True)
class PairTokenizer:
    """Makes model inputs; a query is cut at `max_query` tokens, a passage at `max_passage`."""

    tokenizer: Tokenizer
    max_query: int

    @classmethod
    def load(cls, directory: Path, max_query: int = 40) -> PairTokenizer:
        """The base model's tokenizer, without its own cutting and padding."""
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, max_query)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens."""
        return [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def batch(
        self, pairs: Sequence[tuple[list[int], list[int]]], max_passage: int
    ) -> dict[str, Tensor]:
        """Padded inputs for (query ids, passage ids) pairs, each of shape (pairs, longest)."""
        rows = [
            ([CLS, *query[: self.max_query], SEP], [*passage[:max_passage], SEP])
            for query, passage in pairs
        ]
        longest = max(len(a) + len(b) for a, b in rows)
        pad = [longest - len(a) - len(b) for a, b in rows]
        return {
            "input_ids": torch.tensor(
                [[*a, *b] + [0] * p for (a, b), p in zip(rows, pad, strict=True)]
            ),
            "attention_mask": torch.tensor([[1] * (longest - p) + [0] * p for p in pad]),
            "token_type_ids": torch.tensor(
                [[0] * len(a) + [1] * len(b) + [0] * p for (a, b), p in zip(rows, pad, strict=True)]
            ),
        }
