"""The ceiling: the same engine by the runtime's own Python API, with everything sorted beforehand.

    python bench/serving/bare.py ENGINE --requests FILE [--seconds 10] [--check]

No HTTP, no Triton, no tokenisation: ids lie ready, ordered by length. Two ways are tried, batches
of exactly one length, and neighbours padded to the longest, each with several budgets; the best one
is the ceiling. `single_ms` is one pair at a time. `--check` scores the pairs in
shuffled batches, too, and tells the largest difference that the company of others makes.

Runs where onnxruntime is (requirements/bench-peers.txt); prints JSON.
"""

import argparse
import itertools
import json
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

_BUDGETS = (1024, 2048, 4096, 8192)
_MOST_ROWS = 256
_LONGEST = 512
Pairs = list[tuple[list[int], list[int]]]
T = TypeVar("T")


def session(engine: Path, threads: int) -> ort.InferenceSession:
    """As the CPU backend opens it, but with threads that spin: nobody else wants the cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    model = engine / "repository/reranker/1/model.onnx"
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def tokenised(engine: Path, requests: list[dict[str, object]]) -> Pairs:
    """Ids and types of every pair, by the tokenizer's own template."""
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LONGEST, strategy="only_second")
    texts = [(one["query"], passage) for one in requests for passage in one["passages"]]  # type: ignore[attr-defined]
    return [(e.ids, e.type_ids) for e in tokenizer.encode_batch(texts)]


def run(model: ort.InferenceSession, rows: Pairs) -> np.ndarray:
    """Scores of one batch, padded to its longest row."""
    longest = max(len(ids) for ids, _ in rows)
    ids = np.zeros((len(rows), longest), np.int32)
    types, mask = ids.copy(), ids.copy()
    for at, (row, kinds) in enumerate(rows):
        ids[at, : len(row)], types[at, : len(row)], mask[at, : len(row)] = row, kinds, 1
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    feeds = {entry.name: arrays[entry.name] for entry in model.get_inputs()}
    return np.asarray(model.run(["logits"], feeds)[0])[:, 0]


def slices(whole: list[T], size: int) -> Iterable[list[T]]:
    """`whole` in lists of at most `size`."""
    return (whole[at : at + size] for at in range(0, len(whole), size))


def exact(pairs: Pairs, budget: int) -> Iterable[Pairs]:
    """Batches of one length."""
    for length, group in itertools.groupby(pairs, key=lambda pair: len(pair[0])):
        yield from slices(list(group), max(1, min(_MOST_ROWS, budget // length)))


def padded(pairs: Pairs, budget: int) -> Iterable[Pairs]:
    """Neighbours by length; `pairs` ascend."""
    batch: Pairs = []
    for pair in pairs:
        if batch and (len(batch) + 1) * len(pair[0]) > budget:
            yield batch
            batch = []
        batch.append(pair)
    yield batch


def rate(model: ort.InferenceSession, batches: Sequence[Pairs], seconds: float) -> float:
    """Pairs per second over batches in random order, for about so long."""
    order = list(batches)
    random.Random(3).shuffle(order)  # noqa: S311
    started, done = time.perf_counter(), 0
    for batch in itertools.cycle(order):
        run(model, batch)
        done += len(batch)
        elapsed = time.perf_counter() - started
        # A whole round at least: short pairs first would be another workload.
        if elapsed > seconds and (done >= sum(map(len, order)) or elapsed > 4 * seconds):
            return done / elapsed
    raise AssertionError


def company(model: ort.InferenceSession, pairs: Pairs) -> float:
    """Largest difference of a pair's score between batches of different company."""
    some = pairs[:256]
    alone = np.array([run(model, [pair])[0] for pair in some])
    worst = 0.0
    for seed in range(5):
        order = list(range(len(some)))
        random.Random(seed).shuffle(order)  # noqa: S311
        for batch in slices(order, 24):
            scores = run(model, [some[at] for at in batch])
            worst = max(worst, float(np.abs(scores - alone[batch]).max()))
    return worst


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    asked = json.loads(arguments.requests.read_text(encoding="utf-8"))
    pairs = sorted(tokenised(arguments.engine, asked), key=lambda pair: len(pair[0]))
    model = session(arguments.engine, arguments.threads)
    run(model, pairs[:1])
    if arguments.check:
        random.Random(1).shuffle(pairs)  # noqa: S311
        print(json.dumps({"largest_difference": company(model, pairs)}))
        return
    # Short tries find the best way, one long run measures it.
    ways = [list(way(pairs, budget)) for way in (exact, padded) for budget in _BUDGETS]
    tries = [rate(model, way, arguments.seconds / 8) for way in ways]
    best = ways[tries.index(max(tries))]
    singles = []
    for pair in pairs[:20]:
        began = time.perf_counter()
        run(model, [pair])
        singles.append((time.perf_counter() - began) * 1000)
    found = rate(model, best, arguments.seconds)
    print(json.dumps({"pairs_per_second": found, "single_ms": statistics.median(singles)}))


if __name__ == "__main__":
    main()
