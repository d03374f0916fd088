"""Stage results: what a stage's container leaves in its termination message."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from reranker_contracts.base import LARGEST, Document, canonical_json
from reranker_contracts.identity import Toolchain
from reranker_contracts.manifest import ParityReport, Shapes
from reranker_contracts.targets import Runtimes

#: kubelet cuts termination messages at this many bytes.
MESSAGE_LIMIT = 4096
#: Seconds, some thirty years: whoever adds a few of them up must not come to infinity.
_LONGEST = 1e9


class Stage(StrEnum):
    """The steps from a model's source to a served engine, in order."""

    RESOLVE = "resolve"
    PULL = "pull"
    FETCH = "fetch"
    FETCH_ADAPTER = "fetch-adapter"
    EXPORT = "export"
    COMPILE = "compile"
    VALIDATE = "validate"
    PUBLISH = "publish"
    PUSH = "push"
    VERIFY = "verify"
    MEASURE = "measure"
    REMOVE = "remove"


class StageReason(StrEnum):
    """Why a stage failed. Part of the API: each has an entry in docs/runbook.md."""

    SUCCEEDED = "Succeeded"
    SOURCE_UNSUPPORTED = "SourceUnsupported"
    SOURCE_NOT_FOUND = "SourceNotFound"
    REVISION_NOT_FOUND = "RevisionNotFound"
    SOURCE_UNAUTHORIZED = "SourceUnauthorized"
    MODEL_GATED = "ModelGated"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_CHANGED = "SourceChanged"
    MODEL_INVALID = "ModelInvalid"
    NOT_A_CROSS_ENCODER = "NotACrossEncoder"
    EMBEDDING_MODEL = "EmbeddingModel"
    LISTWISE_MODEL = "ListwiseModel"
    ARCHITECTURE_UNSUPPORTED = "ArchitectureUnsupported"
    CUSTOM_CODE = "CustomCode"
    UNSAFE_WEIGHTS = "UnsafeWeights"
    ADAPTER_INVALID = "AdapterInvalid"
    SCORING_UNKNOWN = "ScoringUnknown"
    PROBES_INVALID = "ProbesInvalid"
    MAX_LENGTH_TOO_LONG = "MaxLengthTooLong"
    MAX_LENGTH_TOO_SHORT = "MaxLengthTooShort"
    EXPORT_FAILED = "ExportFailed"
    COMPILE_FAILED = "CompileFailed"
    VALIDATION_FAILED = "ValidationFailed"
    PARITY_REFUSED = "ParityRefused"
    TARGET_UNSUPPORTED = "TargetUnsupported"
    TARGET_ABSENT = "TargetAbsent"
    ENGINE_TOO_LARGE = "EngineTooLarge"
    CHECKSUM_MISMATCH = "ChecksumMismatch"
    SIGNATURE_INVALID = "SignatureInvalid"
    ENGINE_VERSION_MISMATCH = "EngineVersionMismatch"
    ARTEFACT_NOT_FOUND = "ArtefactNotFound"
    REGISTRY_UNAUTHORIZED = "RegistryUnauthorized"
    REGISTRY_UNREACHABLE = "RegistryUnreachable"
    STORE_FULL = "StoreFull"
    STORE_UNWRITABLE = "StoreUnwritable"
    INTERNAL_ERROR = "InternalError"


#: The model as it is asked for can't be served, whatever it is built for.
OF_THE_MODEL = frozenset(
    {
        StageReason.MODEL_INVALID,
        StageReason.NOT_A_CROSS_ENCODER,
        StageReason.EMBEDDING_MODEL,
        StageReason.LISTWISE_MODEL,
        StageReason.ARCHITECTURE_UNSUPPORTED,
        StageReason.CUSTOM_CODE,
        StageReason.UNSAFE_WEIGHTS,
        StageReason.ADAPTER_INVALID,
        StageReason.SCORING_UNKNOWN,
        StageReason.PROBES_INVALID,
        StageReason.MAX_LENGTH_TOO_LONG,
        StageReason.MAX_LENGTH_TOO_SHORT,
    }
)
#: One target can't be built or ranks too differently: that says nothing of the others. Validation
#: fails for example by NaN, which a lower precision may overflow to.
OF_THE_TARGET = frozenset(
    {
        StageReason.PARITY_REFUSED,
        StageReason.TARGET_UNSUPPORTED,
        StageReason.TARGET_ABSENT,
        StageReason.ENGINE_TOO_LARGE,
        StageReason.VALIDATION_FAILED,
        StageReason.COMPILE_FAILED,
    }
)


class ResolvedModel(Document):
    """What `resolve` found out about a source without loading its weights."""

    revision: str = Field(max_length=256)
    name: str = Field(max_length=256)
    architecture: str = Field(max_length=128)
    family: str = Field(max_length=64)
    max_length: int = Field(
        ge=8, le=LARGEST, description="longest input the model allows, in tokens"
    )
    adapter: str | None = Field(
        default=None, max_length=256, description="fixed revision of the adapter, if there is one"
    )
    probes: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="sha256 of the user's own probe set, if there is one",
    )
    toolchain: Toolchain
    runtimes: Runtimes


class StageResult(Document):
    """Outcome of one stage, written by its container, read from the pod by the operator."""

    schema_version: Literal[1] = 1
    stage: Stage
    ok: bool
    reason: StageReason
    message: str = Field(description="for people: what happened and what to do")
    seconds: float = Field(ge=0, le=_LONGEST)
    resolved: ResolvedModel | None = None
    parity: ParityReport | None = None
    shapes: Shapes | None = None
    size_bytes: int | None = Field(default=None, ge=0, le=LARGEST)

    def to_message(self) -> str:
        """JSON text within MESSAGE_LIMIT bytes; an over-long `message` is cut."""
        text = self.to_json()
        if len(text) <= MESSAGE_LIMIT:
            return text
        # Without escapes a letter is one byte, and much more of the message fits.
        message = self.message.encode("ascii", "replace").decode()
        room = MESSAGE_LIMIT - len(self.model_copy(update={"message": ""}).to_json())
        while message and (excess := len(canonical_json(message)) - 2 - room) > 0:
            # An escape is six bytes at most, so this many characters are too many in any case.
            message = message[: -max(1, excess // 6)]
        return self.model_copy(update={"message": message}).to_json()
