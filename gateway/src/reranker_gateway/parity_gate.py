"""The parity gate of engines that could not be measured where they were built.

Such an engine carries the probe pairs and reference scores in place of a report. They are scored
once, through the same tokeniser and engine as requests, before the pod is ready.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from reranker_contracts import ParityReport, ServedModel
from reranker_contracts.parity import NotComparableError, ProbeSet, Reference, compare
from reranker_gateway.assembly import BatchAssembler
from reranker_gateway.batching import BatchLimits
from reranker_gateway.engine import Engine
from reranker_gateway.errors import EngineError
from reranker_gateway.tokenise import IntArray, PairTokeniser

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Thresholds:
    """How closely the engine must rank like the reference."""

    min_kendall_tau: float
    max_ndcg_delta: float


class ParityGate:
    """Measures once; what it found holds for as long as the process lives."""

    def __init__(
        self,
        *,
        probes: ProbeSet,
        reference: Reference,
        thresholds: Thresholds,
        engine: Engine,
        model: ServedModel,
        tokeniser: PairTokeniser,
        limits: BatchLimits,
    ) -> None:
        self._probes = probes
        self._reference = reference
        self._thresholds = thresholds
        self._engine = engine
        self._assembler = BatchAssembler(model)
        self._tokeniser = tokeniser
        self._limits = limits
        self._refusal: str | None = None
        self.report: ParityReport | None = None

    async def __call__(self) -> None:
        """Raises EngineError for an engine that ranks too differently, or fails on a batch."""
        if self._refusal is None and self.report is None:
            self._judge(await self._scores())
        if self._refusal is not None:
            raise EngineError(self._refusal)

    def _judge(self, scores: list[float]) -> None:
        try:
            report = compare(self._probes, self._reference.logits, [scores])
        except NotComparableError as error:
            self._refusal = str(error)
            return
        limits, self.report = self._thresholds, report
        numbers = (
            f"Kendall tau {report.kendall_tau:.4f} (at least {limits.min_kendall_tau}), NDCG@10 "
            f"loss {report.ndcg10_delta:.4f} (at most {limits.max_ndcg_delta}), largest logit "
            f"difference {report.max_abs_diff:.2g} over {report.pairs} pairs"
        )
        _log.info("measured on this node: %s", numbers)
        if (
            report.kendall_tau < limits.min_kendall_tau
            or report.ndcg10_delta > limits.max_ndcg_delta
        ):
            self._refusal = f"it ranks too differently from the original: {numbers}"

    async def _scores(self) -> list[float]:
        """In the order of the probe pairs; batches are by length, so that little is padding."""
        ids, types = await self._tokens()
        scores = [0.0] * len(ids)
        for places in self._batches([len(row) for row in ids]):
            batch = self._assembler.assemble(
                [ids[place] for place in places],
                None if types is None else [types[place] for place in places],
            )
            found = await self._engine.infer(batch)
            for place, score in zip(places, found.tolist(), strict=True):
                scores[place] = score
        return scores

    async def _tokens(self) -> tuple[list[IntArray], list[IntArray] | None]:
        ids: list[IntArray] = []
        types: list[IntArray] = []
        for entry in self._probes.queries:
            found = await self._tokeniser.run(entry.query, list(entry.passages), "END")
            ids += found.ids
            types += found.types or []
        return ids, types or None

    def _batches(self, lengths: list[int]) -> Iterator[list[int]]:
        """Places in `lengths` that go together, within the engine's rows and token budget."""
        batch: list[int] = []
        for place in sorted(range(len(lengths)), key=lengths.__getitem__):
            rows = len(batch) + 1
            full = rows > self._limits.max_rows
            if batch and (full or rows * lengths[place] > self._limits.token_budget):
                yield batch
                batch = []
            batch.append(place)
        yield batch
