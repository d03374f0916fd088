"""Arguments that say what an engine is built for."""

import argparse
import re
from pathlib import Path
from typing import get_args

from engine_builder.arguments import fraction, number
from engine_builder.errors import UsageError
from reranker_contracts import EngineTarget
from reranker_contracts.parity import Thresholds
from reranker_contracts.targets import (
    CAPABILITIES,
    COMPILED,
    PRECISIONS,
    Accelerator,
    Precision,
    Runtime,
    builds_for,
)

_DEFAULT_MAX_BATCH_SIZE = 64
_MAX_BATCH_SIZE = 4096
_CAPABILITY = re.compile(r"[1-9][0-9]?\.[0-9]", re.ASCII)
#: Arguments that say nothing of a CPU.
_OF_GPUS = ("compute_capability", "gpu_memory", "timing_cache")


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
        type=_capability,
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
        default=Thresholds.min_kendall_tau,
        metavar="TAU",
        help="refuse an engine that agrees less with FP32 PyTorch (default: %(default)s)",
    )
    parser.add_argument(
        "--max-ndcg-delta",
        type=fraction(0, 1),
        default=Thresholds.max_ndcg_delta,
        metavar="D",
        help="refuse an engine that loses more NDCG@10 (default: %(default)s)",
    )


def thresholds(args: argparse.Namespace) -> Thresholds:
    """What the arguments of `add_thresholds` say."""
    return Thresholds(args.min_kendall_tau, args.max_ndcg_delta)


def _capability(text: str) -> str:
    if not _CAPABILITY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give it as 8.9")
    return text


def target(args: argparse.Namespace) -> EngineTarget:
    """What the arguments say. Raises UsageError for a combination that nothing builds."""
    _fitting(args)
    return EngineTarget(
        runtime=args.runtime,
        precision=args.precision,
        accelerator=args.accelerator,
        compute_capability=args.compute_capability,
        max_batch_size=args.max_batch_size,
    )


def check_target(args: argparse.Namespace) -> None:
    """Before any work, what no builder image builds. Raises UsageError."""
    fitting, capability = _fitting(args), args.compute_capability
    if fitting <= COMPILED and not any(builds_for(runtime, capability) for runtime in fitting):
        known = ", ".join(
            f"{runtime} builds for {' '.join(CAPABILITIES[runtime])}" for runtime in fitting
        )
        raise UsageError(f"--compute-capability {capability}: {known}")


def _fitting(args: argparse.Namespace) -> set[Runtime]:
    """Runtimes that have what was asked for."""
    asked = f"--accelerator {args.accelerator}, --runtime {args.runtime}"
    asked += f", --precision {args.precision}"
    fitting = {
        runtime
        for (runtime, accelerator), numbers in PRECISIONS.items()
        if accelerator == args.accelerator
        and args.runtime in ("auto", runtime)
        and args.precision in ("auto", *numbers)
    }
    if not fitting:
        pairs = ", ".join(
            f"{runtime} on {accelerator}: {' '.join(numbers)}"
            for (runtime, accelerator), numbers in PRECISIONS.items()
        )
        raise UsageError(f"{asked}: nothing builds this; there are {pairs}")
    for name in _OF_GPUS:
        if args.accelerator == "cpu" and getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is for GPUs; add --accelerator nvidia, or leave it out")
    if args.compute_capability is None and fitting <= COMPILED:
        raise UsageError(f"{asked}: needs --compute-capability, that of the GPU, as 8.9")
    if args.compute_capability is not None and fitting.isdisjoint(COMPILED):
        raise UsageError(f"{asked}: is for any GPU; leave --compute-capability out")
    return fitting


def memory(args: argparse.Namespace) -> int | None:
    """The GPU's memory in bytes, if it was given."""
    return None if args.gpu_memory is None else args.gpu_memory << 20
