"""build: all stages on one machine, into a store.

The same functions, documents and store layout as in a cluster, so an engine that was built by hand
can be copied into a cluster's store. What an earlier build left there is used again.
"""

import tempfile
from pathlib import Path

from engine_builder.errors import StageError, write_failure
from engine_builder.files import make_directory
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.scratch import work_directory
from engine_builder.stages.compile import compile_engine
from engine_builder.stages.fetch import fetch
from engine_builder.stages.publish import publish
from engine_builder.stages.resolve import AdapterSource, resolve
from engine_builder.store import Store
from engine_builder.triton_config import Accelerator
from reranker_contracts import (
    EngineIdentity,
    ParityReport,
    PrepareIdentity,
    ResolvedModel,
    Scoring,
    StageReason,
    digest_of,
)

#: Thresholds of this command; in a cluster the operator judges by the service's own.
MIN_KENDALL_TAU = 0.995
MAX_NDCG10_DELTA = 0.002


def build(
    uri: str,
    out: Path,
    *,
    source_dir: Path | None,
    revision: str | None,
    max_length: int | None,
    scoring: Scoring | None = None,
    adapter: AdapterSource | None = None,
    accelerator: Accelerator,
    max_batch_size: int,
    progress: Progress,
) -> Outcome:
    """Build `uri` into the store `out`; an engine under the thresholds is ParityRefused."""
    _check_store(out)
    found = resolve(
        uri,
        source_dir=source_dir,
        revision=revision,
        max_length=max_length,
        scoring=scoring,
        adapter=adapter,
        progress=progress,
    )
    progress.say(found.message)
    resolved = found.resolved
    if resolved is None:
        raise ValueError("resolve gave no model")
    store = Store(out)
    with work_directory() as work:
        prepare = PrepareIdentity(
            revision=resolved.revision,
            adapter=resolved.adapter,
            max_length=max_length,
            scoring=scoring,
            toolchain=resolved.toolchain,
        )
        if not store.is_intact("prepared", digest_of(prepare)):
            _prepare(
                uri,
                prepare,
                source_dir=source_dir,
                adapter=adapter,
                out=out,
                work=work,
                progress=progress,
            )
        return _engine(
            resolved,
            prepare,
            accelerator=accelerator,
            max_batch_size=max_batch_size,
            out=out,
            work=work,
            progress=progress,
        )


def _check_store(out: Path) -> None:
    """Before minutes of work, not after them."""
    make_directory(out)
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise write_failure(error, out) or error from error


def _prepare(
    uri: str,
    identity: PrepareIdentity,
    *,
    source_dir: Path | None,
    adapter: AdapterSource | None,
    out: Path,
    work: Path,
    progress: Progress,
) -> None:
    source, prepared = work / "source", work / "prepared"
    fetch(uri, revision=identity.revision, source_dir=source_dir, out=source, progress=progress)
    folder = None
    if adapter is not None and identity.adapter is not None:
        folder = work / "adapter"
        fetch(
            adapter.uri,
            revision=identity.adapter,
            source_dir=adapter.source_dir,
            out=folder,
            progress=progress,
        )
    with progress.step("loading PyTorch and transformers"):
        from engine_builder.stages.export import export  # noqa: PLC0415
    done = export(
        source,
        prepared,
        max_length=identity.max_length,
        scoring=identity.scoring,
        adapter=folder,
        progress=progress,
    )
    progress.say(done.message)
    progress.say(publish(prepared, out, identity, progress=progress).message)


def _engine(
    resolved: ResolvedModel,
    prepare: PrepareIdentity,
    *,
    accelerator: Accelerator,
    max_batch_size: int,
    out: Path,
    work: Path,
    progress: Progress,
) -> Outcome:
    from engine_builder.stages.validate import validate  # noqa: PLC0415

    identity = EngineIdentity(
        prepared=digest_of(prepare),
        runtime="onnxruntime",
        precision="fp32",
        accelerator=accelerator,
        max_batch_size=max_batch_size,
        onnxruntime=resolved.toolchain.onnxruntime,
    )
    prepared = Store(out).path_of("prepared", identity.prepared)
    engine = work / "engine"
    compile_engine(
        prepared,
        engine,
        accelerator=accelerator,
        max_batch_size=max_batch_size,
        progress=progress,
    )
    validated = validate(prepared, engine, progress=progress)
    progress.say(validated.message)
    _judge(validated.parity)
    done = publish(engine, out, identity, progress=progress)
    path = Store(out).path_of("engine", digest_of(identity))
    return Outcome(
        f"engine: {path}",
        resolved=resolved,
        parity=done.parity,
        shapes=done.shapes,
        size_bytes=done.size_bytes,
    )


def _judge(parity: ParityReport | None) -> None:
    if parity is None:
        raise ValueError("validate gave no report")
    if parity.kendall_tau < MIN_KENDALL_TAU or parity.ndcg10_delta > MAX_NDCG10_DELTA:
        raise StageError(
            StageReason.PARITY_REFUSED,
            f"Kendall tau {parity.kendall_tau:.4f} (at least {MIN_KENDALL_TAU}), NDCG@10 loss "
            f"{parity.ndcg10_delta:.4f} (at most {MAX_NDCG10_DELTA}): the engine ranks differently "
            "from FP32 PyTorch; use another model",
        )
