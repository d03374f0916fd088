"""The ceiling: the same engine by the runtime's own Python API, with everything sorted beforehand.

    python bench/serving/bare.py ENGINE --requests FILE [--seconds 10] [--way WAY]
    python bench/serving/bare.py ENGINE --requests FILE --find [--seconds 2] | --check

No HTTP, no Triton, no tokenisation: ids lie ready, ordered by length. Ways are batches of exactly
one length, and neighbours padded to the longest, each with several token budgets, as one batch on
all threads or as many batches as threads on one each. `--find` tries each for so many seconds and
tells the best; what is measured with that is the ceiling. `single_ms` is one pair at a time.
`--check` scores pairs in shuffled batches, and tells the largest difference that the company of
others makes.

Runs where requirements/bench-peers.txt is installed; prints JSON.
"""

import argparse
import itertools
import json
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from tokenizers import Tokenizer

_BUDGETS = (1024, 2048, 4096, 8192)
_MOST_ROWS = 256
_LONGEST = 512
#: Of `--check`: pairs, rows of a batch, shuffles.
_CHECKED = (256, 24, 5)
_SINGLES = 40
Pairs = list[tuple[list[int], list[int]]]
Feeds = dict[str, np.ndarray]
Model = Callable[[Feeds], np.ndarray]
T = TypeVar("T")


def onnxruntime_model(file: Path, threads: int) -> Model:
    """As the CPU backend opens it, but with threads that spin: nobody else wants the cores."""
    import onnxruntime as ort  # noqa: PLC0415

    ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(feeds: Feeds) -> np.ndarray:
        return np.asarray(session.run(["logits"], {name: feeds[name] for name in names})[0])

    return run


def openvino_model(file: Path, threads: int, precision: str) -> Model:
    """As the CPU backend opens it."""
    import openvino  # noqa: PLC0415

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(file, "CPU", settings)
    names = [entry.get_node().get_friendly_name() for entry in compiled.inputs]
    request = compiled.create_infer_request()

    def run(feeds: Feeds) -> np.ndarray:
        found = request.infer({name: feeds[name] for name in names}, share_inputs=True)
        return np.array(found["logits"])

    return run


def load(engine: Path, threads: int) -> Model:
    """The engine's model by the runtime that its config.pbtxt names."""
    repository = engine / "repository/reranker"
    config = (repository / "config.pbtxt").read_text(encoding="utf-8")
    if "openvino" not in config:
        return onnxruntime_model(repository / "1/model.onnx", threads)
    if '"bf16"' in config:
        return openvino_model(repository / "1/model.xml", threads, "bf16")
    return openvino_model(repository / "1/model.onnx", threads, "f32")


def tokenised(engine: Path, requests: list[dict[str, object]]) -> Pairs:
    """Ids and types of every pair, by the tokenizer's own template; ascending by length."""
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(_LONGEST, strategy="only_second")
    texts = [(one["query"], passage) for one in requests for passage in one["passages"]]  # type: ignore[attr-defined]
    pairs = [(e.ids, e.type_ids) for e in tokenizer.encode_batch(texts)]
    return sorted(pairs, key=lambda pair: len(pair[0]))


def feeds_of(rows: Pairs) -> Feeds:
    """One batch, padded to its longest row."""
    longest = max(len(ids) for ids, _ in rows)
    ids = np.zeros((len(rows), longest), np.int32)
    types, mask = ids.copy(), ids.copy()
    for at, (row, kinds) in enumerate(rows):
        ids[at, : len(row)], types[at, : len(row)], mask[at, : len(row)] = row, kinds, 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


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


