"""How closely an engine ranks like the reference: Kendall's tau, NDCG@10 and logits.

Gains of NDCG are the reference's own scores, scaled to 0..1 within a query: an exchange of near
ties costs next to nothing, an exchange of clearly different passages a lot.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from engine_builder.artefacts import ProbeSet
from reranker_contracts import ParityReport

Scores = NDArray[np.float64]

_TOP = 10


def compare(
    probes: ProbeSet, reference: Sequence[float], runs: Sequence[Sequence[float]]
) -> ParityReport:
    """Compare the engine's logits of one or more `runs` with the reference.

    All are in the order of `probes.pairs()` and finite. Over several runs the worst value of each
    measure counts.
    """
    expected = _by_query(probes, reference)
    taus, losses, differences = [], [], []
    for run in runs:
        found = _by_query(probes, run)
        pairs = list(zip(expected, found, strict=True))
        taus.append(float(np.mean([_tau(*pair) for pair in pairs])))
        losses.append(max(_ndcg_loss(*pair) for pair in pairs))
        differences.append(max(float(np.abs(left - right).max()) for left, right in pairs))
    return ParityReport(
        pairs=len(reference),
        queries=len(probes.queries),
        kendall_tau=min(taus),
        ndcg10_delta=max(losses),
        max_abs_diff=max(differences),
    )


def _by_query(probes: ProbeSet, values: Sequence[float]) -> list[Scores]:
    ends = np.cumsum([len(entry.passages) for entry in probes.queries])
    return np.split(np.asarray(values, dtype=np.float64), ends[:-1])


def _tau(expected: Scores, found: Scores) -> float:
    """Kendall's tau-b; 1 or 0 where it is undefined because all scores of a query are equal."""
    if np.ptp(expected) == 0 or np.ptp(found) == 0:
        return float(np.ptp(expected) == np.ptp(found))
    return float(kendalltau(expected, found).statistic)


def _ndcg_loss(expected: Scores, found: Scores) -> float:
    spread = np.ptp(expected)
    if spread == 0:
        return 0.0
    gains = (expected - expected.min()) / spread
    discounts = 1 / np.log2(np.arange(2, _TOP + 2))
    best = np.sort(gains)[::-1][:_TOP]
    actual = gains[np.argsort(-found, kind="stable")][:_TOP]
    ideal = float(best @ discounts[: len(best)])
    return 1 - float(actual @ discounts[: len(actual)]) / ideal
