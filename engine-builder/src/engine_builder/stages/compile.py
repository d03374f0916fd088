"""compile: from a prepared model to the files that one target's Triton serves."""

import shutil
from pathlib import Path

from engine_builder.artefacts import (
    COMPILED,
    ENGINE_VERSION,
    MODEL,
    TOKENIZER,
    TRITON_CONFIG,
    CompiledEngine,
    read_served_model,
    require_published,
    write_document,
)
from engine_builder.files import make_output
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.shapes import dynamic_shapes, profiled_shapes
from engine_builder.targets import builder_of
from engine_builder.targets.base import Job
from engine_builder.triton_config import render_config
from reranker_contracts import EngineTarget
from reranker_contracts.targets import COMPILED as COMPILED_RUNTIMES


def compile_engine(
    prepared: Path,
    out: Path,
    target: EngineTarget,
    *,
    progress: Progress,
    gpu_memory: int | None = None,
    timing_cache: Path | None = None,
) -> Outcome:
    """Write the engine's files, all but its proof, to `out`.

    `gpu_memory` is what the GPU has, in bytes: an engine that would not fit is EngineTooLarge.
    """
    builder = builder_of(target.runtime)
    with progress.step("checking the prepared model"):
        require_published(prepared)
    make_output(out)
    model = read_served_model(prepared)
    version = out / ENGINE_VERSION
    version.mkdir(parents=True)
    for name in (MODEL, TOKENIZER):
        shutil.copyfile(prepared / name, out / name)
    make_shapes = profiled_shapes if target.runtime in COMPILED_RUNTIMES else dynamic_shapes
    shapes = make_shapes(model.max_length, target.max_batch_size)
    built = builder.compile(
        Job(
            prepared,
            version,
            model,
            target,
            shapes,
            progress,
            gpu_memory=gpu_memory,
            timing_cache=timing_cache,
        )
    )
    config = render_config(model, target, shapes, built)
    (out / TRITON_CONFIG).write_text(config, encoding="utf-8")
    write_document(out / COMPILED, CompiledEngine(target=target, shapes=shapes))
    note = f"; {built.note}" if built.note else ""
    return Outcome(
        f"compiled {model.name} for {target}, up to {target.max_batch_size} rows{note}",
        shapes=shapes,
    )
