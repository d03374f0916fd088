"""Query and passage as the model reads them: [CLS] query [SEP] [CLS] passage [SEP].

The passage has a [CLS] of its own, as it had when the embedding model read it alone:
without it the embeddings, and the order of the needs written by hand, are far worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

CLS, SEP = 101, 102


def collate(pairs: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """Padded inputs, each (pairs, longest); both texts come with their special tokens."""
    longest = max(len(a) + len(b) for a, b in pairs)
    pad = [longest - len(a) - len(b) for a, b in pairs]
    return {
        "input_ids": torch.tensor(
            [[*a, *b] + [0] * p for (a, b), p in zip(pairs, pad, strict=True)]
        ),
        "attention_mask": torch.tensor([[1] * (longest - p) + [0] * p for p in pad]),
        "token_type_ids": torch.tensor(
            [[0] * len(a) + [1] * len(b) + [0] * p for (a, b), p in zip(pairs, pad, strict=True)]
        ),
    }


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
        return collate(
            [
                (whole(query, self.max_query), whole(passage, max_passage))
                for query, passage in pairs
            ]
        )


def whole(ids: list[int], most: int) -> list[int]:
    """A text of at most `most` tokens, with its special tokens."""
    return [CLS, *ids[:most], SEP]
