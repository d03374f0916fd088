"""build: all stages on one machine, into a store.

The same functions, documents and store layout as in a cluster, so an engine that was built by hand
can be copied into a cluster's store. What an earlier build published is used again, and so is what
one that was killed had fetched or exported.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine_builder.errors import StageError, write_failure
from engine_builder.files import make_directory
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.provenance import SigningKey
from engine_builder.record import read_record, recorded
from engine_builder.scratch import work_directory
from engine_builder.stages.compile import compile_engine
from engine_builder.stages.fetch import fetch
from engine_builder.stages.publish import publish
from engine_builder.stages.resolve import resolve
from engine_builder.store import Store
from engine_builder.triton_config import Accelerator
from reranker_contracts import (
    EngineIdentity,
    ParityReport,
    PrepareIdentity,
    ResolvedModel,
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
    accelerator: Accelerator,
    max_batch_size: int,
    key: SigningKey | None = None,
    progress: Progress,
) -> Outcome:
    """Build `uri` into the store `out`; an engine under the thresholds is ParityRefused.

    With `key` the provenance of what is published is signed.
    """
    _check_store(out)
    found = resolve(
        uri, source_dir=source_dir, revision=revision, max_length=max_length, progress=progress
    )
    progress.say(found.message)
    resolved = found.resolved
    if resolved is None:
        raise ValueError("resolve gave no model")
    prepare = PrepareIdentity(
        revision=resolved.revision, max_length=max_length, toolchain=resolved.toolchain
    )
    with work_directory(digest_of(prepare)[:32]) as work:
        build = _Build(uri, source_dir, Store(out), work, key, progress)
        if not build.store.is_intact("prepared", digest_of(prepare)):
            build.prepare(prepare)
        return build.engine(
            resolved, prepare, accelerator=accelerator, max_batch_size=max_batch_size
        )


def _check_store(out: Path) -> None:
    """Before minutes of work, not after them."""
    make_directory(out)
    try:
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise write_failure(error, out) or error from error


@dataclass(frozen=True)
class _Build:
    """What all stages of one build share."""

    uri: str
    source_dir: Path | None
    store: Store
    work: Path
    key: SigningKey | None
    progress: Progress

    def prepare(self, identity: PrepareIdentity) -> None:
        """fetch, export, publish."""
        source, prepared = self.work / "source", self.work / "prepared"
        with self._stage("fetch", source) as todo:
            if todo:
                fetch(
                    self.uri,
                    revision=identity.revision,
                    source_dir=self.source_dir,
                    out=source,
                    progress=self.progress,
                )
        with self._stage("export", prepared, after=source) as todo:
            if todo:
                with self.progress.step("loading PyTorch and transformers"):
                    from engine_builder.stages.export import export  # noqa: PLC0415
                done = export(
                    source, prepared, max_length=identity.max_length, progress=self.progress
                )
                self.progress.say(done.message)
        self._publish(prepared, identity)
        for finished in (source, prepared):
            shutil.rmtree(finished)

    def engine(
        self,
        resolved: ResolvedModel,
        prepare: PrepareIdentity,
        *,
        accelerator: Accelerator,
        max_batch_size: int,
    ) -> Outcome:
        """compile, validate, publish."""
        from engine_builder.stages.validate import validate  # noqa: PLC0415

        identity = EngineIdentity(
            prepared=digest_of(prepare),
            runtime="onnxruntime",
            precision="fp32",
            accelerator=accelerator,
            max_batch_size=max_batch_size,
            onnxruntime=resolved.toolchain.onnxruntime,
        )
        prepared = self.store.path_of("prepared", identity.prepared)
        engine = self.work / f"engine-{digest_of(identity)[:32]}"
        with self._stage("compile", engine, after=prepared) as todo:
            if todo:
                compile_engine(
                    prepared,
                    engine,
                    accelerator=accelerator,
                    max_batch_size=max_batch_size,
                    progress=self.progress,
                )
        with recorded(self.progress, "validate", engine, after=engine):
            validated = validate(prepared, engine, progress=self.progress)
        self.progress.say(validated.message)
        _judge(validated.parity)
        done = self._publish(engine, identity)
        path = self.store.path_of("engine", digest_of(identity))
        return replace(done, message=f"engine: {path}", resolved=resolved)

    @contextmanager
    def _stage(self, name: str, out: Path, *, after: Path | None = None) -> Iterator[bool]:
        """False where a build that was killed had finished this stage: its output is there."""
        done = read_record(out).stages
        if any(stage.stage == name for stage in done):
            self.progress.say(f"{name}: done by an earlier build that was interrupted")
            yield False
            return
        with recorded(self.progress, name, out, after=after):
            yield True

    def _publish(self, source: Path, identity: PrepareIdentity | EngineIdentity) -> Outcome:
        done = publish(source, self.store.root, identity, key=self.key, progress=self.progress)
        self.progress.say(done.message)
        return done


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