class Bare:
    """Measures ways to run the pairs."""

    def __init__(self, engine: Path, pairs: Pairs, threads: int) -> None:
        self._engine = engine
        self._pairs = pairs
        self._threads = threads
        self._models: dict[int, list[Model]] = {}

    def models(self, streams: int) -> list[Model]:
        """`streams` sessions that share the threads."""
        if streams not in self._models:
            each = max(1, self._threads // streams)
            self._models[streams] = [load(self._engine, each) for _ in range(streams)]
        return self._models[streams]

    def rate(self, way: str, seconds: float, *, whole: bool) -> tuple[float, float]:
        """Pairs and tokens per second over batches in random order.

        About so long; with `whole` in rounds of all batches, so that it is the same work each time.
        """
        shape, budget, streams = way.split(":")
        batches = list((exact if shape == "exact" else padded)(self._pairs, int(budget)))
        random.Random(3).shuffle(batches)  # noqa: S311
        ready = [(feeds_of(batch), len(batch), sum(len(i) for i, _ in batch)) for batch in batches]
        models = self.models(int(streams))
        for model in models:
            model(ready[0][0])
        lock = threading.Lock()
        done: list[tuple[int, int]] = []
        started = time.perf_counter()

        def draw() -> tuple[Feeds, int, int] | None:
            with lock:
                over = done and time.perf_counter() > started + seconds
                if over and not (whole and len(done) % len(ready)):
                    return None
                one = ready[len(done) % len(ready)]
                done.append(one[1:])
                return one

        def run(model: Model) -> None:
            while one := draw():
                model(one[0])

        with ThreadPoolExecutor(len(models)) as pool:
            list(pool.map(run, models))
        elapsed = time.perf_counter() - started
        return sum(rows for rows, _ in done) / elapsed, sum(n for _, n in done) / elapsed

    def best(self, seconds: float) -> str:
        """The way that does most tokens, by tries of so many seconds."""
        ways = [f"{shape}:{budget}:1" for shape in ("exact", "padded") for budget in _BUDGETS]
        found = {way: self.rate(way, seconds, whole=False)[1] for way in ways}
        first = max(found, key=found.__getitem__)
        if self._threads > 1:
            other = f"{first[: -len(':1')]}:{self._threads}"
            found[other] = self.rate(other, seconds, whole=False)[1]
        return max(found, key=found.__getitem__)

    def single_ms(self) -> float:
        """Median of one pair at a time."""
        (model,) = self.models(1)
        times = []
        for pair in self._pairs[:_SINGLES]:
            feeds = feeds_of([pair])
            began = time.perf_counter()
            model(feeds)
            times.append((time.perf_counter() - began) * 1000)
        return statistics.median(times)

    def company(self) -> tuple[float, float]:
        """Largest difference of a score between batches of different company; spread of scores."""
        count, size, shuffles = _CHECKED
        some = list(self._pairs)
        random.Random(1).shuffle(some)  # noqa: S311
        some = some[:count]
        (model,) = self.models(1)
        alone = np.array([model(feeds_of([pair]))[0, 0] for pair in some])
        worst = 0.0
        for seed in range(shuffles):
            order = list(range(len(some)))
            random.Random(seed).shuffle(order)  # noqa: S311
            for batch in slices(order, size):
                scores = model(feeds_of([some[at] for at in batch]))[:, 0]
                worst = max(worst, float(np.abs(scores - alone[batch]).max()))
        return worst, float(alone.max() - alone.min())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("engine", type=Path)
    parser.add_argument("--requests", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", default="padded:2048:1", help="SHAPE:BUDGET:STREAMS")
    parser.add_argument("--find", action="store_true")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    asked = json.loads(arguments.requests.read_text(encoding="utf-8"))
    bare = Bare(arguments.engine, tokenised(arguments.engine, asked), arguments.threads)
    found: dict[str, Sequence[float] | float | str]
    if arguments.check:
        largest, spread = bare.company()
        found = {"largest_difference": largest, "spread_of_scores": spread}
    elif arguments.find:
        found = {"way": bare.best(arguments.seconds)}
    else:
        pairs, tokens = bare.rate(arguments.way, arguments.seconds, whole=True)
        found = {
            "pairs_per_second": pairs,
            "tokens_per_second": tokens,
            "single_ms": bare.single_ms(),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
