"""An artefact in words."""

import json
from collections.abc import Iterator
from typing import Any

from engine_builder.errors import printable
from engine_builder.progress import human_size
from reranker_contracts import ArtefactManifest, EngineIdentity

_SHOWN_FILES = 100


def render(manifest: ArtefactManifest, notes: dict[str, str]) -> str:
    """A readable text; `notes` are further lines, by their title."""
    rows = [(f"{manifest.identity.kind}", manifest.digest), *_identity(manifest)]
    rows += [*_build(manifest), *_facts(manifest), *notes.items()]
    width = max(len(title) for title, _text in rows)
    lines = [f"{title:<{width}}  {printable(text)}" for title, text in rows]
    for entry in manifest.files[:_SHOWN_FILES]:
        size = human_size(entry.size)
        lines.append(f"  {entry.sha256[:16]}…  {size:>9}  {printable(entry.path)}")
    if len(manifest.files) > _SHOWN_FILES:
        lines.append(f"  and {len(manifest.files) - _SHOWN_FILES} more")
    return "\n".join(lines)


def as_json(manifest: ArtefactManifest, facts: dict[str, Any]) -> str:
    """The same for programs."""
    value = {
        "manifest": manifest.model_dump(mode="json", by_alias=True, exclude_none=True),
        **facts,
    }
    return json.dumps(value, indent=2, sort_keys=True)


def _identity(manifest: ArtefactManifest) -> Iterator[tuple[str, str]]:
    """Whatever the digest is of, so that no field is forgotten here."""
    values = manifest.identity.model_dump(mode="json", by_alias=True, exclude_none=True)
    del values["kind"]
    for name, value in values.items():
        yield name, _plain(value)


def _build(manifest: ArtefactManifest) -> Iterator[tuple[str, str]]:
    record = manifest.build
    if record is None:
        return
    if record.source:
        at = f" at {record.revision}" if record.revision else ""
        yield "source", f"{record.source}{at}"
    if record.adapter:
        at = f" at {record.adapter_revision}" if record.adapter_revision else ""
        yield "adapter", f"{record.adapter}{at}"
    if record.prepared:
        yield "prepared from", _plain(record.prepared.model_dump(mode="json", exclude_none=True))
    if record.builder_image:
        yield "builder", record.builder_image
    if record.stages:
        total = sum(stage.seconds for stage in record.stages)
        each = ", ".join(f"{stage.stage} {stage.seconds:.1f} s" for stage in record.stages)
        yield "stages", f"{total:.1f} s: {each}"


def _facts(manifest: ArtefactManifest) -> Iterator[tuple[str, str]]:
    for name, value in (("shapes", manifest.shapes), ("parity", manifest.parity)):
        if value is not None:
            yield name, _plain(value.model_dump(mode="json", by_alias=True, exclude_none=True))
    if manifest.parity is None and isinstance(manifest.identity, EngineIdentity):
        yield "parity", "not measured at the build; the pods that serve it measure it"
    yield "created", manifest.created_at.isoformat(timespec="seconds")
    yield "files", f"{len(manifest.files)}, {human_size(manifest.size)}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return " ".join(_plain(entry) for entry in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
