"""compile: from a prepared model to the files that one target's Triton serves.

For ONNX Runtime that is the portable graph itself: the runtime optimises it for its hardware when
it loads, so the bytes are the same wherever they were compiled.
"""

import shutil
from pathlib import Path

from engine_builder.artefacts import (
    ENGINE_VERSION,
    MODEL,
    ONNX,
    ONNX_DATA,
    TOKENIZER,
    TRITON_CONFIG,
    read_served_model,
    require_published,
)
from engine_builder.files import make_output
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.triton_config import Accelerator, render_config
from reranker_contracts import ServedModel, Shapes

_TOKEN_BUDGET = 8192


def engine_shapes(model: ServedModel, max_batch_size: int) -> Shapes:
    """Shapes of the manifest: a budget that one row of the longest input always fits."""
    return Shapes(
        max_batch_size=max_batch_size,
        max_length=model.max_length,
        token_budget=max(_TOKEN_BUDGET, model.max_length),
    )


def compile_engine(
    prepared: Path,
    out: Path,
    *,
    accelerator: Accelerator,
    max_batch_size: int,
    progress: Progress,
) -> Outcome:
    """Write the engine's files, all but `parity.json`, to `out`."""
    with progress.step("checking the prepared model"):
        require_published(prepared)
    make_output(out)
    model = read_served_model(prepared)
    version = out / ENGINE_VERSION
    version.mkdir(parents=True)
    for name in (MODEL, TOKENIZER):
        shutil.copyfile(prepared / name, out / name)
    for name in (ONNX, ONNX_DATA):
        if (prepared / name).exists():
            with progress.step(f"copying {name}"):
                shutil.copyfile(prepared / name, version / name)
    (out / TRITON_CONFIG).write_text(
        render_config(model, accelerator, max_batch_size), encoding="utf-8"
    )
    shapes = engine_shapes(model, max_batch_size)
    return Outcome(
        f"compiled {model.name} for onnxruntime on {accelerator}, up to {max_batch_size} rows",
        shapes=shapes,
    )
