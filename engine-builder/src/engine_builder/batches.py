"""Rows of tokens padded to INT32 tensors, as the gateway sends them to an engine."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine_builder.pair_template import Tokens

Tensors = dict[str, NDArray[np.int32]]


def pad_batch(
    rows: Sequence[Tokens],
    pad_id: int,
    inputs: Sequence[str],
    pad_side: Literal["left", "right"] = "right",
) -> Tensors:
    """INT32 tensors [rows, longest row] for the named `inputs`, padded on one side."""
    shape = (len(rows), max(len(row.ids) for row in rows))
    ids = np.full(shape, pad_id, dtype=np.int32)
    mask = np.zeros(shape, dtype=np.int32)
    types = np.zeros(shape, dtype=np.int32)
    for number, row in enumerate(rows):
        length = len(row.ids)
        start = 0 if pad_side == "right" else shape[1] - length
        ids[number, start : start + length] = row.ids
        mask[number, start : start + length] = 1
        types[number, start : start + length] = row.type_ids
    tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    return {name: tensors[name] for name in inputs}


def in_batches(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Row numbers in groups of at most `size`."""
    for start in range(0, len(order), size):
        yield order[start : start + size]


def within_budget(
    order: Sequence[int], lengths: Sequence[int], *, size: int, tokens: int
) -> Iterator[list[int]]:
    """Row numbers in groups of at most `size`, and of `tokens` when padded to the longest.

    As the gateway sends them, so that each group fits a profile of a compiled engine.
    """
    batch: list[int] = []
    longest = 0
    for row in order:
        grown = max(longest, lengths[row])
        if batch and (len(batch) == size or (len(batch) + 1) * grown > tokens):
            yield batch
            batch, grown = [], lengths[row]
        batch.append(row)
        longest = grown
    if batch:
        yield batch
