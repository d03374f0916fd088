"""Speed and parity of every target that this machine can build for, as one table.

Run by hack/target-table inside the builder image. Pairs per second are those of the runtime alone,
on full batches of random words, the best of several rounds: what the target can do, not a service.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from engine_builder.artefacts import ENGINE_VERSION, read_served_model
from engine_builder.batches import Tensors
from engine_builder.cpus import available_cpus, cpu_flags
from engine_builder.errors import StageError
from engine_builder.progress import Progress
from engine_builder.stages.compile import compile_engine
from engine_builder.stages.validate import validate
from engine_builder.targets import Scorer, builder_of
from reranker_contracts import EngineTarget, ParityReport, StageReason
from reranker_contracts.targets import CPU_FEATURES, PRECISIONS

SHAPES = ((16, 64), (32, 128), (16, 512))
SECONDS = 2.0
RTX = ("8.9",)


def targets() -> list[EngineTarget]:
    return [
        EngineTarget(
            runtime=runtime,
            precision=precision,
            accelerator=accelerator,
            compute_capability=capability,
            max_batch_size=64,
        )
        for (runtime, accelerator), numbers in PRECISIONS.items()
        if accelerator == "cpu" or runtime == "tensorrt-rtx"
        for precision in numbers
        for capability in (RTX if runtime == "tensorrt-rtx" else (None,))
    ]


def batch(inputs: list[str], rows: int, length: int) -> Tensors:
    numbers = np.random.default_rng(0)
    ids = numbers.integers(5, 1000, size=(rows, length)).astype(np.int32)
    tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {name: tensors.get(name, np.zeros_like(ids)) for name in inputs}


def pairs_per_second(scorer: Scorer, rows: int, length: int) -> float:
    tensors = batch(scorer.inputs, rows, length)
    scorer.run(tensors, 1)
    best, end = float("inf"), time.monotonic() + SECONDS
    while time.monotonic() < end:
        begun = time.perf_counter()
        scorer.run(tensors, 1)
        best = min(best, time.perf_counter() - begun)
    return rows / best


def row(prepared: Path, target: EngineTarget, lengths: list[tuple[int, int]]) -> list[str]:
    name = f"{target.runtime} {target.precision}"
    if target.compute_capability:
        name += f" sm{target.compute_capability.replace('.', '')}"
    progress = Progress("targets")
    with tempfile.TemporaryDirectory() as work:
        engine = Path(work)
        begun = time.monotonic()
        try:
            compile_engine(prepared, engine, target, progress=progress)
            outcome = validate(prepared, engine, progress=progress)
        except StageError as error:
            return [name, error.reason.value, *["-"] * (len(lengths) + 5)]
        seconds = time.monotonic() - begun
        size = sum(entry.stat().st_size for entry in (engine / ENGINE_VERSION).iterdir()) / 1e6
        built = [name, "yes", f"{seconds:.0f}", f"{size:.0f}"]
        if outcome.reason is StageReason.TARGET_ABSENT:
            return [*built, *["in the pod"] * 3, *["-"] * len(lengths)]
        scorer = builder_of(target.runtime).load(engine / ENGINE_VERSION, target)
        speeds = [f"{pairs_per_second(scorer, *shape):.0f}" for shape in lengths]
        return [*built, *parity(outcome.parity), *speeds]


def parity(report: ParityReport | None) -> list[str]:
    if report is None:
        return ["-"] * 3
    return [
        f"{report.kendall_tau:.5f}",
        f"{report.ndcg10_delta:.5f}",
        f"{report.max_abs_diff:.1g}",
    ]


def kept_row(folder: Path | None, prepared: Path, target: EngineTarget) -> Path | None:
    """Where a target's row is kept; also how fast a row is depends on the model."""
    if folder is None:
        return None
    kind = (target.compute_capability or target.accelerator).replace(".", "")
    return folder / f"{prepared.name[:16]}-{target.runtime}-{target.precision}-{kind}.json"


def measured(
    folder: Path | None, prepared: Path, target: EngineTarget, lengths: list[tuple[int, int]]
) -> list[str]:
    """The row, from an earlier run if that got so far."""
    kept = kept_row(folder, prepared, target)
    if kept is not None and kept.is_file():
        cells: list[str] = json.loads(kept.read_text("utf-8"))
        return cells
    cells = row(prepared, target, lengths)
    if kept is not None:
        kept.write_text(json.dumps(cells), "utf-8")
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prepared", type=Path, required=True, help="a published prepared model")
    parser.add_argument(
        "--rows", type=Path, help="keep rows there, and do not measure again what is there"
    )
    args = parser.parse_args()
    prepared = args.prepared
    model = read_served_model(prepared)
    lengths = [shape for shape in SHAPES if shape[1] <= model.max_length]
    columns = [
        "target", "builds", "seconds", "MB", "Kendall tau", "NDCG@10 loss", "max logit diff",
        *(f"pairs/s {rows}x{length}" for rows, length in lengths),
    ]  # fmt: skip
    rows = [measured(args.rows, prepared, target, lengths) for target in targets()]
    features = sorted({flag for flags in CPU_FEATURES.values() for flag in flags} & cpu_flags())
    print(
        f"{model.name}, {available_cpus()} CPUs with {', '.join(features) or 'no such feature'}\n"
    )
    for cells in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


sys.exit(main())
