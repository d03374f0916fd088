"""What every runtime's answers and failures have in common."""

import re

import numpy as np
from numpy.typing import NDArray

from engine_builder.errors import StageError, defect
from reranker_contracts import StageReason

#: What runtimes and allocators say.
_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|out of memory|failed to allocate|cannot allocate memory",
    re.IGNORECASE,
)


def checked_logits(logits: object, rows: int, labels: int) -> NDArray[np.float32]:
    """`logits` as FP32 [rows, labels]; another shape is ValidationFailed."""
    found = np.asarray(logits)
    if found.shape != (rows, labels):
        raise defect(
            StageReason.VALIDATION_FAILED,
            f"the engine answers {list(found.shape)}, expected {[rows, labels]}",
        )
    return np.asarray(found, dtype=np.float32)


def first_line(error: Exception) -> str:
    """What a library says, short enough for a message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def load_failure(what: str, error: Exception) -> StageError:
    """An engine that its own runtime refuses."""
    if _is_of_memory(error):
        return _no_memory()
    return defect(StageReason.VALIDATION_FAILED, f"{what} cannot be loaded: {first_line(error)}")


def run_failure(error: Exception) -> StageError:
    """An engine that fails on a batch."""
    if _is_of_memory(error):
        return _no_memory()
    return defect(
        StageReason.VALIDATION_FAILED, f"the engine fails on a batch: {first_line(error)}"
    )


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def _no_memory() -> StageError:
    """Says nothing of the engine, so it is tried again."""
    return StageError(
        StageReason.INTERNAL_ERROR,
        "there is not enough memory to run the engine; raise spec.engine.resources",
    )
