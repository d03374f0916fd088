"""What became of the requests that were to be compared."""

from collections import OrderedDict
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Summary

from reranker_contracts import metrics as names

#: `skipped` are those whose scores say nothing of an order.
Result = Literal["compared", "skipped", "failed", "dropped"]
RESULTS: Final[tuple[Result, ...]] = ("compared", "skipped", "failed", "dropped")
#: Revisions that were met, the newest; what was compared with others is forgotten.
_MOST_REVISIONS: Final = 4


class ShadowTelemetry:
    """Counters in the gateway's registry; only made where requests are compared."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            names.SHADOW_REQUESTS,
            "Requests chosen to be compared with the revision on its way, by what became of them",
            ["result"],
            registry=registry,
        )
        for result in RESULTS:
            self._requests.labels(result)
        self._tau = Summary(
            names.SHADOW_TAU,
            "Kendall's tau-b of the scores of the same request here and there, by that revision",
            ["revision"],
            registry=registry,
        )
        self._met: OrderedDict[str, None] = OrderedDict()

    def ended(self, result: Result, count: int = 1) -> None:
        """So many requests came to this end."""
        self._requests.labels(result).inc(count)

    def compared(self, revision: str, tau: float) -> None:
        """The scores of one request agree by `tau` with those of `revision`."""
        self.ended("compared")
        self._met[revision] = None
        self._met.move_to_end(revision)
        if len(self._met) > _MOST_REVISIONS:
            self._tau.remove(self._met.popitem(last=False)[0])
        self._tau.labels(revision).observe(tau)
