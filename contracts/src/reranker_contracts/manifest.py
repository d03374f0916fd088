"""`manifest.json`: the last file of a published directory; without it nothing was published."""

import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reranker_contracts.base import LARGEST, Document
from reranker_contracts.identity import EngineIdentity, PrepareIdentity
from reranker_contracts.record import BuildRecord

MANIFEST = "manifest.json"
#: An in-toto statement about the manifest, and signed envelopes of it; see docs/provenance.md.
PROVENANCE = "provenance.json"
ATTESTATIONS = "provenance.intoto.jsonl"
#: Lie beside the manifest and are about it, so it can't list them.
ATTACHED = (PROVENANCE, ATTESTATIONS)


class FileEntry(Document):
    """One file of an artefact; `path` is relative, with forward slashes."""

    path: str
    size: int = Field(ge=0, description="bytes")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Profile(Document):
    """Inputs that one optimisation profile of a compiled engine takes."""

    max_batch_size: int = Field(ge=1, description="rows")
    max_length: int = Field(ge=1, description="tokens per row")


class Shapes(Document):
    """What one call of the engine may look like."""

    max_batch_size: int = Field(ge=1, description="rows")
    max_length: int = Field(ge=1, description="tokens per row")
    token_budget: int = Field(
        ge=1, description="rows x padded length that one batch should keep to"
    )
    profiles: tuple[Profile, ...] = Field(
        default=(), description="of a compiled engine, shortest first; none: any shape is as good"
    )


class ParityReport(Document):
    """How the engine ranks beside the FP32 PyTorch reference on the probe set."""

    pairs: int = Field(ge=1, le=LARGEST, description="pairs that were compared")
    queries: int = Field(ge=1, le=LARGEST, description="queries that they belong to")
    kendall_tau: float = Field(ge=-1, le=1, description="mean over queries")
    ndcg10_delta: float = Field(
        allow_inf_nan=False, description="largest loss of NDCG@10 against the reference order"
    )
    max_abs_diff: float = Field(
        ge=0, allow_inf_nan=False, description="largest absolute difference of a logit"
    )


class ArtefactManifest(Document):
    """Names every file of the directory with size and hash, and what it was made from."""

    schema_version: Literal[1] = 1
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    identity: Annotated[PrepareIdentity | EngineIdentity, Field(discriminator="kind")]
    files: tuple[FileEntry, ...]
    shapes: Shapes | None = None
    parity: ParityReport | None = None
    cpu_features: tuple[str, ...] = Field(
        default=(), description="flags of /proc/cpuinfo of which the CPU needs one; none: any CPU"
    )
    build: BuildRecord | None = None
    created_at: datetime.datetime

    @property
    def size(self) -> int:
        """Bytes of all files together, the manifest not counted."""
        return sum(entry.size for entry in self.files)

    def to_bytes(self) -> bytes:
        """The bytes of `manifest.json`."""
        return (self.to_json() + "\n").encode("utf-8")


def write_manifest(directory: Path, manifest: ArtefactManifest) -> None:
    """Write `manifest.json` into `directory`; the caller syncs it to disk."""
    (directory / MANIFEST).write_bytes(manifest.to_bytes())
