"""How closely an engine ranks like the reference: Kendall's tau, NDCG@10 and logits.

Two passages of a query whose reference scores lie within `TIE` of the spread of all reference
scores are a near tie: rounding decides their order, so that order is not held against an engine.

Tau is counted over the other pairs only: those in the reference's order less those in the opposite
one, divided by all of them (Somers' D of the engine's ranking given the reference's: R. H. Somers,
American Sociological Review 27(6), 1962). A pair that the engine alone ties counts as half wrong.

Gains of NDCG are the reference's own scores, scaled to 0..1 within a query. A rank that is filled
with a passage within the tolerance of the one that belongs there costs nothing, and among passages
that the engine ties the worst comes first.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine_builder.artefacts import ProbeSet
from engine_builder.errors import StageError, defect
from reranker_contracts import ParityReport, StageReason

Scores = NDArray[np.float64]

#: Share of the spread: what rounding both scores of a pair to FP16, 2⁻¹¹ each, can do to them.
TIE = 2.0**-10

_TOP = 10


def compare(
    probes: ProbeSet, reference: Sequence[float], runs: Sequence[Sequence[float]]
) -> ParityReport:
    """Compare the engine's logits of one or more `runs` with the reference.

    All are in the order of `probes.pairs()`. Over several runs the worst value of each measure
    counts. Raises StageError (ValidationFailed) for scores that are not numbers.
    """
    expected = _by_query(probes, reference, "reference")
    tie = near_tie(reference)
    taus, losses, differences = [], [], []
    for run in runs:
        pairs = list(zip(expected, _by_query(probes, run, "engine"), strict=True))
        found = [tau for pair in pairs if (tau := _tau(*pair, tie)) is not None]
        if not found:
            raise StageError(
                StageReason.VALIDATION_FAILED,
                "the reference tells no two passages of a query apart; prepare the model again",
            )
        taus.append(float(np.mean(found)))
        losses.append(max(_ndcg_loss(*pair, tie) for pair in pairs))
        differences.append(max(float(np.abs(left - right).max()) for left, right in pairs))
    return ParityReport(
        pairs=len(reference),
        queries=len(probes.queries),
        kendall_tau=min(taus),
        ndcg10_delta=max(losses),
        max_abs_diff=max(differences),
    )


def near_tie(reference: Sequence[float]) -> float:
    """Largest difference of two reference scores that counts as a tie."""
    return TIE * float(np.ptp(np.asarray(reference)))


def share_told_apart(probes: ProbeSet, reference: Sequence[float]) -> float:
    """Share of the pairs of passages of one query that are no near ties."""
    tie = near_tie(reference)
    pairs = [np.abs(_differences(scores)) for scores in _by_query(probes, reference, "reference")]
    return float(np.mean(np.concatenate(pairs) > tie))


def _by_query(probes: ProbeSet, values: Sequence[float], whose: str) -> list[Scores]:
    scores = np.asarray(values, dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(scores))
    if wrong.size:
        query, passage = probes.pairs()[wrong[0]]
        raise defect(
            StageReason.VALIDATION_FAILED,
            f"the {whose} scores {wrong.size} of {scores.size} probe pairs with NaN or infinity, "
            f"first query {query[:50]!r}, passage {passage[:50]!r}",
        )
    ends = np.cumsum([len(entry.passages) for entry in probes.queries])
    return np.split(scores, ends[:-1])


def _differences(scores: Scores) -> Scores:
    """Of every pair of scores, each pair once."""
    left, right = np.triu_indices(len(scores), k=1)
    return np.asarray(scores[left] - scores[right])


def _tau(expected: Scores, found: Scores, tie: float) -> float | None:
    """None for a query whose reference scores are all near ties."""
    wanted = _differences(expected)
    counted = np.abs(wanted) > tie
    if not counted.any():
        return None
    return float(np.mean(np.sign(wanted[counted]) * np.sign(_differences(found)[counted])))


def _ndcg_loss(expected: Scores, found: Scores, tie: float) -> float:
    spread = np.ptp(expected)
    if spread <= tie:
        return 0.0
    gains = (expected - expected.min()) / spread
    best = np.sort(gains)[::-1][:_TOP]
    actual = gains[np.lexsort((gains, -found))][:_TOP]
    discounts = 1 / np.log2(np.arange(2, len(best) + 2))
    lost = np.where(np.abs(best - actual) <= tie / spread, 0.0, best - actual)
    return max(0.0, float(lost @ discounts) / float(best @ discounts))
