"""fetch: exactly the needed files of a source, at a fixed revision."""

from pathlib import Path

from engine_builder.artefacts import write_document
from engine_builder.files import make_output
from engine_builder.outcome import Outcome
from engine_builder.progress import Progress, human_size
from engine_builder.sources import Provenance, open_source
from engine_builder.sources.base import PROVENANCE
from engine_builder.sources.selection import Content


def fetch(
    uri: str,
    *,
    revision: str,
    source_dir: Path | None,
    out: Path,
    content: Content = "model",
    progress: Progress,
) -> Outcome:
    """Write the files of a model or an adapter and `source.json` to `out`."""
    source = open_source(uri, source_dir, content)
    make_output(out)
    source.fetch(revision, out, progress)
    write_document(out / PROVENANCE, Provenance(source=uri, revision=revision, name=source.name))
    size = sum(entry.stat().st_size for entry in out.iterdir())
    return Outcome(f"fetched {human_size(size)} of {uri} at {revision}", size_bytes=size)
