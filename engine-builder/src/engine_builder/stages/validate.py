"""validate: scores the probe pairs on the engine and compares them with the FP32 reference.

All of them by length, so that little is padding, and some again in batches of mixed lengths: a
score must not depend on its neighbours. Writes the numbers; who asked judges them.

An engine that was built ahead of time, without the GPU that it is for, gets the probe pairs and
reference scores instead of a report: TargetAbsent, and the pods that serve it measure it.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from engine_builder.artefacts import (
    COMPILED,
    ENGINE_VERSION,
    PARITY,
    TOKENIZER,
    CompiledEngine,
    read_served_model,
    require_published,
    write_document,
)
from engine_builder.batches import pad_batch, within_budget
from engine_builder.errors import StageError
from engine_builder.outcome import Outcome
from engine_builder.pair_template import PairEncoder, Tokens
from engine_builder.parity import compare
from engine_builder.progress import Progress
from engine_builder.targets import Scorer, builder_of
from reranker_contracts import ServedModel, Shapes, StageReason
from reranker_contracts.parity import PROBES, REFERENCE, ProbeSet, Reference
from reranker_contracts.targets import MEASURED_IN_PODS

_SORTED, _MIXED = 32, 7
#: Of the pairs, every which one is scored a second time.
_AGAIN = 5


def validate(prepared: Path, engine: Path, *, progress: Progress) -> Outcome:
    """Write `parity.json` into `engine`; an engine that cannot score is ValidationFailed."""
    with progress.step("checking the prepared model"):
        require_published(prepared)
    probes = ProbeSet.model_validate_json((prepared / PROBES).read_bytes())
    reference = Reference.model_validate_json((prepared / REFERENCE).read_bytes())
    model, tokenizer, compiled = _read_engine(engine)
    target, shapes = compiled.target, compiled.shapes
    encoder = PairEncoder(tokenizer, model.template, model.max_length)
    rows = [encoder.encode(query, passage) for query, passage in probes.pairs()]
    with progress.step("loading the engine"):
        try:
            loaded = builder_of(target.runtime).load(engine / ENGINE_VERSION, target)
        except StageError as error:
            measured_later = target.runtime in MEASURED_IN_PODS
            if not measured_later or error.reason is not StageReason.TARGET_ABSENT:
                raise
            return _leave_to_pods(prepared, engine, error)
    if sorted(loaded.inputs) != sorted(model.inputs):
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"the engine takes {sorted(loaded.inputs)}, model.json says {sorted(model.inputs)}; "
            "compile it again",
        )
    by_length = sorted(range(len(rows)), key=lambda row: len(rows[row].ids))
    some = by_length[::-_AGAIN]
    step = max(1, len(some) // _MIXED)
    # Each batch goes through all lengths.
    again = [row for start in range(step) for row in some[start::step]]
    with progress.step(f"scoring {len(rows)} pairs on {loaded.device}"):
        first = _score(loaded, model, shapes, rows, by_length, size=_SORTED, progress=progress)
        mixed = _score(loaded, model, shapes, rows, again, size=_MIXED, progress=progress)
    runs = [list(first.values()), list((first | mixed).values())]
    report = compare(probes, reference.logits, runs)
    write_document(engine / PARITY, report)
    return Outcome(
        f"Kendall tau {report.kendall_tau:.5f}, NDCG@10 loss {report.ndcg10_delta:.6f}, largest "
        f"logit difference {report.max_abs_diff:.2g} over {report.pairs} pairs",
        parity=report,
    )


def _leave_to_pods(prepared: Path, engine: Path, absent: StageError) -> Outcome:
    for name in (PROBES, REFERENCE):
        shutil.copyfile(prepared / name, engine / name)
    (engine / PARITY).unlink(missing_ok=True)
    return Outcome(
        f"not measured here: {absent.message}; the probe pairs and reference scores go with the "
        "engine",
        reason=StageReason.TARGET_ABSENT,
    )


def _read_engine(engine: Path) -> tuple[ServedModel, Tokenizer, CompiledEngine]:
    """Model, tokenizer, and what the engine is for and takes."""
    try:
        compiled = CompiledEngine.model_validate_json((engine / COMPILED).read_bytes())
        tokenizer = Tokenizer.from_file(str(engine / TOKENIZER))
        return read_served_model(engine), tokenizer, compiled
    # The Rust tokenizers library raises plain Exception, also for a missing file.
    except Exception as error:
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"{engine}: is not a compiled engine ({str(error)[:120]}); run compile first",
        ) from error


def _score(
    engine: Scorer,
    model: ServedModel,
    shapes: Shapes,
    rows: Sequence[Tokens],
    order: Sequence[int],
    *,
    size: int,
    progress: Progress,
) -> dict[int, float]:
    """Logits of the rows in `order`, by row and sorted by it."""
    logits: dict[int, float] = {}
    lengths = [len(row.ids) for row in rows]
    size = min(size, shapes.max_batch_size)
    for batch in within_budget(order, lengths, size=size, tokens=shapes.token_budget):
        progress.tick(len(logits), len(order), "pairs")
        picked = [rows[row] for row in batch]
        tensors = pad_batch(picked, model.pad_id, model.inputs, model.pad_side)
        scores = engine.run(tensors, model.labels)[:, model.label]
        logits |= zip(batch, map(float, scores), strict=True)
    return dict(sorted(logits.items()))
