"""The measures of the parity gate on hand-made scores."""

import math

import pytest

from engine_builder.errors import StageError
from engine_builder.logits import load_failure, run_failure
from engine_builder.parity import compare
from reranker_contracts import StageReason
from reranker_contracts.parity import (
    TIE,
    ProbeQuery,
    ProbeSet,
    near_tie,
    share_told_apart,
)

PROBES = ProbeSet(
    queries=(
        ProbeQuery(query="a", passages=("1", "2", "3", "4")),
        ProbeQuery(query="b", passages=("1", "2")),
    )
)
REFERENCE = [4.0, 3.0, 2.0, 1.0, 0.5, -0.5]


def test_equal_and_reversed_orders_are_the_ends_of_the_scale() -> None:
    same = compare(PROBES, REFERENCE, [REFERENCE])
    assert (same.kendall_tau, same.ndcg10_delta, same.max_abs_diff) == (1, 0, 0)
    assert (same.pairs, same.queries) == (6, 2)
    turned = compare(PROBES, REFERENCE, [[-score for score in REFERENCE]])
    assert turned.kendall_tau == -1
    assert turned.ndcg10_delta > 0.3


def test_the_worst_of_several_runs_counts() -> None:
    shifted = [score + 0.25 for score in REFERENCE]
    swapped = [3.0, 4.0, 2.0, 1.0, 0.5, -0.5]
    report = compare(PROBES, REFERENCE, [REFERENCE, shifted, swapped])
    assert report.max_abs_diff == 1
    assert report.kendall_tau == pytest.approx((4 / 6 + 1) / 2)


def test_an_exchange_of_near_ties_costs_nothing_and_of_anything_else_does() -> None:
    spread = 10.0
    within, beyond = 0.9 * TIE * spread, 1.1 * TIE * spread
    for distance, exact in ((within, True), (beyond, False)):
        near = [5.0, 5.0 - distance, 2.0, 1.0, 0.5, -5.0]
        swapped = [5.0 - distance, 5.0, 2.0, 1.0, 0.5, -5.0]
        assert near_tie(near) == TIE * spread
        report = compare(PROBES, near, [swapped])
        assert (report.kendall_tau == 1) is exact
        assert (report.ndcg10_delta == 0) is exact
        assert report.max_abs_diff == pytest.approx(distance)


def test_a_query_of_ties_alone_says_nothing() -> None:
    flat = [1.0, 1.0, 1.0, 1.0, 0.5, -0.5]
    assert compare(PROBES, flat, [flat]).kendall_tau == 1
    assert compare(PROBES, flat, [REFERENCE]).ndcg10_delta == 0
    assert share_told_apart(PROBES, flat) == [pytest.approx(1 / 7)]
    with pytest.raises(StageError, match="tells no two passages"):
        compare(PROBES, [1.0] * 4 + [2.0] * 2, [REFERENCE])


def test_an_engine_that_ties_everything_gains_nothing_by_the_order_of_the_probes() -> None:
    """They are listed best first."""
    report = compare(PROBES, REFERENCE, [[1.0] * 6])
    assert report.kendall_tau == 0
    assert report.ndcg10_delta > 0.3


def test_the_users_own_queries_are_judged_by_themselves() -> None:
    """One of them among a thousand others would not be seen in a mean over all."""
    own = PROBES.model_copy(update={"own": 1})
    swapped = [*REFERENCE[:4], REFERENCE[5], REFERENCE[4]]
    assert compare(PROBES, REFERENCE, [swapped]).kendall_tau == 0
    assert compare(own, REFERENCE, [swapped]).kendall_tau == -1
    assert compare(own, REFERENCE, [REFERENCE]).kendall_tau == 1
    wrong_elsewhere = [*REFERENCE[3::-1], *REFERENCE[4:]]
    assert compare(own, REFERENCE, [wrong_elsewhere]).kendall_tau == -1
    assert share_told_apart(own, [1.0] * 4 + [0.5, -0.5]) == [0, 1]
    with pytest.raises(StageError, match="tells no two passages"):
        compare(own, [*REFERENCE[:4], 1.0, 1.0], [REFERENCE])


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_have_their_own_message(score: float) -> None:
    broken = [*REFERENCE[:4], score, REFERENCE[5]]
    for reference, run, whose in ((REFERENCE, broken, "engine"), (broken, REFERENCE, "reference")):
        with pytest.raises(StageError, match=f"the {whose} scores 1 of 6.*'b'") as caught:
            compare(PROBES, reference, [REFERENCE, run])
        assert caught.value.reason is StageReason.VALIDATION_FAILED


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), StageReason.INTERNAL_ERROR),
        (RuntimeError("std::bad_alloc"), StageReason.INTERNAL_ERROR),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), StageReason.INTERNAL_ERROR),
        (
            RuntimeError("Failed to allocate memory for requested buffer"),
            StageReason.INTERNAL_ERROR,
        ),
        (RuntimeError("Invalid rank for input"), StageReason.VALIDATION_FAILED),
    ],
)
def test_want_of_memory_is_no_verdict_on_an_engine(error: Exception, reason: StageReason) -> None:
    assert load_failure("model.onnx", error).reason is reason
    assert run_failure(error).reason is reason
