"""What each stage leaves for the manifest: source, revision and how long it took.

It lies in the marker of the stage's output directory. The next stage takes it over from its input,
so that at the end publish finds all of it in one place.
"""

import datetime
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from engine_builder.files import OUTPUT_MARKER
from engine_builder.progress import Progress
from engine_builder.sources.base import Provenance
from reranker_contracts import ArtefactManifest, BuildRecord, PrepareIdentity, StageTiming
from reranker_contracts.manifest import MANIFEST

#: The builder image as the Job names it.
IMAGE_VARIABLE = "BUILDER_IMAGE"
_MAX_BYTES = 1 << 20


@contextmanager
def recorded(
    progress: Progress,
    stage: str,
    out: Path,
    *,
    after: Path | None = None,
    adapter: Path | None = None,
) -> Iterator[None]:
    """Write the record of a stage that goes well into its output directory.

    `after` is the directory it reads; without one the record begins here. `adapter` is that of a
    LoRA adapter which it merges in.
    """
    started, began = datetime.datetime.now(datetime.UTC), progress.seconds
    before = read_record(after) if after else BuildRecord()
    if adapter:
        before = _with_adapter(before, read_record(adapter))
    yield
    seconds = round(progress.seconds - began, 3)
    timing = StageTiming(stage=stage, started_at=started, seconds=seconds)
    earlier = tuple(entry for entry in before.stages if entry.stage != stage)
    changes: dict[str, object] = {"stages": (*earlier, timing)}
    note = out / "source.json"
    if note.is_file():
        fetched = Provenance.model_validate_json(note.read_bytes())
        # A path of this machine says nothing elsewhere.
        source = fetched.source if "://" in fetched.source else f"dir:{fetched.name}"
        changes |= {"source": source, "revision": fetched.revision}
    record = before.model_copy(update=changes)
    _write_last(out, record.to_json().encode())


def _with_adapter(record: BuildRecord, adapter: BuildRecord) -> BuildRecord:
    changes = {
        "adapter": adapter.source,
        "adapter_revision": adapter.revision,
        "stages": (*record.stages, *adapter.stages),
    }
    return record.model_copy(update=changes)


def read_record(directory: Path) -> BuildRecord:
    """The record of a stage's directory or of a published artefact; empty where there is none.

    It is for people, so what cannot be read is no reason to fail.
    """
    try:
        if (directory / MANIFEST).is_file():
            text = (directory / MANIFEST).read_bytes()
            return _of_published(ArtefactManifest.model_validate_json(text))
        with (directory / OUTPUT_MARKER).open("rb") as stream:
            return BuildRecord.model_validate_json(stream.read(_MAX_BYTES) or b"{}")
    except (OSError, ValidationError):
        return BuildRecord()


def read_manifest(directory: Path) -> ArtefactManifest | None:
    """The manifest of a directory whose files may be damaged; None when it can't be read."""
    try:
        return ArtefactManifest.model_validate_json((directory / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        return None


def finished(directory: Path) -> BuildRecord:
    """The record of a directory that is about to be published, with what made it."""
    changes = {
        "python": platform.python_version(),
        "builder_image": os.environ.get(IMAGE_VARIABLE) or None,
    }
    return read_record(directory).model_copy(update=changes)


def _write_last(out: Path, data: bytes) -> None:
    """What the record speaks of is on disk before it: after a power loss it is still true."""
    for folder, _folders, names in os.walk(out):
        for name in names:
            with suppress(OSError), Path(folder, name).open("rb") as stream:
                os.fsync(stream.fileno())
    partial = out / f"{OUTPUT_MARKER}.partial"
    partial.write_bytes(data)
    partial.replace(out / OUTPUT_MARKER)


def _of_published(manifest: ArtefactManifest) -> BuildRecord:
    record = manifest.build or BuildRecord()
    if isinstance(manifest.identity, PrepareIdentity):
        record = record.model_copy(update={"prepared": manifest.identity})
    return record
