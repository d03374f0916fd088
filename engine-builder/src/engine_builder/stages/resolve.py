"""resolve: what a source is right now, from its metadata alone.

A moving reference becomes a fixed revision; a model that cannot be served is refused before
anything big is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path

from engine_builder.adapter import read_adapter
from engine_builder.facts import effective_length, read_facts
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.scratch import work_directory
from engine_builder.sources import open_source
from engine_builder.toolchain import installed_runtimes, installed_toolchain
from engine_builder.user_probes import UserProbes
from reranker_contracts import ResolvedModel, Scoring


@dataclass(frozen=True)
class AdapterSource:
    """Where a LoRA adapter's files are: a source of the same kinds as a model's."""

    uri: str
    source_dir: Path | None = None
    revision: str | None = None


def resolve(
    uri: str,
    *,
    source_dir: Path | None,
    revision: str | None,
    max_length: int | None,
    scoring: Scoring | None = None,
    adapter: AdapterSource | None = None,
    own_probes: UserProbes | None = None,
    progress: Progress,
) -> Outcome:
    """Fix the revision of `uri` and judge the model by its configuration files.

    `scoring` overrules these files; the revision of `adapter` is fixed too.
    """
    source = open_source(uri, source_dir)
    with work_directory() as scratch:
        with progress.step(f"reading {uri}"):
            snapshot = source.resolve(revision, scratch)
        facts = read_facts(snapshot.metadata, scoring)
    effective_length(facts, max_length)
    merged = None if adapter is None else _resolve_adapter(adapter, progress)
    resolved = ResolvedModel(
        revision=snapshot.revision,
        name=source.name,
        architecture=facts.architecture,
        family=facts.family.name,
        max_length=facts.max_length,
        adapter=merged,
        probes=own_probes.digest if own_probes else None,
        toolchain=installed_toolchain(),
        runtimes=installed_runtimes(),
    )
    return Outcome(
        f"{source.name} is {facts.architecture} at {snapshot.revision}, "
        f"up to {facts.max_length} tokens" + (f", with the adapter at {merged}" if merged else ""),
        resolved=resolved,
    )


def _resolve_adapter(adapter: AdapterSource, progress: Progress) -> str:
    """The fixed revision of an adapter that can be merged."""
    source = open_source(adapter.uri, adapter.source_dir, "adapter")
    with work_directory() as scratch:
        with progress.step(f"reading {adapter.uri}"):
            snapshot = source.resolve(adapter.revision, scratch)
        read_adapter(snapshot.metadata)
    return snapshot.revision
