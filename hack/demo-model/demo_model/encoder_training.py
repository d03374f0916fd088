"""Makes the embedding model better at needs, before it becomes a cross-encoder.

A few hundred cheap steps: every query of a batch is scored against the passages of all its
groups, so that one batch has 24 queries with 96 passages each. The target is a distribution,
softmax(base model's cosine / TEMPERATURE + BONUS * relevant): the base model's opinion keeps
its breadth, the bonus adds what is known about the answer. Many more steps add nothing on
held-back groups and take away from needs in other words than Debian's.
"""

from __future__ import annotations

import functools
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import BertModel

from demo_model.encoder import Encoder, base_model_directory, embed
from demo_model.optimizer import Masters, Trained, learning_rate_factor
from demo_model.pairs import PairTokenizer, whole

SEED = 20
TOKENS = 62
GROUPS, NEGATIVES = 24, 3
LEARNING_RATE, WARMUP = 3e-5, 50
TEMPERATURE, BONUS, SCALE = 0.05, 2.0, 20.0
_PART = 32


@dataclass(frozen=True)
class Group:
    """Rows of `Texts`: a query, its passages, and which of them answer it."""

    query: int
    passages: list[int]
    relevant: list[int]


class Texts:
    """All distinct texts of a file of groups, as token ids."""

    def __init__(self, path: Path, tokenizer: PairTokenizer) -> None:
        rows: dict[str, int] = {}
        self.groups = []
        for line in path.read_text(encoding="utf-8").splitlines():
            group = json.loads(line)
            query, *passages = [
                rows.setdefault(text, len(rows)) for text in (group["query"], *group["passages"])
            ]
            self.groups.append(Group(query, passages, group["relevant"]))
        self.ids = [whole(ids, TOKENS) for ids in tokenizer.ids(list(rows))]
        self._texts = list(rows)
        self._cache = path.with_suffix(".vectors.npy")

    @functools.cached_property
    def vectors(self) -> Tensor:
        """The base model's embeddings; only what is trained on needs them."""
        if self._cache.exists() and len(np.load(self._cache, mmap_mode="r")) == len(self._texts):
            return torch.from_numpy(np.load(self._cache)).float()
        vectors = Encoder(base_model_directory(), TOKENS + 2).encode(self._texts)
        np.save(self._cache, vectors.astype(np.float16))
        return torch.from_numpy(vectors)

    def cosines(self, queries: list[int], passages: list[int]) -> Tensor:
        """The base model's opinion, shape (queries, passages)."""
        return self.vectors[queries] @ self.vectors[passages].T


def train_encoder(texts: Texts, steps: int) -> BertModel:
    """The base model after `steps`, in float32. Prints the loss every 25 steps."""
    torch.manual_seed(SEED)
    rng = random.Random(SEED)  # noqa: S311  seeded on purpose
    model = BertModel.from_pretrained(
        base_model_directory(),
        attn_implementation="eager",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model.requires_grad_(False)
    body = list(model.encoder.parameters())
    for parameter in body:
        parameter.requires_grad_(True)
    masters = Masters(Trained(p, LEARNING_RATE, torch.ones_like(p)) for p in body)
    model.bfloat16()
    waiting: list[Group] = []
    total = 0.0
    for step in range(steps):
        if len(waiting) < GROUPS:
            waiting += rng.sample(texts.groups, len(texts.groups))
        loss = _loss(model, texts, [waiting.pop() for _ in range(GROUPS)], rng)
        masters.step(
            torch.autograd.grad(loss, masters.parameters),
            learning_rate_factor(step, WARMUP),
        )
        total += loss.item()
        if (step + 1) % 25 == 0:
            print(json.dumps({"encoder_step": step + 1, "loss": round(total / 25, 4)}), flush=True)
            total = 0.0
    model.float()
    masters.restore()
    return model.eval()


def _loss(model: BertModel, texts: Texts, groups: list[Group], rng: random.Random) -> Tensor:
    queries = [group.query for group in groups]
    passages: list[int] = []
    relevant = torch.zeros(len(groups), len(groups) * (1 + NEGATIVES))
    for i, group in enumerate(groups):
        for member in (0, *rng.sample(range(1, len(group.passages)), NEGATIVES)):
            relevant[i, len(passages)] = group.relevant[member]
            passages.append(group.passages[member])
    opinion = texts.cosines(queries, passages) / TEMPERATURE
    target = torch.softmax(opinion + BONUS * relevant, dim=1)
    order = sorted(range(len(passages)), key=lambda i: len(texts.ids[passages[i]]))
    parts = [order[i : i + _PART] for i in range(0, len(order), _PART)]
    vectors = torch.cat([embed(model, [texts.ids[passages[i]] for i in part]) for part in parts])
    back = torch.tensor(order).argsort()
    scores = embed(model, [texts.ids[q] for q in queries]) @ vectors[back].T * SCALE
    return -(target * torch.log_softmax(scores, dim=1)).sum(1).mean()
