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

_MAX_HEADER = 100 << 20


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
    end, total = 0, 0
    for name, entry in header.items():
        if not isinstance(entry, dict):
            raise _invalid(path, f"tensor {name[:60]!r} has no description")
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not _natural_numbers(shape) or not _natural_numbers(offsets) or len(offsets) != 2:
            raise _invalid(path, f"tensor {name[:60]!r} has a malformed description")
        end = max(end, *offsets)
        total += math.prod(shape)
    if end != size - 8 - length:
        raise _invalid(path, f"it holds {size} bytes, its header describes {end + 8 + length}")
    return total


def _natural_numbers(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(item, int) and item >= 0 for item in value)


def _invalid(path: Path, problem: str) -> StageError:
    return StageError(
        StageReason.MODEL_INVALID,
        f"{path.name}: {problem}; copy the model's files again",
    )
