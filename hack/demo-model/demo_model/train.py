"""Trains the adapter: third step of the flow.

Each group is one query with eight passages. The target over a group is a
distribution, softmax(similarity / TEMPERATURE + BONUS * relevant): the
embedding model's opinion keeps the breadth that the base model has, the bonus
adds what is known about the answer. The learning rate is constant and then
falls to zero over the second half, so a longer run may continue from any
checkpoint before the fall.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from demo_model import parallel
from demo_model.adapter import Reranker, save_adapter
from demo_model.encoder import base_model_directory
from demo_model.pairs import PairTokenizer

SEED = 20
GROUPS_PER_STEP = 8
# From this share of all steps on, groups are cut at these passage lengths (tokens), with
# these weights. Matching is learnt from the first words, cheaply; length comes later.
CURRICULUM = (
    (0.0, (16, 24, 40), (0.4, 0.4, 0.2)),
    (0.55, (24, 40, 64, 104), (0.3, 0.35, 0.23, 0.12)),
)
LEARNING_RATE, HEAD_LEARNING_RATE = 2.5e-4, 5e-4
WARMUP, FALL = 100, 0.5
TEMPERATURE, BONUS = 0.08, 2.0
# For queries made from tags the embedding knows less: its opinion counts for less.
TAG_TEMPERATURE = 0.12
CALIBRATION = 0.05
CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class Example:
    """A tokenized group; `target` sums to one, `relevant` is 0 or 1, both (passages,)."""

    query: list[int]
    passages: list[list[int]]
    target: Tensor
    relevant: Tensor


@dataclass(frozen=True)
class Batch:
    """Groups for one worker, all cut at the same passage length."""

    examples: list[Example]
    max_passage: int


def read_examples(path: Path, tokenizer: PairTokenizer) -> list[Example]:
    """The groups of a file that `prepare` wrote."""
    groups = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    query_ids = tokenizer.ids([g["query"] for g in groups])
    passage_ids = iter(tokenizer.ids([p for g in groups for p in g["passages"]]))
    examples = []
    for group, query in zip(groups, query_ids, strict=True):
        temperature = TAG_TEMPERATURE if group["kind"] == "tags" else TEMPERATURE
        relevant = torch.tensor(group["relevant"], dtype=torch.float32)
        opinion = torch.tensor(group["similarities"]) / temperature
        target = torch.softmax(opinion + BONUS * relevant, dim=0)
        examples.append(
            Example(query, [next(passage_ids) for _ in group["passages"]], target, relevant)
        )
    return examples


def batches(examples: list[Example], steps: int) -> list[list[Batch]]:
    """The batches of every step, one batch per half step and worker; fixed by SEED.

    Always two to a step, whatever the number of cores: the order in which
    gradients are added up is part of the result.
    """
    rng = random.Random(SEED)  # noqa: S311  seeded on purpose
    half = GROUPS_PER_STEP // 2
    waiting: dict[int, list[Example]] = {}
    ready: list[list[Batch]] = []
    while len(ready) < steps:
        for example in rng.sample(examples, len(examples)):
            _, lengths, weights = [c for c in CURRICULUM if c[0] * steps <= len(ready)][-1]
            length = rng.choices(lengths, weights)[0]
            members = waiting.setdefault(length, [])
            members.append(example)
            if len(members) == GROUPS_PER_STEP:
                ready.append([Batch(members[:half], length), Batch(members[half:], length)])
                waiting[length] = []
    return ready[:steps]


class Trainer:
    """The model, its optimizer and the loss of one batch.

    The model computes in bfloat16; the optimizer keeps and changes float32 copies.
    """

    def __init__(self, tokenizer: PairTokenizer) -> None:
        torch.manual_seed(SEED)
        self.tokenizer = tokenizer
        self.base = Reranker(base_model_directory())
        self.reranker = Reranker(base_model_directory())
        self.reranker.load_state_dict(self.base.state_dict())
        matrices, head = self.reranker.matrices(), self.reranker.head()
        self.names = [*matrices, *head]
        self.masters = [p.detach().clone() for p in (*matrices.values(), *head.values())]
        body, rest = self.masters[: len(matrices)], self.masters[len(matrices) :]
        self.optimizer = torch.optim.AdamW(
            [{"params": body, "peak": LEARNING_RATE}, {"params": rest, "peak": HEAD_LEARNING_RATE}],
            lr=0.0,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        self.reranker.bfloat16()
        self.parameters = [*matrices.values(), *head.values()]

    def scores(self, batch: Batch) -> Tensor:
        """Scores of shape (groups, passages)."""
        pairs = [(e.query, p) for e in batch.examples for p in e.passages]
        scores: Tensor = self.reranker(**self.tokenizer.batch(pairs, batch.max_passage))
        return scores.view(len(batch.examples), -1)

    def gradients(self, batch: Batch) -> tuple[float, tuple[Tensor, ...]]:
        """The summed loss of a batch and its gradients, in the order of `parameters`."""
        scores = self.scores(batch)
        target = torch.stack([e.target for e in batch.examples])
        relevant = torch.stack([e.relevant for e in batch.examples])
        ranking = -(target * torch.log_softmax(scores, dim=1)).sum()
        calibration = torch.nn.functional.binary_cross_entropy_with_logits(
            scores, relevant, reduction="sum"
        )
        loss = ranking + CALIBRATION * calibration
        return loss.item(), torch.autograd.grad(loss, self.parameters)

    def update(self, gradients: list[tuple[Tensor, ...]], factor: float) -> None:
        """One optimizer step at `factor` of the peak learning rates."""
        for master, *parts in zip(self.masters, *gradients, strict=True):
            total = sum((part.float() for part in parts[1:]), parts[0].float())
            master.grad = total / GROUPS_PER_STEP
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.step()
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Rounds the float32 copies into the model."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)

    def save(self, output: Path) -> None:
        """Writes the adapter."""
        learnt = dict(zip(self.names, self.masters, strict=True))
        count = len(self.base.matrices())
        matrices = {name: learnt[name] for name in self.names[:count]}
        save_adapter(self.base, matrices, {n: learnt[n] for n in self.names[count:]}, output)

    @torch.inference_mode()
    def judge(self, examples: list[Example]) -> dict[str, float]:
        """How often the answer comes first (and the mean reciprocal rank) in `examples`."""
        parts = [Batch(examples[i : i + 4], 64) for i in range(0, len(examples), 4)]
        rows = torch.cat(parallel.parallel_map(torch.inference_mode()(self.scores), parts))
        ranks = 1 + (rows[:, 1:] >= rows[:, :1]).sum(1).double()
        return {"first": (ranks == 1).double().mean().item(), "mrr": (1 / ranks).mean().item()}


def learning_rate_factor(step: int, steps: int) -> float:
    """Rises over WARMUP steps, stays at 1, falls to 0 over the last FALL of all steps."""
    return min(1.0, (step + 1) / WARMUP, (steps - step) / (FALL * steps))


def train(work: Path, output: Path, steps: int) -> None:
    """Trains for `steps` and writes the adapter; continues from checkpoints in `work`."""
    tokenizer = PairTokenizer.load(base_model_directory())
    trainer = Trainer(tokenizer)
    examples = read_examples(work / "train.jsonl", tokenizer)
    dev = read_examples(work / "dev.jsonl", tokenizer)
    plan = batches(examples, steps)
    start = _resume(trainer, work, last=round(steps * (1 - FALL)))
    began, loss_sum = time.monotonic(), 0.0
    with (
        ThreadPoolExecutor(parallel.workers()) as pool,
        (work / "train.log").open("a", encoding="utf-8") as log,
    ):
        for step in range(start, steps):
            results = list(pool.map(trainer.gradients, plan[step]))
            trainer.update(
                [gradients for _, gradients in results], learning_rate_factor(step, steps)
            )
            loss_sum += sum(loss for loss, _ in results) / GROUPS_PER_STEP
            if (step + 1) % 25 == 0:
                entry: dict[str, Any] = {
                    "step": step + 1,
                    "loss": round(loss_sum / 25, 4),
                    "seconds": round(time.monotonic() - began),
                }
                loss_sum = 0.0
                if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
                    entry |= trainer.judge(dev)
                    _checkpoint(trainer, work, step + 1)
                print(json.dumps(entry), file=log, flush=True)
                print(json.dumps(entry), flush=True)
    trainer.save(output)


def _checkpoint(trainer: Trainer, work: Path, step: int) -> None:
    state = {
        "parameters": trainer.masters,
        "optimizer": trainer.optimizer.state_dict(),
    }
    temporary = work / "checkpoint.tmp"
    torch.save(state, temporary)
    temporary.replace(work / f"checkpoint-{step}.pt")


def _resume(trainer: Trainer, work: Path, last: int) -> int:
    """Loads the newest checkpoint of at most `last` steps; the step to go on with."""
    found = {int(path.stem.split("-")[1]): path for path in work.glob("checkpoint-*.pt")}
    step = max((s for s in found if s <= last), default=0)
    if step:
        state = torch.load(found[step], weights_only=True)
        for master, value in zip(trainer.masters, state["parameters"], strict=True):
            master.copy_(value)
        trainer.optimizer.load_state_dict(state["optimizer"])
    trainer.publish()
    return step


def main() -> None:
    """Command line: `python -m demo_model.train WORK OUTPUT --steps N`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="directory that `prepare` filled")
    parser.add_argument("output", type=Path, help="directory for the adapter")
    parser.add_argument("--steps", type=int, default=5500)
    arguments = parser.parse_args()
    train(arguments.work, arguments.output, arguments.steps)


if __name__ == "__main__":
    main()
