"""Arguments that say what an engine is built for."""

import argparse
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from engine_builder.arguments import fraction, number
from engine_builder.errors import UsageError
from reranker_contracts import EngineTarget
from reranker_contracts.targets import PRECISIONS, Accelerator, Precision, Runtime

_DEFAULT_MAX_BATCH_SIZE = 64
_MAX_BATCH_SIZE = 4096


def add_target(parser: argparse.ArgumentParser, *, auto: bool = False) -> None:
    """What to build for, with `auto` also left to us; see `target`."""
    any_of = ("auto",) if auto else ()
    parser.add_argument(
        "--accelerator",
        choices=get_args(Accelerator),
        default="cpu",
        help="what will serve the engine (default: %(default)s)",
    )
    parser.add_argument(
        "--runtime",
        choices=[*any_of, *get_args(Runtime)],
        default="auto" if auto else "onnxruntime",
        help="what will run it there (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=[*any_of, *get_args(Precision)],
        default="auto" if auto else "fp32",
        help="of its matrix products (default: %(default)s)",
    )
    parser.add_argument(
        "--compute-capability",
        metavar="N.N",
        help="of the GPU, for tensorrt and tensorrt-rtx, as 8.9",
    )
    parser.add_argument(
        "--max-batch-size",
        type=number(1, _MAX_BATCH_SIZE),
        default=_DEFAULT_MAX_BATCH_SIZE,
        metavar="N",
        help="rows in one call of the engine (default: %(default)s)",
    )
    parser.add_argument(
        "--gpu-memory",
        type=number(1, 1 << 24),
        metavar="MIB",
        help="what the GPU has (nvidia.com/gpu.memory); refuse an engine that would not fit",
    )
    parser.add_argument(
        "--timing-cache",
        type=Path,
        metavar="DIR",
        help="where tensorrt keeps its timings for later builds",
    )


def add_thresholds(parser: argparse.ArgumentParser) -> None:
    """How closely the engine must rank like the original."""
    parser.add_argument(
        "--min-kendall-tau",
        type=fraction(-1, 1),
        default=0.995,
        metavar="TAU",
        help="refuse an engine that agrees less with FP32 PyTorch (default: %(default)s)",
    )
    parser.add_argument(
        "--max-ndcg-delta",
        type=fraction(0, 1),
        default=0.002,
        metavar="D",
        help="refuse an engine that loses more NDCG@10 (default: %(default)s)",
    )


def target(args: argparse.Namespace) -> EngineTarget:
    """What the arguments say. Raises UsageError for a combination that nothing builds."""
    try:
        return EngineTarget(
            runtime=args.runtime,
            precision=args.precision,
            accelerator=args.accelerator,
            compute_capability=args.compute_capability,
            max_batch_size=args.max_batch_size,
        )
    except ValidationError as error:
        raise UsageError(_target_problem(args, error)) from error


def _target_problem(args: argparse.Namespace, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["loc"] == ("compute_capability",):
        return f"--compute-capability {args.compute_capability}: give it as 8.9"
    pairs = ", ".join(
        f"{runtime} on {accelerator}: {' '.join(numbers)}"
        for (runtime, accelerator), numbers in PRECISIONS.items()
    )
    problem = first["msg"].removeprefix("Value error, ")
    return f"--runtime, --precision, --accelerator: {problem}; there are {pairs}"


def memory(args: argparse.Namespace) -> int | None:
    """The GPU's memory in bytes, if it was given."""
    return None if args.gpu_memory is None else args.gpu_memory << 20
