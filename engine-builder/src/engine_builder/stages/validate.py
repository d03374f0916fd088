"""validate: scores the probe pairs on the engine and compares them with the FP32 reference.

Twice, in opposite orders and with different batch sizes, so that rows share batches with others of
other lengths: a score must not depend on its neighbours. Writes the numbers; who asked judges them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from engine_builder.artefacts import (
    ENGINE_VERSION,
    ONNX,
    PARITY,
    PROBES,
    REFERENCE,
    TOKENIZER,
    TRITON_CONFIG,
    ProbeSet,
    Reference,
    read_served_model,
    require_published,
    write_document,
)
from engine_builder.batches import in_batches, pad_batch
from engine_builder.errors import StageError
from engine_builder.onnx_engine import OnnxEngine
from engine_builder.outcome import Outcome
from engine_builder.pair_template import PairEncoder, Tokens
from engine_builder.parity import compare
from engine_builder.progress import Progress
from reranker_contracts import ServedModel, StageReason

_FORWARD, _BACKWARD = 16, 7


def validate(prepared: Path, engine: Path, *, progress: Progress) -> Outcome:
    """Write `parity.json` into `engine`; an engine that cannot score is ValidationFailed."""
    with progress.step("checking the prepared model"):
        require_published(prepared)
    probes = ProbeSet.model_validate_json((prepared / PROBES).read_bytes())
    reference = Reference.model_validate_json((prepared / REFERENCE).read_bytes())
    model, tokenizer, gpu = _read_engine(engine)
    encoder = PairEncoder(tokenizer, model.template, model.max_length)
    rows = [encoder.encode(query, passage) for query, passage in probes.pairs()]
    with progress.step("loading the engine"):
        loaded = OnnxEngine(engine / ENGINE_VERSION / ONNX, gpu=gpu)
    if sorted(loaded.inputs) != sorted(model.inputs):
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"{ONNX} takes {sorted(loaded.inputs)}, model.json says {sorted(model.inputs)}; "
            "compile it again",
        )
    with progress.step(f"scoring {len(rows)} pairs twice on {loaded.provider}"):
        order = list(range(len(rows)))
        runs = [
            _score(loaded, model, rows, order, batch_size=_FORWARD, progress=progress),
            _score(loaded, model, rows, order[::-1], batch_size=_BACKWARD, progress=progress),
        ]
    report = compare(probes, reference.logits, runs)
    write_document(engine / PARITY, report)
    return Outcome(
        f"Kendall tau {report.kendall_tau:.5f}, NDCG@10 loss {report.ndcg10_delta:.6f}, largest "
        f"logit difference {report.max_abs_diff:.2g} over {report.pairs} pairs",
        parity=report,
    )


def _read_engine(engine: Path) -> tuple[ServedModel, Tokenizer, bool]:
    """Model, tokenizer and whether the engine is for a GPU."""
    try:
        config = (engine / TRITON_CONFIG).read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_file(str(engine / TOKENIZER))
        return read_served_model(engine), tokenizer, "KIND_GPU" in config
    # The Rust tokenizers library raises plain Exception, also for a missing file.
    except Exception as error:
        raise StageError(
            StageReason.VALIDATION_FAILED,
            f"{engine}: is not a compiled engine ({str(error)[:120]}); run compile first",
        ) from error


def _score(
    engine: OnnxEngine,
    model: ServedModel,
    rows: Sequence[Tokens],
    order: Sequence[int],
    *,
    batch_size: int,
    progress: Progress,
) -> list[float]:
    """Logits in the order of `rows`, computed in the given order."""
    logits = np.zeros(len(rows))
    for number, batch in enumerate(in_batches(order, batch_size)):
        progress.tick(number * batch_size, len(rows), "pairs")
        picked = [rows[row] for row in batch]
        tensors = pad_batch(picked, model.pad_id, model.inputs, model.pad_side)
        logits[list(batch)] = engine.run(tensors, model.labels)[:, model.label]
    return [float(logit) for logit in logits]
