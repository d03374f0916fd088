"""How closely an engine ranks like the reference: Kendall's tau, NDCG@10 and logits.

Two passages of a query whose reference scores lie within `TIE` of the spread of all reference
scores are a near tie: rounding decides their order, so that order is not held against an engine.

Tau is counted over the other pairs only: those in the reference's order less those in the opposite
one, divided by all of them (Somers' D of the engine's ranking given the reference's: R. H. Somers,
American Sociological Review 27(6), 1962). A pair that the engine alone ties counts as half wrong.

Gains of NDCG are the reference's own scores, scaled to 0..1 within a query. A rank that is filled
with a passage within the tolerance of the one that belongs there costs nothing, and among passages
that the engine ties the worst comes first.

The builder measures engines where it builds them, the gateway those that could not be measured
there; neither has numpy in common with the operator, so this is plain Python.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import Field

from reranker_contracts.base import Document
from reranker_contracts.manifest import ParityReport

#: `probe.json` and `reference.json` in a prepared model, and in an engine without a report.
PROBES = "probe.json"
REFERENCE = "reference.json"

#: Share of the spread: what rounding both scores of a pair to FP16, 2⁻¹¹ each, can do to them.
TIE = 2.0**-10

_TOP = 10


@dataclass(frozen=True)
class Thresholds:
    """How closely an engine must rank like the reference."""

    min_kendall_tau: float = 0.995
    max_ndcg_delta: float = 0.002

    def are_met(self, report: ParityReport) -> bool:
        """By what was measured."""
        return (
            report.kendall_tau >= self.min_kendall_tau
            and report.ndcg10_delta <= self.max_ndcg_delta
        )


class ProbeQuery(Document):
    """A query and the passages that are ranked for it."""

    query: str
    passages: tuple[str, ...] = Field(min_length=2)


class ProbeSet(Document):
    """`probe.json`: the pairs by which an engine is compared with the reference."""

    queries: tuple[ProbeQuery, ...] = Field(min_length=1)
    own: int = Field(default=0, ge=0, description="how many of the last queries the user brought")

    @property
    def parts(self) -> list[slice]:
        """The built-in queries and the user's, as places in `queries`."""
        first = max(0, len(self.queries) - self.own)
        parts = (slice(0, first), slice(first, len(self.queries)))
        return [part for part in parts if self.queries[part]]

    def pairs(self) -> list[tuple[str, str]]:
        """(query, passage) in order."""
        return [(entry.query, passage) for entry in self.queries for passage in entry.passages]


class Reference(Document):
    """`reference.json`: the logit of PyTorch in FP32 for each pair of the probe set, in order."""

    logits: tuple[float, ...]


class NotComparableError(Exception):
    """There is nothing to compare; the message says why."""


def compare(
    probes: ProbeSet, reference: Sequence[float], runs: Sequence[Sequence[float]]
) -> ParityReport:
    """Compare the engine's logits of one or more `runs` with the reference.

    All are in the order of `probes.pairs()`. Over several runs the worst value of each measure
    counts, and so it does over the built-in and the user's queries, of which tau is the mean each.
    Raises NotComparableError for scores that are not numbers.
    """
    _check(probes, reference, "reference")
    for run in runs:
        _check(probes, run, "engine")
    tie = near_tie(reference)
    expected = list(_by_query(probes, reference))
    taus, losses, differences = [], [], []
    for run in runs:
        pairs = list(zip(expected, _by_query(probes, run), strict=True))
        for part in probes.parts:
            found = [tau for pair in pairs[part] if (tau := _tau(*pair, tie)) is not None]
            if not found:
                raise NotComparableError("the reference tells no two passages of a query apart")
            taus.append(sum(found) / len(found))
        losses.append(max(_ndcg_loss(*pair, tie) for pair in pairs))
        differences.append(max(abs(a - b) for a, b in zip(reference, run, strict=True)))
    return ParityReport(
        pairs=len(reference),
        queries=len(probes.queries),
        kendall_tau=min(taus),
        ndcg10_delta=max(losses),
        max_abs_diff=max(differences),
    )


def near_tie(reference: Sequence[float]) -> float:
    """Largest difference of two reference scores that counts as a tie."""
    return TIE * (max(reference) - min(reference))


def share_told_apart(probes: ProbeSet, reference: Sequence[float]) -> list[float]:
    """Share of the pairs of passages of one query that are no near ties, for each of the parts."""
    tie, by_query = near_tie(reference), list(_by_query(probes, reference))
    shares = []
    for part in probes.parts:
        apart = [
            abs(left - right) > tie
            for scores in by_query[part]
            for left, right in itertools.combinations(scores, 2)
        ]
        shares.append(sum(apart) / len(apart))
    return shares


def _check(probes: ProbeSet, scores: Sequence[float], whose: str) -> None:
    wrong = [number for number, score in enumerate(scores) if not math.isfinite(score)]
    if wrong:
        query, passage = probes.pairs()[wrong[0]]
        raise NotComparableError(
            f"the {whose} scores {len(wrong)} of {len(scores)} probe pairs with NaN or infinity, "
            f"first query {query[:50]!r}, passage {passage[:50]!r}"
        )


def _by_query(probes: ProbeSet, scores: Sequence[float]) -> Iterator[Sequence[float]]:
    end = 0
    for entry in probes.queries:
        start, end = end, end + len(entry.passages)
        yield scores[start:end]


def _tau(expected: Sequence[float], found: Sequence[float], tie: float) -> float | None:
    """None for a query whose reference scores are all near ties."""
    agreements = [
        _sign(expected[a] - expected[b]) * _sign(found[a] - found[b])
        for a, b in itertools.combinations(range(len(expected)), 2)
        if abs(expected[a] - expected[b]) > tie
    ]
    return sum(agreements) / len(agreements) if agreements else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _ndcg_loss(expected: Sequence[float], found: Sequence[float], tie: float) -> float:
    least, spread = min(expected), max(expected) - min(expected)
    if spread <= tie:
        return 0.0
    gains = [(score - least) / spread for score in expected]
    best = sorted(gains, reverse=True)[:_TOP]
    order = sorted(range(len(gains)), key=lambda place: (-found[place], gains[place]))
    discounts = [1 / math.log2(rank + 2) for rank in range(len(best))]
    lost = sum(
        (wanted - gains[place]) * discount
        for wanted, place, discount in zip(best, order, discounts, strict=False)
        if abs(wanted - gains[place]) > tie / spread
    )
    return max(0.0, lost / sum(map(float.__mul__, best, discounts)))
