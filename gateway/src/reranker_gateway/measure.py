"""`reranker-gateway measure`: the init container that runs once Triton has loaded the engine.

An engine that was built without its GPU carries the probe pairs and reference scores in place of a
report. They are scored here, through the same tokeniser and Triton as requests, before the gateway
starts: below the thresholds it never does. The result tells the operator the numbers either way.
"""

import time
from collections.abc import Iterator

from reranker_contracts import ParityReport, Stage, StageReason, StageResult
from reranker_contracts.parity import NotComparableError, ProbeSet, Thresholds, compare
from reranker_gateway.assembly import BatchAssembler
from reranker_gateway.batching import BatchLimits
from reranker_gateway.engine import Engine
from reranker_gateway.engine_files import EngineFiles
from reranker_gateway.tokenise import IntArray, PairTokeniser


async def measure_engine(files: EngineFiles, engine: Engine, thresholds: Thresholds) -> StageResult:
    """Judge the engine by its own probe pairs. Raises EngineError when it fails on a batch.

    Scores that are not numbers are ValidationFailed, others below `thresholds` ParityRefused. An
    engine that was measured where it was built passes.
    """
    started = time.monotonic()
    report: ParityReport | None = None
    reason = StageReason.SUCCEEDED
    if files.proof is None:
        message = "the engine was measured where it was built"
    else:
        probes, reference = files.proof
        scores = await _Run(files, engine).scores(probes)
        try:
            report = compare(probes, reference.logits, [scores])
        except NotComparableError as error:
            reason = StageReason.VALIDATION_FAILED
            message = f"{error}; set spec.engine.precision to another one"
        else:
            reason, message = _judge(report, thresholds)
    return StageResult(
        stage=Stage.MEASURE,
        ok=reason is StageReason.SUCCEEDED,
        reason=reason,
        message=message,
        seconds=time.monotonic() - started,
        parity=report,
    )


def _judge(report: ParityReport, limits: Thresholds) -> tuple[StageReason, str]:
    numbers = (
        f"Kendall tau {report.kendall_tau:.4f} (at least {limits.min_kendall_tau}), NDCG@10 loss "
        f"{report.ndcg10_delta:.4f} (at most {limits.max_ndcg_delta}), largest logit difference "
        f"{report.max_abs_diff:.2g} over {report.pairs} pairs"
    )
    if not limits.are_met(report):
        text = f"the engine ranks too differently from the original: {numbers}"
        return StageReason.PARITY_REFUSED, f"{text}; loosen spec.engine.parity only if you know why"
    return StageReason.SUCCEEDED, f"measured on this node: {numbers}"


class _Run:
    """One pass over the probe pairs."""

    def __init__(self, files: EngineFiles, engine: Engine) -> None:
        self._engine = engine
        self._assembler = BatchAssembler(files.model)
        self._tokeniser = PairTokeniser(files.tokenizer, files.model, files.max_length, threads=1)
        self._limits = BatchLimits(
            max_rows=files.shapes.max_batch_size, token_budget=files.token_budget(None)
        )

    async def scores(self, probes: ProbeSet) -> list[float]:
        """In the order of the probe pairs; batches are by length, so that little is padding."""
        ids, types = await self._tokens(probes)
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

    async def _tokens(self, probes: ProbeSet) -> tuple[list[IntArray], list[IntArray] | None]:
        ids: list[IntArray] = []
        types: list[IntArray] = []
        for entry in probes.queries:
            found = await self._tokeniser.run(entry.query, list(entry.passages), "END")
            ids += found.ids
            types += found.types or []
        self._tokeniser.close()
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
