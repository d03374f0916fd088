"""An engine without a report is measured before the pod is ready."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reranker_contracts import ArtefactManifest, write_manifest
from reranker_contracts.integrity import file_entries
from reranker_contracts.parity import ProbeQuery, ProbeSet, Reference
from reranker_gateway.engine import Batch
from reranker_gateway.engine_files import EngineInvalidError, load_engine

PROBES = ProbeSet(
    queries=tuple(
        ProbeQuery(
            query=f"w{number}",
            passages=tuple(" ".join(f"w{place}" for place in range(number, end)) or "w1"
                           for end in range(number + 1, number + 40, 3)),
        )
        for number in range(5)
    )
)  # fmt: skip


def _sum(ids: list[int]) -> float:
    """The stand-in engine's score of [CLS] query [SEP] passage [SEP], cut to 32 tokens."""
    query, *passage = (number + 4 for number in ids)
    return float(sum((2, query, 3, *passage[: 32 - 4], 3)))


def _words(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


REFERENCE = [_sum(_words(query) + _words(passage)) for query, passage in PROBES.pairs()]


@pytest.fixture
def unproven(engine_dir: Path) -> Callable[[list[float]], None]:
    """Gives the engine probe pairs and these reference scores in place of a report."""

    def write(logits: list[float]) -> None:
        (engine_dir / "probe.json").write_text(PROBES.to_json())
        (engine_dir / "reference.json").write_text(Reference(logits=tuple(logits)).to_json())
        manifest = ArtefactManifest.model_validate_json((engine_dir / "manifest.json").read_bytes())
        files = tuple(file_entries(engine_dir))
        write_manifest(engine_dir, manifest.model_copy(update={"files": files}))

    return write


async def _watch(readiness: Any, eventually: Callable[..., Any], looks: int) -> None:
    watch = asyncio.create_task(readiness.watch())
    for _ in range(looks):
        readiness.suspect()
        await eventually(lambda: not readiness.suspected)
        # The look that has begun ends before the next one does.
        readiness.suspect()
        await eventually(lambda: not readiness.suspected)
    watch.cancel()


async def test_an_engine_that_ranks_as_the_reference_becomes_ready(
    unproven: Callable[[list[float]], None],
    gateway_of: Callable[..., Any],
    engine: Any,
    eventually: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    unproven(REFERENCE)
    readiness = gateway_of(ready=False).readiness
    with caplog.at_level("INFO"):
        watch = asyncio.create_task(readiness.watch())
        await eventually(lambda: readiness.ready)
    watch.cancel()
    assert "Kendall tau 1.0000" in caplog.text
    assert f"over {len(REFERENCE)} pairs" in caplog.text
    assert max(batch.rows for batch in engine.batches) == 4
    scored = sum(batch.rows for batch in engine.batches)
    await _watch(readiness, eventually, 3)
    assert sum(batch.rows for batch in engine.batches) < scored + len(REFERENCE), "measured again"


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (lambda batch: -batch.input_ids.sum(axis=1).astype(np.float32), "Kendall tau -"),
        (
            # Only the warm-up's rows are of one token.
            lambda batch: np.where((batch.input_ids == 1).all(axis=1), 1, np.nan).astype("f4"),
            "with NaN or infinity",
        ),
    ],
)
async def test_an_engine_that_ranks_differently_never_becomes_ready(
    score: Callable[[Batch], np.ndarray],
    says: str,
    unproven: Callable[[list[float]], None],
    gateway_of: Callable[..., Any],
    engine: Any,
    eventually: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    unproven(REFERENCE)
    engine.score = score
    readiness = gateway_of(ready=False, token_budget=64).readiness
    await _watch(readiness, eventually, 4)
    assert not readiness.ready
    assert says in caplog.text
    assert caplog.text.count("not ready") == 1


async def test_thresholds_decide(
    unproven: Callable[[list[float]], None],
    gateway_of: Callable[..., Any],
    eventually: Callable[..., Any],
) -> None:
    logits = list(REFERENCE)
    logits[0], logits[1] = logits[1], logits[0]
    unproven(logits)
    strict = gateway_of(ready=False).readiness
    await _watch(strict, eventually, 3)
    assert not strict.ready
    loose = gateway_of(ready=False, min_kendall_tau=0.9, max_ndcg_delta=0.5).readiness
    await _watch(loose, eventually, 3)
    assert loose.ready


def test_references_that_do_not_belong_to_the_probes_are_refused(
    unproven: Callable[[list[float]], None], engine_dir: Path
) -> None:
    unproven(REFERENCE[:-1])
    with pytest.raises(EngineInvalidError, match="64 scores for 65 pairs"):
        load_engine(engine_dir)
