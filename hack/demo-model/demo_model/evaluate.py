"""Judges the reranker beside BM25 and the embedding's cosine: last step of the flow.

Three sets: held-out packages (each method orders BM25's best fifty), the needs
written by hand (five similar packages each), and definitions outside the
software domain. Writes results.json.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from demo_model import outside, parallel, wordnet
from demo_model.bm25 import Bm25
from demo_model.encoder import Encoder, FloatArray, base_model_directory
from demo_model.pairs import PairTokenizer
from demo_model.weights import load_merged, merge

SEED = 20
CANDIDATES, CUTOFF = 50, 10
PASSAGE_TOKENS = 128
OUTSIDE_QUERIES, OUTSIDE_PASSAGES = 250, 4000
_BATCH = 16


@dataclass(frozen=True)
class Task:
    """One query: positions of its candidate passages and the one that answers (None: none)."""

    query: str
    candidates: list[int]
    answer: int | None


class Scorer:
    """The merged reranker; scores (query, passage) pairs."""

    def __init__(self, merged: Path) -> None:
        self._reranker = load_merged(merged)
        self._tokenizer = PairTokenizer.load(base_model_directory())

    def scores(self, pairs: Sequence[tuple[str, str]]) -> FloatArray:
        """Unbounded scores, shape (pairs,)."""
        queries = self._tokenizer.ids([q for q, _ in pairs])
        passages = self._tokenizer.ids([p for _, p in pairs])
        order = sorted(
            range(len(pairs)), key=lambda i: len(queries[i]) + min(len(passages[i]), PASSAGE_TOKENS)
        )
        parts = [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]

        def score(part: list[int]) -> FloatArray:
            with torch.inference_mode():
                batch = self._tokenizer.batch(
                    [(queries[i], passages[i]) for i in part], PASSAGE_TOKENS
                )
                logits: FloatArray = self._reranker(**batch).logits.squeeze(-1).numpy()
                return logits

        result = np.empty(len(pairs), dtype=np.float32)
        for part, scores in zip(parts, parallel.parallel_map(score, parts), strict=True):
            result[part] = scores
        return result


def rank_of(
    answer: int | None, candidates: Sequence[int], scores: Sequence[float] | FloatArray
) -> float:
    """The answer's place, 1 is best; ties count against it; infinity when it is not a candidate."""
    if answer is None:
        return math.inf
    own = scores[candidates.index(answer)]
    return 1 + sum(s >= own for c, s in zip(candidates, scores, strict=True) if c != answer)


def measures(ranks: Sequence[float]) -> dict[str, float]:
    """NDCG@10, MRR@10 and the share of first places."""
    ndcg = [1 / math.log2(1 + r) if r <= CUTOFF else 0.0 for r in ranks]
    mrr = [1 / r if r <= CUTOFF else 0.0 for r in ranks]
    first = [float(r == 1) for r in ranks]
    values = {"ndcg@10": ndcg, "mrr@10": mrr, "first": first}
    return {name: round(sum(v) / len(v), 4) for name, v in values.items()}


class Judge:
    """Runs all three methods over sets of tasks."""

    def __init__(self, encoder: Encoder, scorer: Scorer) -> None:
        self._encoder, self._scorer = encoder, scorer

    def compare(self, tasks: Sequence[Task], passages: Sequence[str], bm25: Bm25) -> dict[str, Any]:
        """The measures of each method over `tasks`; candidates are positions in `passages`."""
        vectors = self._encoder.encode(passages)
        query_vectors = self._encoder.encode([task.query for task in tasks])
        pairs = [(task.query, passages[c]) for task in tasks for c in task.candidates]
        reranked = iter(self._scorer.scores(pairs))
        ranks: dict[str, list[float]] = {"bm25": [], "cosine": [], "reranker": []}
        for task, vector in zip(tasks, query_vectors, strict=True):
            by_method = {
                "bm25": bm25.scores(task.query)[task.candidates],
                "cosine": vectors[task.candidates] @ vector,
                "reranker": np.array([next(reranked) for _ in task.candidates]),
            }
            for method, scores in by_method.items():
                ranks[method].append(rank_of(task.answer, task.candidates, scores))
        result: dict[str, Any] = {"queries": len(tasks), "passages": len(passages)}
        return result | {method: measures(values) for method, values in ranks.items()}


