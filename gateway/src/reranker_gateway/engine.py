"""The engine behind the gateway, as a protocol: Triton implements it, tests stand in for it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from reranker_gateway.errors import EngineError
from reranker_gateway.tokenise import IntArray

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one engine call, padded to the longest row; arrays are `[rows, length]`."""

    input_ids: IntArray
    attention_mask: IntArray
    token_type_ids: IntArray | None

    @property
    def rows(self) -> int:
        """Pairs in the batch."""
        return len(self.input_ids)


class Engine(Protocol):
    """Something that scores batches."""

    async def ready(self) -> bool:
        """Whether the model is loaded and takes batches. Raises only EngineTimeoutError."""

    async def infer(self, batch: Batch) -> FloatArray:
        """Score per row, `[rows]`.

        Raises EngineUnavailableError when the engine did not answer, EngineError when it refused.
        """

    async def metrics(self) -> str:
        """The engine's own metrics in Prometheus text format; empty when there are none."""

    async def close(self) -> None:
        """Give back connections."""


def check_scores(batch: Batch, scores: FloatArray) -> None:
    """Raises EngineError unless there is one finite number per row."""
    if scores.shape != (batch.rows,) or not np.isfinite(scores).all():
        raise EngineError("the engine answered a batch with something that is not a score")
