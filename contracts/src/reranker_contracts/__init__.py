"""The documents that cross a process boundary.

The engine-builder writes them, the gateway and the operator read them. Pydantic is the only
dependency, so every image can carry this package.
"""

from reranker_contracts.identity import (
    EngineIdentity,
    PrepareIdentity,
    Toolchain,
    digest_of,
)
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
    Profile,
    Shapes,
    write_manifest,
)
from reranker_contracts.model import (
    Activation,
    PairTemplate,
    Pooling,
    Scoring,
    ServedModel,
    TemplatePiece,
)
from reranker_contracts.record import BuildRecord, StageTiming
from reranker_contracts.stages import ResolvedModel, Stage, StageReason, StageResult
from reranker_contracts.targets import EngineTarget, Runtimes, candidates

__all__ = [
    "Activation",
    "ArtefactManifest",
    "BuildRecord",
    "EngineIdentity",
    "EngineTarget",
    "FileEntry",
    "IntegrityError",
    "OtherVersionError",
    "PairTemplate",
    "ParityReport",
    "Pooling",
    "PrepareIdentity",
    "Profile",
    "ResolvedModel",
    "Runtimes",
    "Scoring",
    "ServedModel",
    "Shapes",
    "Stage",
    "StageReason",
    "StageResult",
    "StageTiming",
    "TemplatePiece",
    "Toolchain",
    "candidates",
    "digest_of",
    "tree_digest",
    "tree_digest_of",
    "verify_artefact",
    "write_manifest",
]
