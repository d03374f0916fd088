"""The measures of the parity gate on hand-made scores."""

import numpy as np
import pytest

from engine_builder.artefacts import ProbeQuery, ProbeSet

pytest.importorskip("scipy")
from engine_builder.parity import compare

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


def test_an_exchange_of_near_ties_costs_almost_no_ndcg() -> None:
    near = [4.0, 3.9999, 2.0, 1.0, 0.5, -0.5]
    swapped = [3.9999, 4.0, 2.0, 1.0, 0.5, -0.5]
    assert compare(PROBES, near, [swapped]).ndcg10_delta < 1e-4


def test_ties_of_a_whole_query_are_defined() -> None:
    flat = [1.0, 1.0, 1.0, 1.0, 0.5, -0.5]
    assert compare(PROBES, flat, [flat]).kendall_tau == 1
    assert compare(PROBES, REFERENCE, [flat]).kendall_tau == pytest.approx(0.5)
    assert np.isfinite(compare(PROBES, flat, [REFERENCE]).ndcg10_delta)
