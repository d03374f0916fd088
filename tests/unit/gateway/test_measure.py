"""An engine without a report is measured through Triton before the gateway starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reranker_contracts import ArtefactManifest, StageReason, write_manifest
from reranker_contracts.integrity import file_entries
from reranker_contracts.parity import ProbeQuery, ProbeSet, Reference, Thresholds
from reranker_gateway.cli import main
from reranker_gateway.engine_files import EngineInvalidError, load_engine
from reranker_gateway.errors import EngineError
from reranker_gateway.measure import measure_engine

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


STRICT = Thresholds(min_kendall_tau=0.995, max_ndcg_delta=0.002)
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


async def test_an_engine_that_ranks_as_the_reference_passes(
    unproven: Callable[[list[float]], None], engine_dir: Path, engine: Any
) -> None:
    unproven(REFERENCE)
    done = await measure_engine(load_engine(engine_dir), engine, STRICT)
    assert (done.ok, done.reason) == (True, StageReason.SUCCEEDED)
    assert done.parity is not None
    assert (done.parity.kendall_tau, done.parity.pairs) == (1.0, len(REFERENCE))
    assert "Kendall tau 1.0000" in done.message
    assert sum(batch.rows for batch in engine.batches) == len(REFERENCE), "each pair once"
    assert max(batch.rows for batch in engine.batches) == 4


async def test_an_engine_that_ranks_differently_is_refused_with_its_numbers(
    unproven: Callable[[list[float]], None], engine_dir: Path, engine: Any
) -> None:
    unproven(REFERENCE)
    engine.score = lambda batch: -batch.input_ids.sum(axis=1).astype(np.float32)
    done = await measure_engine(load_engine(engine_dir), engine, STRICT)
    assert (done.ok, done.reason) == (False, StageReason.PARITY_REFUSED)
    assert done.parity is not None
    assert done.parity.kendall_tau < 0
    assert "ranks too differently from the original: Kendall tau -" in done.message


async def test_scores_that_are_no_numbers_are_refused_without(
    unproven: Callable[[list[float]], None], engine_dir: Path, engine: Any
) -> None:
    unproven(REFERENCE)
    engine.score = lambda batch: np.full(batch.rows, np.nan, dtype=np.float32)
    done = await measure_engine(load_engine(engine_dir), engine, STRICT)
    assert (done.reason, done.parity) == (StageReason.VALIDATION_FAILED, None)
    assert "with NaN or infinity" in done.message


async def test_thresholds_decide(
    unproven: Callable[[list[float]], None], engine_dir: Path, engine: Any
) -> None:
    logits = list(REFERENCE)
    logits[0], logits[1] = logits[1], logits[0]
    unproven(logits)
    files = load_engine(engine_dir)
    assert not (await measure_engine(files, engine, STRICT)).ok
    assert (await measure_engine(files, engine, Thresholds(0.9, 0.5))).ok


async def test_an_engine_that_was_measured_where_it_was_built_passes_unasked(
    engine_dir: Path, engine: Any
) -> None:
    done = await measure_engine(load_engine(engine_dir), engine, STRICT)
    assert (done.ok, done.parity, engine.batches) == (True, None, [])


async def test_a_triton_that_fails_says_nothing_of_the_engine(
    unproven: Callable[[list[float]], None], engine_dir: Path, engine: Any
) -> None:
    unproven(REFERENCE)
    engine.failures.append(EngineError("out of memory"))
    with pytest.raises(EngineError, match="out of memory"):
        await measure_engine(load_engine(engine_dir), engine, STRICT)


def test_the_command_leaves_its_result_and_fails_without_triton(
    unproven: Callable[[list[float]], None],
    engine_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = tmp_path / "result.json"
    # Nothing listens there, and nothing is asked of it.
    where = ["--engine", str(engine_dir), "--triton", "127.0.0.1:1", "--result", str(result)]
    assert main(["measure", *where]) == 0
    assert json.loads(result.read_text())["stage"] == "measure"
    result.unlink()
    unproven(REFERENCE)
    assert main(["measure", *where]) == 1
    assert "the engine is not answering" in capsys.readouterr().err
    assert not result.exists()


def test_references_that_do_not_belong_to_the_probes_are_refused(
    unproven: Callable[[list[float]], None], engine_dir: Path
) -> None:
    unproven(REFERENCE[:-1])
    with pytest.raises(EngineInvalidError, match="64 scores for 65 pairs"):
        load_engine(engine_dir)
