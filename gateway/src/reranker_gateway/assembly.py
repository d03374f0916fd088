"""Rows of different length to one padded batch."""

from collections.abc import Sequence

import numpy as np

from reranker_contracts import ServedModel
from reranker_gateway.engine import Batch
from reranker_gateway.tokenise import IntArray


class BatchAssembler:
    """Pads rows on the model's padding side."""

    def __init__(self, model: ServedModel) -> None:
        self._pad_id = model.pad_id
        self._left = model.pad_side == "left"
        self._with_types = "token_type_ids" in model.inputs

    def assemble(self, ids: Sequence[IntArray], types: Sequence[IntArray] | None) -> Batch:
        """One batch of `ids`, as long as the longest row; the mask is 0 over padding."""
        lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        longest = int(lengths.max())
        columns = np.arange(longest)
        first = (longest - lengths)[:, None] if self._left else np.zeros((len(ids), 1), np.int64)
        real = (columns >= first) & (columns < first + lengths[:, None])
        # Boolean assignment fills row by row, left to right: the rows' own order.
        input_ids = np.full(real.shape, self._pad_id, dtype=np.int32)
        input_ids[real] = np.concatenate(ids)
        token_types = None
        if types is not None:
            token_types = np.zeros(real.shape, dtype=np.int32)
            token_types[real] = np.concatenate(types)
        return Batch(input_ids, real.astype(np.int32), token_types)

    def uniform(self, rows: int, length: int) -> Batch:
        """A batch of full rows without padding, for warm-up."""
        shape = (rows, length)
        types = np.zeros(shape, dtype=np.int32) if self._with_types else None
        return Batch(np.ones(shape, dtype=np.int32), np.ones(shape, dtype=np.int32), types)
