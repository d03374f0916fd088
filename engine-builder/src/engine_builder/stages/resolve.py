"""resolve: what a source is right now, from its metadata alone.

A moving reference becomes a fixed revision; a model that cannot be served is refused before
anything big is downloaded.
"""

from pathlib import Path

from engine_builder.facts import effective_length, read_facts
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress
from engine_builder.scratch import work_directory
from engine_builder.sources import open_source
from engine_builder.toolchain import installed_runtimes, installed_toolchain
from reranker_contracts import ResolvedModel


def resolve(
    uri: str,
    *,
    source_dir: Path | None,
    revision: str | None,
    max_length: int | None,
    progress: Progress,
) -> Outcome:
    """Fix the revision of `uri` and judge the model by its configuration files."""
    source = open_source(uri, source_dir)
    with work_directory() as scratch:
        with progress.step(f"reading {uri}"):
            snapshot = source.resolve(revision, scratch)
        facts = read_facts(snapshot.metadata)
    effective_length(facts, max_length)
    resolved = ResolvedModel(
        revision=snapshot.revision,
        name=source.name,
        architecture=facts.architecture,
        family=facts.family.name,
        max_length=facts.max_length,
        toolchain=installed_toolchain(),
        runtimes=installed_runtimes(),
    )
    return Outcome(
        f"{source.name} is {facts.architecture} at {snapshot.revision}, "
        f"up to {facts.max_length} tokens",
        resolved=resolved,
    )
