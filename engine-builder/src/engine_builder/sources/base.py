"""The interface of every source, and the note that `fetch` leaves for `export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from engine_builder.errors import StageError
from engine_builder.files import read_metadata
from engine_builder.progress import Progress
from reranker_contracts import StageReason
from reranker_contracts.base import Document

PROVENANCE = "source.json"


@dataclass(frozen=True)
class Snapshot:
    """A source at a fixed revision; `metadata` is a directory with its configuration files."""

    revision: str
    metadata: Path


class Source(Protocol):
    """A place that holds a model's files."""

    @property
    def name(self) -> str:
        """Name of the model for people and as its default served name."""
        ...

    def resolve(self, revision: str | None, scratch: Path) -> Snapshot:
        """Fix the revision and make the metadata readable; may use `scratch` for it."""
        ...

    def fetch(self, revision: str, out: Path, progress: Progress) -> None:
        """Write the needed files to `out`, checked against a revision from `resolve`."""
        ...


class Provenance(Document):
    """`source.json` beside fetched files: what they are."""

    source: str
    revision: str
    name: str


def read_provenance(directory: Path) -> Provenance:
    """The note of `fetch`; for a directory that was not fetched, its own name."""
    path = directory / PROVENANCE
    if not path.exists():
        return Provenance(source=str(directory), revision="", name=directory.resolve().name)
    try:
        return Provenance.model_validate_json(read_metadata(path))
    except ValidationError as error:
        raise StageError(
            StageReason.MODEL_INVALID, f"{PROVENANCE} is malformed; fetch the model again"
        ) from error
