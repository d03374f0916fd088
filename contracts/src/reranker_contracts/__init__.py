"""The documents that cross a process boundary.

The engine-builder writes them, the gateway and the operator read them. Pydantic is the only
dependency, so every image can carry this package.
"""

from reranker_contracts.identity import EngineIdentity, PrepareIdentity, Toolchain, digest_of
from reranker_contracts.integrity import (
    IntegrityError,
    OtherVersionError,
    tree_digest,
    tree_digest_of,
    verify_artefact,
)
from reranker_contracts.manifest import (
    ArtefactManifest,
    FileEntry,
    ParityReport,
    Shapes,
    write_manifest,
)
from reranker_contracts.model import Activation, PairTemplate, ServedModel, TemplatePiece
from reranker_contracts.record import BuildRecord, StageTiming
from reranker_contracts.stages import ResolvedModel, Stage, StageReason, StageResult

__all__ = [
    "Activation",
    "ArtefactManifest",
    "BuildRecord",
    "EngineIdentity",
    "FileEntry",
    "IntegrityError",
    "OtherVersionError",
    "PairTemplate",
    "ParityReport",
    "PrepareIdentity",
    "ResolvedModel",
    "ServedModel",
    "Shapes",
    "Stage",
    "StageReason",
    "StageResult",
    "StageTiming",
    "TemplatePiece",
    "Toolchain",
    "digest_of",
    "tree_digest",
    "tree_digest_of",
    "verify_artefact",
    "write_manifest",
]
