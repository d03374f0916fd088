"""Trains the reranker: third step of the flow.

First the embedding model gets a little better (encoder_training.py), then it becomes a
cross-encoder (join.py), then that is trained here: each group is one query with eight
passages, and the target over a group is softmax(base model's cosine / TEMPERATURE + BONUS *
relevant). What was joined is precise and small steps keep it so; the channels that tell the
texts apart never change. The result is stored in float16.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification, BertModel

from demo_model import parallel
from demo_model.encoder import base_model_directory
from demo_model.encoder_training import Group, Texts, train_encoder
from demo_model.join import Channels, channels_of, join
from demo_model.optimizer import Masters, Trained, learning_rate_factor
from demo_model.pairs import SEP, PairTokenizer, collate
from demo_model.weights import save_weights

SEED = 31
SAMPLE, SAMPLE_SEED = 160, 5
GROUPS = 8
LENGTHS, LENGTH_WEIGHTS = (24, 40, 62), (0.35, 0.4, 0.25)
LEARNING_RATE, HEAD_LEARNING_RATE = 2e-5, 1e-4
WARMUP = 50
TEMPERATURE = 0.07
# From this step on the answer weighs this much more than the base model's opinion.
BONUS = {0: 2.0, 300: 3.0}
CHECKPOINT_EVERY = 100
_QUERY = 40


@dataclass(frozen=True)
class Step:
    """The groups of one step, the passage length in tokens at which they are cut, the bonus."""

    groups: list[Group]
    length: int
    bonus: float


def plan(texts: Texts, steps: int) -> Iterator[Step]:
    """All steps; fixed by SEED."""
    rng = random.Random(SEED)  # noqa: S311  seeded on purpose
    waiting: list[Group] = []
    for number in range(steps):
        bonus = BONUS[max(first for first in BONUS if first <= number)]
        (length,) = rng.choices(LENGTHS, LENGTH_WEIGHTS)
        if len(waiting) < GROUPS:
            waiting += rng.sample(texts.groups, len(texts.groups))
        yield Step([waiting.pop() for _ in range(GROUPS)], length, bonus)


def trained(model: BertForSequenceClassification) -> list[Trained]:
    """The parameters that may change, each with a mask that spares what `join` built."""
    channels, depth = channels_of(model), model.config.num_hidden_layers - 2
    found: list[Trained] = []
    for i, block in enumerate(model.bert.encoder.layer):
        found += _feed_forward(block, channels)
        if i < depth:
            found += _attention(block, channels)
    pooler, first = model.bert.pooler.dense, torch.arange(model.config.hidden_size) > 0
    column = first.float()[:, None]
    found.append(Trained(pooler.weight, HEAD_LEARNING_RATE, column.expand_as(pooler.weight)))
    found.append(Trained(pooler.bias, HEAD_LEARNING_RATE, first.float()))
    found.append(Trained(model.classifier.weight, HEAD_LEARNING_RATE, first.float()[None]))
    return found


def _feed_forward(block: nn.Module, channels: Channels) -> list[Trained]:
    first, second = block.intermediate.dense, block.output.dense
    precise = (first.weight[:, channels.all] != 0).any(dim=1)
    in_weight, out_weight = torch.ones_like(first.weight), torch.ones_like(second.weight)
    in_weight[precise] = 0
    in_weight[:, channels.all] = 0
    out_weight[:, precise] = 0
    out_weight[channels.all] = 0
    return [
        Trained(first.weight, LEARNING_RATE, in_weight),
        Trained(first.bias, LEARNING_RATE, (~precise).float()),
        Trained(second.weight, LEARNING_RATE, out_weight),
        Trained(second.bias, LEARNING_RATE, _all_but(second.bias, channels)),
    ]


def _attention(block: nn.Module, channels: Channels) -> list[Trained]:
    attention, output = block.attention.self, block.attention.output.dense
    size = attention.attention_head_size
    apart = torch.arange(attention.all_head_size) % size >= size - 2
    found = []
    for part in (attention.query, attention.key, attention.value):
        weight = torch.ones_like(part.weight)
        weight[:, channels.all] = 0
        bias = torch.ones_like(part.bias)
        if part is not attention.value:
            weight[apart] = 0
            bias[apart] = 0
        found += [Trained(part.weight, LEARNING_RATE, weight)]
        found += [Trained(part.bias, LEARNING_RATE, bias)]
    rows = torch.ones_like(output.weight)
    rows[channels.all] = 0
    found.append(Trained(output.weight, LEARNING_RATE, rows))
    found.append(Trained(output.bias, LEARNING_RATE, _all_but(output.bias, channels)))
    for norm in (block.attention.output.LayerNorm, block.output.LayerNorm):
        found.append(Trained(norm.weight, LEARNING_RATE, _all_but(norm.weight, channels)))
        found.append(Trained(norm.bias, LEARNING_RATE, _all_but(norm.bias, channels)))
    return found


def _all_but(vector: Tensor, channels: Channels) -> Tensor:
    mask = torch.ones_like(vector)
    mask[channels.all] = 0
    return mask


def cut(ids: list[int], most: int) -> list[int]:
    """A text with special tokens, at most `most` tokens long without them."""
    return ids if len(ids) <= most + 2 else [*ids[: most + 1], SEP]


def group_scores(
    model: BertForSequenceClassification, texts: Texts, groups: list[Group], length: int
) -> Tensor:
    """Scores of shape (groups, passages); two parts by length, so that little is padding."""
    pairs = [
        (cut(texts.ids[group.query], _QUERY), cut(texts.ids[passage], length))
        for group in groups
        for passage in group.passages
    ]
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    half = len(order) // 2
    scores = torch.cat(
        [
            model(**collate([pairs[i] for i in part])).logits.squeeze(-1).float()
            for part in (order[:half], order[half:])
        ]
    )
    return scores[torch.tensor(order).argsort()].view(len(groups), -1)


def step_loss(model: BertForSequenceClassification, texts: Texts, step: Step) -> Tensor:
    """The mean cross-entropy of the groups."""
    opinion = torch.cat([texts.cosines([g.query], g.passages) for g in step.groups])
    relevant = torch.tensor([group.relevant for group in step.groups], dtype=torch.float32)
    target = torch.softmax(opinion / TEMPERATURE + step.bonus * relevant, dim=1)
    scores = group_scores(model, texts, step.groups, step.length)
    return -(target * torch.log_softmax(scores, dim=1)).sum(1).mean()


@torch.inference_mode()
def judge(model: BertForSequenceClassification, texts: Texts) -> dict[str, float]:
    """How often the answer comes first, and the mean reciprocal rank."""
    rows = torch.cat([group_scores(model, texts, [group], LENGTHS[-1]) for group in texts.groups])
    ranks = 1 + (rows[:, 1:] >= rows[:, :1]).sum(1).double()
    return {
        "first": round((ranks == 1).double().mean().item(), 4),
        "mrr": round((1 / ranks).mean().item(), 4),
    }


def train_reranker(
    model: BertForSequenceClassification, texts: Texts, dev: Texts, work: Path, steps: int
) -> None:
    """Trains `model` in place; goes on from the newest checkpoint in `work`."""
    torch.manual_seed(SEED)
    model.requires_grad_(False)
    parts = trained(model)
    for part in parts:
        part.parameter.requires_grad_(True)
    masters = Masters(parts)
    begun = _resume(masters, work)
    model.bfloat16()
    masters.publish()
    start, total = time.monotonic(), 0.0
    for number, step in enumerate(plan(texts, steps)):
        if number < begun:
            continue
        loss = step_loss(model, texts, step)
        masters.step(
            torch.autograd.grad(loss, masters.parameters),
            learning_rate_factor(number, WARMUP),
        )
        total += loss.item()
        done = number + 1
        if done % 25 == 0:
            entry: dict[str, float] = {"step": done, "loss": round(total / 25, 4)}
            entry["seconds"] = round(time.monotonic() - start)
            total = 0.0
            if done % CHECKPOINT_EVERY == 0:
                entry |= judge(model, dev)
                _checkpoint(masters, work, done)
            print(json.dumps(entry), flush=True)
    model.float()
    masters.restore()


def _checkpoint(masters: Masters, work: Path, done: int) -> None:
    state = {"values": masters.values, "optimizer": masters.optimizer.state_dict()}
    torch.save(state, work / "checkpoint.tmp")
    (work / "checkpoint.tmp").replace(work / f"checkpoint-{done}.pt")


def _resume(masters: Masters, work: Path) -> int:
    found = {int(path.stem.split("-")[1]): path for path in work.glob("checkpoint-*.pt")}
    if not found:
        return 0
    state = torch.load(found[max(found)], weights_only=True)
    for value, stored in zip(masters.values, state["values"], strict=True):
        value.copy_(stored)
    masters.optimizer.load_state_dict(state["optimizer"])
    return max(found)


def start_model(texts: Texts, work: Path, encoder_steps: int) -> BertForSequenceClassification:
    """The joined model; the trained encoder is kept in `work`."""
    kept = work / "encoder.pt"
    if kept.exists():
        encoder = BertModel.from_pretrained(base_model_directory(), attn_implementation="eager")
        encoder.load_state_dict(torch.load(kept, weights_only=True))
    else:
        encoder = train_encoder(texts, encoder_steps)
        torch.save(encoder.state_dict(), kept)
    rng = random.Random(SAMPLE_SEED)  # noqa: S311  seeded on purpose
    sample = [texts.ids[i] for i in rng.sample(range(len(texts.ids)), SAMPLE)]
    return join(encoder, sample)


def main() -> None:
    """Command line: `python -m demo_model.train WORK WEIGHTS`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="directory that `prepare` filled")
    parser.add_argument("weights", type=Path, help="directory for the result")
    parser.add_argument("--encoder-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=400)
    arguments = parser.parse_args()
    tokenizer = PairTokenizer.load(base_model_directory())
    texts = Texts(arguments.work / "train.jsonl", tokenizer)
    dev = Texts(arguments.work / "dev.jsonl", tokenizer)
    # Whole batches in one graph: from here on all threads work on each operation.
    torch.set_num_threads(parallel.workers())
    model = start_model(texts, arguments.work, arguments.encoder_steps)
    train_reranker(model, texts, dev, arguments.work, arguments.steps)
    save_weights(model, arguments.weights)


if __name__ == "__main__":
    main()
