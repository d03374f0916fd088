"""build: all stages on one machine, into a store.

The same functions, documents and store layout as in a cluster, so an engine that was built by hand
can be copied into a cluster's store. What an earlier build published is used again, and so is what
one that was killed had fetched or exported.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from engine_builder.errors import StageError, write_failure
from engine_builder.files import make_directory
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.provenance import SigningKey
from engine_builder.record import read_record, recorded
from engine_builder.scratch import work_directory
from engine_builder.sources.selection import Content
from engine_builder.stages.compile import compile_engine
from engine_builder.stages.fetch import fetch
from engine_builder.stages.publish import publish
from engine_builder.stages.resolve import AdapterSource, resolve
from engine_builder.store import Store
from engine_builder.user_probes import UserProbes
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
from reranker_contracts.parity import Thresholds
from reranker_contracts.stages import OF_THE_TARGET
from reranker_contracts.targets import PRECISIONS, Accelerator, Precision, Runtime


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
    thresholds: Thresholds = field(default_factory=Thresholds)

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
            names = [
                runtime
                for (runtime, accelerator), numbers in PRECISIONS.items()
                if accelerator == self.accelerator and self.precision in numbers
            ]
            raise StageError(
                StageReason.TARGET_UNSUPPORTED,
                f"--precision {self.precision}: on {self.accelerator} it is of "
                f"{' and '.join(names)}, and this builder image has none that is chosen unasked; "
                "use one that has it, name a --runtime, or leave out --precision",
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
    own_probes: UserProbes | None = None,
    key: SigningKey | None = None,
    progress: Progress,
) -> Outcome:
    """Build `uri` into the store `out`; an engine under the thresholds is ParityRefused.

    Of several targets the first one that passes is built, and its path printed. With `key` the
    provenance of what is published is signed.
    """
    _check_store(out)
    found = resolve(
        uri,
        source_dir=source_dir,
        revision=revision,
        max_length=max_length,
        scoring=scoring,
        adapter=adapter,
        own_probes=own_probes,
        progress=progress,
    )
    progress.say(found.message)
    resolved = found.resolved
    if resolved is None:
        raise ValueError("resolve gave no model")
    targets = wanted.candidates(resolved.runtimes)
    prepare = PrepareIdentity(
        revision=resolved.revision,
        adapter=resolved.adapter,
        max_length=max_length,
        scoring=scoring,
        probes=resolved.probes,
        toolchain=resolved.toolchain,
    )
    with work_directory(digest_of(prepare)[:32]) as work:
        build = _Build(uri, source_dir, adapter, Store(out), work, key, progress)
        if not build.store.is_intact("prepared", digest_of(prepare)):
            build.prepare(prepare, own_probes)
        for target in targets:
            try:
                return build.engine(resolved, prepare, target, wanted)
            except StageError as error:
                if target is targets[-1] or error.reason not in OF_THE_TARGET:
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


@dataclass(frozen=True)
class _Build:
    """What all stages of one build share."""

    uri: str
    source_dir: Path | None
    adapter: AdapterSource | None
    store: Store
    work: Path
    key: SigningKey | None
    progress: Progress

    def prepare(self, identity: PrepareIdentity, own_probes: UserProbes | None) -> None:
        """fetch, export, publish."""
        source, prepared = self.work / "source", self.work / "prepared"
        self._fetch(self.uri, identity.revision, self.source_dir, source)
        adapter = None
        if self.adapter is not None and identity.adapter is not None:
            adapter = self.work / "adapter"
            self._fetch(
                self.adapter.uri, identity.adapter, self.adapter.source_dir, adapter, "adapter"
            )
        with self._stage("export", prepared, after=source, adapter=adapter) as todo:
            if todo:
                with self.progress.step("loading PyTorch and transformers"):
                    from engine_builder.stages.export import export  # noqa: PLC0415
                done = export(
                    source,
                    prepared,
                    max_length=identity.max_length,
                    scoring=identity.scoring,
                    adapter=adapter,
                    own_probes=own_probes,
                    progress=self.progress,
                )
                self.progress.say(done.message)
        self._publish(prepared, identity)
        for finished in (source, prepared, adapter):
            if finished is not None:
                shutil.rmtree(finished)

    def _fetch(
        self,
        uri: str,
        revision: str,
        source_dir: Path | None,
        out: Path,
        content: Content = "model",
    ) -> None:
        with self._stage("fetch-adapter" if content == "adapter" else "fetch", out) as todo:
            if todo:
                fetch(
                    uri,
                    revision=revision,
                    source_dir=source_dir,
                    out=out,
                    content=content,
                    progress=self.progress,
                )

    def engine(
        self,
        resolved: ResolvedModel,
        prepare: PrepareIdentity,
        target: EngineTarget,
        wanted: Wanted,
    ) -> Outcome:
        """compile, validate, publish."""
        from engine_builder.stages.validate import validate  # noqa: PLC0415

        identity = EngineIdentity(
            **target.model_dump(),
            prepared=digest_of(prepare),
            version=resolved.runtimes.version_of(target.runtime) or "",
            recipe=resolved.runtimes.recipe,
        )
        prepared = self.store.path_of("prepared", identity.prepared)
        engine = self.work / f"engine-{digest_of(identity)[:32]}"
        with self._stage("compile", engine, after=prepared) as todo:
            if todo:
                compiled = compile_engine(
                    prepared,
                    engine,
                    target,
                    progress=self.progress,
                    gpu_memory=wanted.gpu_memory,
                    timing_cache=wanted.timing_cache,
                )
                self.progress.say(compiled.message)
        with recorded(self.progress, "validate", engine, after=engine):
            validated = validate(prepared, engine, progress=self.progress)
        self.progress.say(validated.message)
        if validated.reason is StageReason.SUCCEEDED:
            _judge(validated.parity, wanted.thresholds)
        done = self._publish(engine, identity)
        path = self.store.path_of("engine", digest_of(identity))
        print(path)
        later = "" if done.parity else ", which its pods measure before they serve it"
        return Outcome(
            f"built {path} ({target}){later}",
            resolved=resolved,
            parity=done.parity,
            shapes=done.shapes,
            size_bytes=done.size_bytes,
            reason=validated.reason,
        )

    @contextmanager
    def _stage(
        self, name: str, out: Path, *, after: Path | None = None, adapter: Path | None = None
    ) -> Iterator[bool]:
        """False where a build that was killed had finished this stage: its output is there."""
        done = read_record(out).stages
        if any(stage.stage == name for stage in done):
            self.progress.say(f"{name}: done by an earlier build that was interrupted")
            yield False
            return
        with recorded(self.progress, name, out, after=after, adapter=adapter):
            yield True

    def _publish(self, source: Path, identity: PrepareIdentity | EngineIdentity) -> Outcome:
        done = publish(source, self.store.root, identity, key=self.key, progress=self.progress)
        self.progress.say(done.message)
        return done


def _judge(parity: ParityReport | None, thresholds: Thresholds) -> None:
    if parity is None:
        raise ValueError("validate gave no report")
    if not thresholds.are_met(parity):
        raise StageError(
            StageReason.PARITY_REFUSED,
            f"Kendall tau {parity.kendall_tau:.4f} (at least {thresholds.min_kendall_tau}), "
            f"NDCG@10 loss {parity.ndcg10_delta:.4f} (at most {thresholds.max_ndcg_delta}): the "
            "engine ranks differently from FP32 PyTorch; use another --precision or model, or "
            "loosen --min-kendall-tau and --max-ndcg-delta",
        )
