"""Exit codes by kind of failure, for scripts; the table is in docs/cli.md."""

from collections.abc import Set as AbstractSet

from reranker_contracts import StageReason
from reranker_contracts.stages import OF_THE_MODEL

DONE, DEFECT, USAGE = 0, 1, 2
SOURCE, UNREACHABLE, MODEL, BUILD, PARITY, INTEGRITY, DISK = range(3, 10)

_REASONS: dict[int, AbstractSet[StageReason]] = {
    DONE: {StageReason.SUCCEEDED},
    DEFECT: {StageReason.INTERNAL_ERROR},
    SOURCE: {
        StageReason.SOURCE_UNSUPPORTED,
        StageReason.SOURCE_NOT_FOUND,
        StageReason.REVISION_NOT_FOUND,
        StageReason.SOURCE_UNAUTHORIZED,
        StageReason.SOURCE_CHANGED,
        StageReason.MODEL_GATED,
        StageReason.ARTEFACT_NOT_FOUND,
        StageReason.REGISTRY_UNAUTHORIZED,
    },
    UNREACHABLE: {StageReason.SOURCE_UNREACHABLE, StageReason.REGISTRY_UNREACHABLE},
    MODEL: OF_THE_MODEL,
    BUILD: {
        StageReason.EXPORT_FAILED,
        StageReason.COMPILE_FAILED,
        StageReason.VALIDATION_FAILED,
        StageReason.TARGET_UNSUPPORTED,
        StageReason.TARGET_ABSENT,
        StageReason.ENGINE_TOO_LARGE,
    },
    PARITY: {StageReason.PARITY_REFUSED},
    INTEGRITY: {
        StageReason.CHECKSUM_MISMATCH,
        StageReason.SIGNATURE_INVALID,
        StageReason.ENGINE_VERSION_MISMATCH,
    },
    DISK: {StageReason.STORE_FULL, StageReason.STORE_UNWRITABLE},
}
EXIT_CODES = {reason: code for code, reasons in _REASONS.items() for reason in reasons}
