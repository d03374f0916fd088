"""Exit codes by kind of failure, for scripts; the table is in docs/cli.md."""

from reranker_contracts import StageReason

DONE, DEFECT, USAGE = 0, 1, 2
SOURCE, UNREACHABLE, MODEL, BUILD, PARITY, INTEGRITY, DISK = range(3, 10)

_REASONS = {
    DONE: {StageReason.SUCCEEDED},
    DEFECT: {StageReason.INTERNAL_ERROR},
    SOURCE: {
        StageReason.SOURCE_UNSUPPORTED,
        StageReason.SOURCE_NOT_FOUND,
        StageReason.REVISION_NOT_FOUND,
        StageReason.SOURCE_UNAUTHORIZED,
        StageReason.SOURCE_CHANGED,
        StageReason.MODEL_GATED,
    },
    UNREACHABLE: {StageReason.SOURCE_UNREACHABLE},
    MODEL: {
        StageReason.MODEL_INVALID,
        StageReason.NOT_A_CROSS_ENCODER,
        StageReason.EMBEDDING_MODEL,
        StageReason.LISTWISE_MODEL,
        StageReason.ARCHITECTURE_UNSUPPORTED,
        StageReason.CUSTOM_CODE,
        StageReason.UNSAFE_WEIGHTS,
        StageReason.ADAPTER_INVALID,
        StageReason.SCORING_UNKNOWN,
        StageReason.MAX_LENGTH_TOO_LONG,
        StageReason.MAX_LENGTH_TOO_SHORT,
    },
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