def retrieval_tasks(queries: Sequence[tuple[str, int]], bm25: Bm25) -> list[Task]:
    """Tasks whose candidates are BM25's best; the answer may not be among them."""
    tasks = []
    for query, answer in queries:
        scores = bm25.scores(query)
        best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:CANDIDATES]
        tasks.append(Task(query, best, answer if answer in best else None))
    return tasks


def held_out(work: Path, judge: Judge) -> dict[str, Any]:
    """Packages that training has not seen, asked for by title and by AppStream's summary."""
    test = json.loads((work / "test.json").read_text(encoding="utf-8"))
    position = {p["name"]: i for i, p in enumerate(test["packages"])}
    # The title is the query, so that the passage must do without it.
    texts = {
        "title": [p["long"] for p in test["packages"]],
        "summary": [f"{p['short']}. {p['long']}" for p in test["packages"]],
    }
    results = {}
    for kind, passages in texts.items():
        bm25 = Bm25(passages)
        queries = [(q["query"], position[q["answer"]]) for q in test["queries"][kind]]
        results[kind] = judge.compare(retrieval_tasks(queries, bm25), passages, bm25)
        print(kind, json.dumps(results[kind]), flush=True)
    return results


def by_hand(path: Path, judge: Judge) -> dict[str, Any]:
    """The needs written by hand; BM25 counts words over all of the file's passages."""
    items = yaml.safe_load(path.read_text(encoding="utf-8"))
    passages: list[str] = []
    tasks = []
    for item in items:
        names = [p["name"] for p in item["passages"]]
        start = len(passages)
        passages += [p["text"] for p in item["passages"]]
        candidates = list(range(start, len(passages)))
        tasks.append(Task(item["need"], candidates, start + names.index(item["answer"])))
    result = judge.compare(tasks, passages, Bm25(passages))
    print("needs", json.dumps(result), flush=True)
    return result


def elsewhere(work: Path, judge: Judge) -> dict[str, Any]:
    """Definitions of words, outside the software domain."""
    groups = [
        json.loads(line) for line in (work / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    seen = frozenset(p for g in groups if g["kind"] == "gloss" for p in g["passages"])
    synsets = wordnet.read_synsets(work / "wordnet-base/usr/share/wordnet")
    definitions = outside.read_definitions(work / "dict-gcide/usr/share/dictd", synsets, seen)
    rng = random.Random(SEED)  # noqa: S311  seeded on purpose
    definitions = rng.sample(definitions, min(OUTSIDE_PASSAGES, len(definitions)))
    passages = [d.text for d in definitions]
    bm25 = Bm25(passages)
    queries = [(d.gloss, i) for i, d in enumerate(definitions[:OUTSIDE_QUERIES])]
    result = judge.compare(retrieval_tasks(queries, bm25), passages, bm25)
    print("definitions", json.dumps(result), flush=True)
    return result


def main() -> None:
    """Command line: `python -m demo_model.evaluate WORK WEIGHTS RESULTS`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path, help="directory that `prepare` filled")
    parser.add_argument("weights", type=Path, help="directory that `train` wrote")
    parser.add_argument("results", type=Path, help="the JSON file to write")
    parser.add_argument("--needs-only", action="store_true", help="only the needs written by hand")
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as merged:
        merge(arguments.weights, Path(merged))
        scorer = Scorer(Path(merged))
    judge = Judge(Encoder(base_model_directory(), PASSAGE_TOKENS), scorer)
    results: dict[str, Any] = {"needs": by_hand(here / "needs.yaml", judge)}
    if not arguments.needs_only:
        results |= {
            "held_out": held_out(arguments.work, judge),
            "definitions": elsewhere(arguments.work, judge),
        }
    arguments.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
