"""A first look at safetensors files: whole, and as large as config.json says.

Reads headers only. A file cut short in a copy or a configuration that asks for far more memory than
the weights explain is found before anything is allocated.
"""

import math
import os
from pathlib import Path
from typing import TypeGuard

from engine_builder.errors import StageError
from engine_builder.files import open_regular, parse_json_object
from reranker_contracts import StageReason

#: Bytes. Ten thousand tensors take a tenth of it.
_MAX_HEADER = 16 << 20
_MAX_DIMENSIONS = 8
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8"), 8),
    **dict.fromkeys(("F16", "BF16", "U16", "I16"), 16),
    **dict.fromkeys(("F32", "U32", "I32"), 32),
    **dict.fromkeys(("F64", "U64", "I64"), 64),
}


def count_parameters(paths: list[Path]) -> int:
    """Number of values in all tensors of these files.

    Raises StageError (ModelInvalid) for a file that is not whole and well-formed.
    """
    return sum(_count(path) for path in paths)


def _count(path: Path) -> int:
    with open_regular(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_MAX_HEADER, size - 8):
            raise _invalid(path, "its header is damaged")
        header = parse_json_object(path.name, stream.read(length))
    header.pop("__metadata__", None)
    tensors = sorted(_tensor(path, name, entry) for name, entry in header.items())
    expected = 0
    for start, end, _values, name in tensors:
        if start != expected:
            raise _invalid(path, f"tensor {name[:60]!r} does not begin where the one before ends")
        expected = end
    if expected != size - 8 - length:
        described = expected + 8 + length
        raise _invalid(path, f"it holds {size} bytes, its header describes {described}")
    return sum(values for _start, _end, values, _name in tensors)


def _tensor(path: Path, name: str, entry: object) -> tuple[int, int, int, str]:
    """Start, end and number of values of one tensor, and its name."""
    if not isinstance(entry, dict):
        raise _invalid(path, f"tensor {name[:60]!r} has no description")
    shape, offsets, kind = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if not _natural_numbers(shape) or not _natural_numbers(offsets) or len(offsets) != 2:
        raise _invalid(path, f"tensor {name[:60]!r} has a malformed description")
    bits = _BITS.get(kind) if isinstance(kind, str) else None
    if bits is None:
        raise StageError(
            StageReason.MODEL_INVALID,
            f"{path.name}: tensor {name[:60]!r} is of type {str(kind)[:20]!r}; save the model in "
            "float32, float16 or bfloat16",
        )
    # What the shape says is allocated later, what the offsets say lies in the file.
    values = math.prod(shape)
    if values * bits != (offsets[1] - offsets[0]) * 8:
        raise _invalid(path, f"the shape of tensor {name[:60]!r} is not what the file holds of it")
    return offsets[0], offsets[1], values, name


def _natural_numbers(value: object) -> TypeGuard[list[int]]:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_DIMENSIONS
        and all(type(item) is int and 0 <= item < 1 << 48 for item in value)
    )


def _invalid(path: Path, problem: str) -> StageError:
    return StageError(
        StageReason.MODEL_INVALID,
        f"{path.name}: {problem}; copy the model's files again",
    )
