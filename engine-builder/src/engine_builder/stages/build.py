"""build: all stages on one machine, into a store.

The same functions, documents and store layout as in a cluster, so an engine that was built by hand
can be copied into a cluster's store. What an earlier build left there is used again.
"""

import tempfile
from dataclasses import dataclass
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
from reranker_contracts import (
    EngineIdentity,
    EngineTarget,
    ParityReport,
    PrepareIdentity,
    ResolvedModel,
    Runtimes,
    Scoring,
    StageReason,
    candidates,
    digest_of,
)
from reranker_contracts.targets import Accelerator, Precision, Runtime

#: Thresholds of this command; in a cluster the operator judges by the service's own.
MIN_KENDALL_TAU = 0.995
MAX_NDCG10_DELTA = 0.002


#: Failures of a target that leave the others worth a try.
_NEXT = frozenset(
    {
        StageReason.PARITY_REFUSED,
        StageReason.TARGET_ABSENT,
        StageReason.TARGET_UNSUPPORTED,
        StageReason.ENGINE_TOO_LARGE,
    }
)


@dataclass(frozen=True)
class Wanted:
    """The target as far as it was asked for; None is for us to choose. `gpu_memory` in bytes."""

    runtime: Runtime | None
    precision: Precision | None
    accelerator: Accelerator
    compute_capability: str | None
    max_batch_size: int
    gpu_memory: int | None = None
    timing_cache: Path | None = None

    def candidates(self, runtimes: Runtimes) -> tuple[EngineTarget, ...]:
        """In the order in which they are tried; raises StageError when there is none."""
        found = candidates(
            runtimes,
            self.accelerator,
            runtime=self.runtime,
            precision=self.precision,
            compute_capability=self.compute_capability,
            max_batch_size=self.max_batch_size,
        )
        if not found:
            raise StageError(
                StageReason.TARGET_UNSUPPORTED,
                f"--runtime {self.runtime or 'auto'}, --precision {self.precision or 'auto'}: "
                f"nothing builds this for {self.accelerator}; tensorrt and tensorrt-rtx need "
                "--compute-capability",
            )
        return found


def build(
    uri: str,
    out: Path,
    *,
    source_dir: Path | None,
    revision: str | None,
    max_length: int | None,
    wanted: Wanted,
    scoring: Scoring | None = None,
    adapter: AdapterSource | None = None,
    progress: Progress,
) -> Outcome:
    """Build `uri` into the store `out`; an engine under the thresholds is ParityRefused.

    Of several targets the first one that passes is built.
    """
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
    targets = wanted.candidates(resolved.runtimes)
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
        for target in targets:
            try:
                return _engine(
                    resolved, prepare, target, wanted, out=out, work=work, progress=progress
                )
            except StageError as error:
                if target is targets[-1] or error.reason not in _NEXT:
                    raise
                progress.say(f"not {target}: {error.message}")
        raise ValueError("no target")


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
    target: EngineTarget,
    wanted: Wanted,
    *,
    out: Path,
    work: Path,
    progress: Progress,
) -> Outcome:
    from engine_builder.stages.validate import validate  # noqa: PLC0415

    identity = EngineIdentity(
        **target.model_dump(),
        prepared=digest_of(prepare),
        version=resolved.runtimes.version_of(target.runtime) or "",
        recipe=resolved.runtimes.recipe,
    )
    prepared = Store(out).path_of("prepared", identity.prepared)
    engine = work / "engine"
    compiled = compile_engine(
        prepared,
        engine,
        target,
        progress=progress,
        gpu_memory=wanted.gpu_memory,
        timing_cache=wanted.timing_cache,
    )
    progress.say(compiled.message)
    validated = validate(prepared, engine, progress=progress)
    progress.say(validated.message)
    if validated.reason is StageReason.SUCCEEDED:
        _judge(validated.parity)
    done = publish(engine, out, identity, progress=progress)
    path = Store(out).path_of("engine", digest_of(identity))
    return Outcome(
        f"engine: {path} ({target})",
        resolved=resolved,
        parity=done.parity,
        shapes=done.shapes,
        size_bytes=done.size_bytes,
        reason=validated.reason,
    )


def _judge(parity: ParityReport | None) -> None:
    if parity is None:
        raise ValueError("validate gave no report")
    if parity.kendall_tau < MIN_KENDALL_TAU or parity.ndcg10_delta > MAX_NDCG10_DELTA:
        raise StageError(
            StageReason.PARITY_REFUSED,
            f"Kendall tau {parity.kendall_tau:.4f} (at least {MIN_KENDALL_TAU}), NDCG@10 loss "
            f"{parity.ndcg10_delta:.4f} (at most {MAX_NDCG10_DELTA}): the engine ranks differently "
            "from FP32 PyTorch; use a higher --precision, or another model",
        )
